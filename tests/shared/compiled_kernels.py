"""GPUs' kernels, compiled on a machine without one: `python -m tests.shared.compiled_kernels`.

With the Triton that is found first. Prints a line per kernel and architecture.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, Final

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from routing.gpu.begin import begin_kernel
from routing.gpu.route import route_kernel
from routing.step import ARRAYS, Step

CAPABILITIES: Final = (80, 89, 90, 100, 120)  # A100, L4 and 4090, H100, B200, 5090
KINDS: Final = {
    "int64": "*i64",
    "int32": "*i32",
    "int16": "*i16",
    "float64": "*fp64",
    "float32": "*fp32",
}
SIGNATURE: Final[dict[str, Any]] = {
    "router_logits": "*fp32",
    "native_weights": "*fp32",
    "native_ids": "*i32",
    "topk_weights": "*fp32",
    "topk_ids": "*i32",
    "layer_index": "i32",
    "num_columns": "i32",
    "slots": "*i64",
    "query_start": "*i32",
    "positions": "*i64",
    "step": Step(*(KINDS[array.dtype] for array in ARRAYS)),
}
SIZES: Final = {
    "NUM_LAYERS": 4,
    "NUM_EXPERTS": 60,
    "NATIVE_TOP_K": 4,
    "MAX_TOP_K": 6,
    "NUM_RULE_NUMBERS": 6,
    "NUM_PARAMETERS": 4,
    "NUM_OBSERVED": 64,
    "LANES": 64,
    "COLUMNS": 8,
    "BLOCK": 64,
}


def spilled(kernel: Any, capability: int) -> int:
    """Bytes of a thread's stack and local memory: registers that did not suffice."""
    disassembler = next(Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump"))
    signature = {name: SIGNATURE.get(name, "constexpr") for name in kernel.arg_names}
    sizes = {name: size for name, size in SIZES.items() if name in kernel.arg_names}
    compiled = triton.compile(
        ASTSource(kernel, signature, sizes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 1, "enable_fp_fusion": False},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([disassembler, "-res-usage", file.name], text=True)
    stack, local = re.findall(r"STACK:(\d+) .*LOCAL:(\d+)", usage)[0]
    return int(stack) + int(local)


def main() -> None:
    """Compile all for all."""
    for kernel, capability in product((route_kernel, begin_kernel), CAPABILITIES):
        name, found = kernel.fn.__name__, spilled(kernel, capability)
        print(f"triton {triton.__version__}, sm_{capability}: {name} spills {found}", flush=True)


if __name__ == "__main__":
    main()
