"""Which of vLLM's expert kernels Galton's choices are handed to on GPUs."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.model_executor.layers.fused_moe import modular_kernel
from vllm.model_executor.layers.fused_moe.experts import (
    gpt_oss_triton_kernels_moe,
    triton_moe,
    trtllm_bf16_moe,
    trtllm_fp8_moe,
    trtllm_mxfp4_moe,
    trtllm_nvfp4_moe,
)

from routing.engine.experts import BEAR_REPETITION, leave_out_monolithic, not_usable_on_gpu

MODULES = (
    trtllm_bf16_moe,
    trtllm_fp8_moe,
    trtllm_nvfp4_moe,
    trtllm_mxfp4_moe,
    gpt_oss_triton_kernels_moe,
)
MONOLITHIC: list[Any] = [
    found
    for module in MODULES
    for _, found in inspect.getmembers(module, inspect.isclass)
    if issubclass(found, modular_kernel.FusedMoEExpertsMonolithic)
    and found.__module__ == module.__name__
]


def test_kernels_that_route_by_themselves_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    original = inspect.getattr_static(modular_kernel.FusedMoEExperts, "is_supported_config")
    monkeypatch.setattr(modular_kernel.FusedMoEExperts, "is_supported_config", original)
    leave_out_monolithic()
    assert len(MONOLITHIC) >= 5
    asked = (None, None, None, None)
    for kernel in MONOLITHIC:
        usable, why = kernel.is_supported_config(kernel, *asked)
        assert not usable
        assert why == "it routes by itself, and Galton routes by request", kernel
    # The others are judged by vLLM itself: no CPU has Triton's.
    kernel = triton_moe.TritonExperts
    assert "current device" in kernel.is_supported_config(kernel, *asked)[1]


def method_of(kernel: Any, *, is_monolithic: bool = False) -> Any:
    return SimpleNamespace(
        is_monolithic=is_monolithic, moe_kernel=SimpleNamespace(fused_experts=kernel)
    )


def test_kernels_that_go_wrong_with_an_expert_twice_are_refused() -> None:
    def of_class(name: str) -> Any:
        return type(name, (), {})()

    for name in BEAR_REPETITION:
        assert not_usable_on_gpu(method_of(of_class(name))) is None
    for name in ("FlashInferExperts", "OAITritonExperts", "FlashInferCuteDSLExperts"):
        reason = not_usable_on_gpu(method_of(of_class(name)))
        assert reason == (
            f"its expert kernel {name} may not bear unused slots: try --moe-backend triton"
        )
    monolithic = method_of(of_class("TritonExperts"), is_monolithic=True)
    assert "routes by itself" in str(not_usable_on_gpu(monolithic))
