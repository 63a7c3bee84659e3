"""How vLLM's functions are wrapped. What is wrapped, and why: `routing.engine.seams`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def wrap(owner: Any, name: str, hook: Callable[..., Any]) -> None:
    """Replace `owner.name` by `hook(original, *args)`. Idempotent."""
    original = getattr(owner, name)
    if getattr(original, "__galton__", False):
        return

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return hook(original, *args, **kwargs)

    wrapper.__galton__ = True  # type: ignore[attr-defined]
    is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(wrapper) if is_static else wrapper)
