#!/usr/bin/env bash
# Set up .venv: `deploy/setup.sh PYTHON [cpu|cuda]`. Run by `make setup` and `make gpu-setup`; safe to
# repeat.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH_VERSION=2.13.0+cpu
TORCH_INDEX=https://download.pytorch.org/whl/cpu
UV_VERSION=0.13.9

step() { printf '\033[1m[galton setup %s]\033[0m %s\n' "$1" "$2"; }
fail() { printf 'galton setup: %s\n' "$1" >&2; exit 1; }

python=${1:-} device=${2:-cpu}
[ -n "$python" ] || fail "no Python found: install Python 3.11, or name one with make PYTHON=/path/to/python3.11"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
    fail "$python does not run: name another with make PYTHON=/path/to/python3.11"
[ "$version" = 3.11 ] ||
    fail "Python 3.11 is needed, $python is $version: name another with make PYTHON=/path/to/python3.11"
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    fail "Galton runs on 64-bit x86 Linux only, this is $(uname -s) on $(uname -m)"
case $device in
    cpu) needed_gib=4 size="300 MB" ;;
    cuda) needed_gib=20 size="several GB" ;;
    *) fail "no set-up for $device: cpu or cuda" ;;
esac
[ "$device" = cuda ] || grep -qw avx2 /proc/cpuinfo ||
    fail "this CPU has no AVX2, which vLLM's CPU build needs: use a machine from 2015 or later"
[ "$device" = cpu ] || command -v nvidia-smi >/dev/null ||
    printf 'galton setup: there is no nvidia-smi here, so that no GPU may be found\n' >&2
free_mib=$(df --output=avail -m . | tail -n 1)
[ "$free_mib" -ge $((needed_gib * 1024)) ] ||
    fail "$needed_gib GiB of free disk are needed here, $free_mib MiB are left"
before=$device
[ ! -d .venv ] || before=$(cat .venv/.device 2>/dev/null || echo cpu)
[ "$before" = "$device" ] || fail ".venv was set up for $before: make clean, then again"

step 1/4 "virtual environment .venv"
[ -x .venv/bin/pip ] || "$python" -m venv .venv ||
    fail "could not make .venv: on Debian and Ubuntu, install the package python3.11-venv"
echo "$device" > .venv/.device
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

if [ "$device" = cpu ]; then
    step 2/4 "torch $TORCH_VERSION (200 MB)"
fi
if [ "$device" = cpu ] && ! .venv/bin/python -c "import importlib.metadata as m, sys; sys.exit(m.version('torch') != '$TORCH_VERSION')" 2>/dev/null; then
    # Alone and by pip: the one package from another index, and pip also honours a mirror
    # or a local wheel that the machine's pip configuration names.
    pip install --no-deps --retries 1 --extra-index-url "$TORCH_INDEX" "torch==$TORCH_VERSION" ||
        fail "torch $TORCH_VERSION could not be installed: is $TORCH_INDEX reachable?"
fi

step 3/4 "vLLM and the rest, pinned and hashed in requirements-$device.lock ($size)"
pip install --quiet "uv==$UV_VERSION"
.venv/bin/uv pip install --python .venv/bin/python --no-deps --require-hashes -r "requirements-$device.lock"
.venv/bin/uv pip install --python .venv/bin/python --no-deps --editable .

step 4/4 "compiling the routing kernel"
.venv/bin/python -c "import routing.cpu.backend"
if [ "$device" = cuda ]; then
    step done "try: make gpu-check, then make serve ARGS=--experimental-cuda"
else
    step done "try: make serve"
fi
