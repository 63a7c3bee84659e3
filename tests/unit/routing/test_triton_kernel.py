"""The Triton kernel, in processes of its own: how triton runs is settled when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

ON_GPU = torch.cuda.is_available()


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
    """The interpreter accepts what the compiler refuses."""
    compiled = _python("-m", "tests.shared.compiled_kernels", TRITON_CACHE_DIR=str(tmp_path))
    assert compiled.returncode == 0, compiled.stderr
    assert len(lines := compiled.stdout.splitlines()) == 10
    assert all(line.endswith(" spills 0") for line in lines), lines


@pytest.mark.skipif(ON_GPU, reason="needs a machine without a GPU")
def test_benchmark_without_a_gpu_says_so_in_one_line() -> None:
    benchmark = _python("-m", "routing.bench.gpu")
    assert benchmark.returncode == 1
    assert benchmark.stderr == "routing.bench.gpu: no GPU found; it times the kernel on one\n"
    assert benchmark.stdout == ""
