"""The Triton kernel, in processes of its own: how triton runs is settled when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

ON_GPU = torch.cuda.is_available()

# The interpreter accepts what the compiler refuses, and a machine without a GPU can compile.
COMPILE = r"""
import itertools, re, subprocess, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from routing.gpu.begin import begin_kernel
from routing.gpu.route import route_kernel
from routing.step import ARRAYS, Step

CAPABILITIES = (80, 89, 90, 100, 120)  # A100, L4 and 4090, H100, B200, 5090
DISASSEMBLER = next(Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump"))
kinds = {"int64": "*i64", "int32": "*i32", "int16": "*i16", "uint64": "*u64", "bool": "*i1",
         "float64": "*fp64", "float32": "*fp32"}
signature = {"router_logits": "*fp32", "native_weights": "*fp32", "native_ids": "*i32",
             "topk_weights": "*fp32", "topk_ids": "*i32", "layer_index": "i32",
             "slots": "*i64", "query_start": "*i32", "positions": "*i64",
             "step": Step(*(kinds[array.dtype] for array in ARRAYS))}
sizes = dict(NUM_LAYERS=4, NUM_EXPERTS=60, NATIVE_TOP_K=4, MAX_TOP_K=6, NUM_RULE_NUMBERS=6,
             NUM_PARAMETERS=4, NUM_OBSERVED=64, LANES=64, COLUMNS=8, BLOCK=64)
for kernel, capability in itertools.product((route_kernel, begin_kernel), CAPABILITIES):
    of_kernel = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    constants = {name: size for name, size in sizes.items() if name in kernel.arg_names}
    compiled = triton.compile(
        ASTSource(kernel, of_kernel, constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 1, "enable_fp_fusion": False},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([DISASSEMBLER, "-res-usage", file.name], text=True)
    print(capability, *re.findall(r"STACK:(\d+) .*LOCAL:(\d+)", usage)[0])
"""


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_kernel_equals_reference() -> None:
    environment = {"GALTON_TEST_BACKEND": "gpu", **({} if ON_GPU else {"TRITON_INTERPRET": "1"})}
    files = ("tests/unit/routing/triton_kernel_cases.py", "tests/unit/routing/test_kernel.py")
    cases = _python("-m", "pytest", "-q", *files, **environment)
    assert cases.returncode == 0, cases.stdout + cases.stderr


def test_kernels_compile_for_gpus(tmp_path: os.PathLike[str]) -> None:
    compiled = _python("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    assert compiled.returncode == 0, compiled.stderr
    # By architecture, bytes of the stack and of local memory: nothing is spilled.
    lines = compiled.stdout.splitlines()
    assert len(lines) == 10
    assert all(line.endswith(" 0 0") for line in lines), lines


@pytest.mark.skipif(ON_GPU, reason="needs a machine without a GPU")
def test_benchmark_without_a_gpu_says_so_in_one_line() -> None:
    benchmark = _python("-m", "routing.bench.gpu")
    assert benchmark.returncode == 1
    assert benchmark.stderr == "routing.bench.gpu: no GPU found; it times the kernel on one\n"
    assert benchmark.stdout == ""
