"""The expert kernels of GPUs: which take the experts that Galton chooses.

Some route by themselves, and never ask a router. Others go wrong where a token has the same expert
twice, as where it uses fewer than there are columns: FlashInfer's CUTLASS kernel reads wild memory
(flashinfer#3011), triton_kernels' sets a bit per expert. Others again have room for the model's own
number of experts only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from routing.engine.hooks import wrap

# Read in vLLM 0.32's source: each column of a token is an addend of its own.
BEAR_REPETITION: Final = frozenset(
    {
        "TritonExperts",
        "TritonWNA16Experts",
        "MarlinExperts",
        "DeepGemmExperts",
        "TritonOrDeepGemmExperts",
    }
)


def leave_out_unfit() -> None:
    """Have vLLM choose among kernels that take any choice. In a worker, before it loads a model."""
    from vllm.model_executor.layers.fused_moe.modular_kernel import FusedMoEExperts

    wrap(FusedMoEExperts, "is_supported_config", _fit_only)


def _fit_only(original: Callable[..., Any], cls: Any, *args: Any) -> Any:
    if cls.is_monolithic():
        return False, "it routes by itself, and Galton routes by request"
    if cls.__name__ not in BEAR_REPETITION:
        return False, "it may not bear that a token has the same expert twice"
    return original(cls, *args)


def not_usable(quant_method: Any) -> str | None:
    """Why the kernel behind a layer cannot take Galton's choices, or None if it can."""
    if quant_method.is_monolithic:
        return "its expert kernel routes by itself (vLLM's 'monolithic' experts)"
    return None


def not_usable_on_gpu(quant_method: Any) -> str | None:
    """The same of a GPU's, once the weights are loaded."""
    if reason := not_usable(quant_method):
        return reason
    kernel = quant_method.moe_kernel
    name = "unknown" if kernel is None else type(kernel.fused_experts).__name__
    if name not in BEAR_REPETITION:
        return f"its expert kernel {name} may not bear unused slots: try --moe-backend triton"
    return None
