"""The `vllm.general_plugins` entry point, which vLLM calls in every process that it starts."""

from __future__ import annotations


def register() -> None:
    """Install the engine core's hooks: block hashes, rows. Idempotent.

    Each is asleep unless the engine was started with `engine_options`: installing Galton
    changes nothing for somebody who only runs vLLM.
    Must stay light: vLLM calls it early in each worker, and importing numba before vLLM
    has replaced its Triton kernels breaks vLLM 0.32 (it looks into llvmlite's objects).
    """
    from routing.engine import cache, executor, scheduler

    cache.install()
    executor.install()
    scheduler.install()
