"""The one place that knows vLLM's internals, written for vLLM 0.32.

Six small parts, each asleep unless the engine was started with `engine_options`:

    worker     the worker class: binds the routers after loading, fills each step's state
    router     a bound router: stock's choice, then the kernel
    sampling   a workaround for seeded token sampling on CPU
    cache      block hashes: blocks computed under different policies are never shared
    recorder   rows of tokens whose requests asked for a trace or statistics
    intake     unchecked requests are checked; choices of n > 1 get seeds of their own

Beside them `startup` self-tests an engine that runs, and `offline` runs one without a server.
`register` is the `vllm.general_plugins` entry point, called in every process. Installing
Galton changes nothing for somebody who only runs vLLM.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vllm.config import VllmConfig

VLLM_VERSION: Final = "0.32.0"
CONFIG_KEY: Final = "galton"


def register() -> None:
    """Install the engine core's hooks: block hashes, rows. Idempotent.

    Must stay light: vLLM calls it early in each worker, and importing numba before vLLM
    has replaced its Triton kernels breaks vLLM 0.32 (it looks into llvmlite's objects).
    """
    from routing.engine import cache, recorder

    cache.install()
    recorder.install()


@functools.cache
def end_with_parent() -> None:
    """End this process when the one that started it is gone: `kill -9` runs no clean-up, and
    vLLM's engine core would wait for requests for ever. Its workers watch it themselves.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="galton-end-with-parent", daemon=True).start()


def engine_options(
    max_experts_per_token: int | None = None, *, allow_request_steering: bool = False
) -> dict[str, Any]:
    """Keyword arguments for vLLM's `EngineArgs` or `LLM` that switch Galton on.

    max_experts_per_token: the most experts a request may ask for; None means the model's
    own number. allow_request_steering: see `parse_policy`.
    Both ride in vLLM's `additional_config`, which reaches every process and is part of the
    hash of compiled graphs: stock vLLM's cached graphs are never mistaken for Galton's.
    """
    from vllm.platforms import current_platform

    platform = "CPU" if current_platform.is_cpu() else "GPU"
    return {
        "worker_cls": f"routing.engine.worker.Routing{platform}Worker",
        "additional_config": {
            CONFIG_KEY: {
                "max_experts_per_token": max_experts_per_token,
                "allow_request_steering": allow_request_steering,
            }
        },
    }


def config_of(vllm_config: VllmConfig) -> dict[str, Any] | None:
    """Galton's part of the engine's configuration; None where Galton is off."""
    additional = vllm_config.additional_config
    return additional.get(CONFIG_KEY) if isinstance(additional, dict) else None


def wrap(owner: Any, name: str, hook: Callable[..., Any]) -> None:
    """Replace `owner.name` by `hook(original, *args)`. Idempotent."""
    original = getattr(owner, name)
    if getattr(original, "__galton__", False):
        return

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return hook(original, *args, **kwargs)

    wrapper.__galton__ = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapper)
