"""Which of vLLM's expert kernels Galton's choices are handed to on GPUs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from vllm.model_executor.layers.fused_moe import experts, modular_kernel

from routing.engine.experts import BEAR_REPETITION, leave_out_unfit, not_usable_on_gpu


def kernels() -> dict[str, Any]:
    """vLLM's classes of expert kernels, by name, as far as this machine can import them."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(experts.__path__, f"{experts.__name__}."):
        try:
            members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        except (AttributeError, ImportError):
            continue  # of another platform
        found |= {
            name: member
            for name, member in members
            if issubclass(member, modular_kernel.FusedMoEExperts)
        }
    return found


def test_vllm_chooses_among_kernels_that_take_any_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    original = inspect.getattr_static(modular_kernel.FusedMoEExperts, "is_supported_config")
    monkeypatch.setattr(modular_kernel.FusedMoEExperts, "is_supported_config", original)
    leave_out_unfit()
    reasons: dict[str, list[str]] = {}
    config = mock.MagicMock(in_dtype=torch.bfloat16, is_lora_enabled=False, has_bias=False)
    for name, kernel in kernels().items():
        usable, why = kernel.is_supported_config(kernel, config, None, None, None)
        assert not usable, "there is no GPU"
        reasons.setdefault(why, []).append(name)
    monolithic = reasons.pop("it routes by itself, and Galton routes by request")
    unfit = reasons.pop("it may not bear that a token has the same expert twice")
    assert len(monolithic) >= 5
    assert {"FlashInferExperts", "OAITritonExperts", "FlashInferCuteDSLExperts"} <= {*unfit}
    # The others are judged by vLLM itself; AMD's for what they lack.
    others = {name for names in reasons.values() for name in names}
    assert others - {"AiterExperts", "OCP_MXQuantizationEmulationTritonExperts"} == BEAR_REPETITION


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
