"""Triton's interpreter, twice as fast."""

from __future__ import annotations

from typing import Any


def patch_language_once() -> None:
    """It patches Triton's language again for every call in a kernel: half of all the time.

    After TRITON_INTERPRET is set.
    """
    from triton import language
    from triton.runtime import interpreter

    patch = interpreter._patch_lang

    def patch_once(fn: Any) -> Any:
        modules = [m for m in fn.__globals__.values() if m in (language, language.core)]
        is_new = any(language.core.is_builtin(module.arange) for module in modules)
        return patch(fn) if is_new else interpreter._LangPatchScope()

    interpreter._patch_lang = patch_once
