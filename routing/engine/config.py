"""How an engine is told that Galton is in it, and with which options."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vllm.config import VllmConfig

VLLM_VERSION: Final = "0.32.0"
CONFIG_KEY: Final = "galton"
WORKERS: Final = {
    "cpu": "routing.engine.cpu_worker.RoutingCPUWorker",
    "gpu": "routing.engine.gpu_worker.RoutingGPUWorker",
}
# Ways to draft tokens, of vLLM's option speculative_config, that were seen to leave routing exact.
EXACT_DRAFTS: Final = ("ngram", "draft_model", "ngram_gpu")
# Upon it, engine core and workers write their stacks to stderr.
DUMP_SIGNAL: Final = signal.SIGUSR2


class UnsupportedVersionError(RuntimeError):
    """The installed vLLM is not the one whose internals `routing.engine` was written for."""


def check_version() -> None:
    """Raises UnsupportedVersionError."""
    import vllm

    if vllm.__version__.partition("+")[0] != VLLM_VERSION:
        raise UnsupportedVersionError(
            f"Galton extends vLLM {VLLM_VERSION}, and {vllm.__version__} is installed: "
            "run make setup"
        )


def engine_options(
    max_experts_per_token: int | None = None,
    *,
    allow_request_steering: bool = False,
    batch_invariant: bool = False,
    backend: str | None = None,
) -> dict[str, Any]:
    """Keyword arguments for vLLM's `EngineArgs` or `LLM` that switch Galton on.

    max_experts_per_token: the most experts a request may ask for; None means the model's
    own number. allow_request_steering: see `parse_policy`. batch_invariant: whether an answer
    must not depend on what else is in the batch, at the price of slower sums where that is needed.
    backend: one of `routing.backend.BACKENDS`; None: that of vLLM's platform.
    Raises UnsupportedVersionError where another vLLM is installed than this was written for.
    All ride in vLLM's `additional_config`, which reaches every process and is part of the
    hash of compiled graphs: stock vLLM's cached graphs are never mistaken for Galton's.
    """
    check_version()
    from vllm.platforms import current_platform

    return {
        "worker_cls": WORKERS["cpu" if current_platform.is_cpu() else "gpu"],
        "additional_config": {
            CONFIG_KEY: {
                "max_experts_per_token": max_experts_per_token,
                "allow_request_steering": allow_request_steering,
                "batch_invariant": batch_invariant,
                "backend": backend,
            }
        },
    }


def config_of(vllm_config: VllmConfig) -> dict[str, Any] | None:
    """Galton's part of the engine's configuration; None where Galton is off."""
    additional = vllm_config.additional_config
    return additional.get(CONFIG_KEY) if isinstance(additional, dict) else None
