"""Workarounds for AMX, the matrix unit of newer Intel CPUs, which vLLM 0.32 uses where it is.

The operating system lets those processes use it that have asked. oneDNN asks, when it first
multiplies matrices that are large enough; vLLM's own AMX kernels do not, and where one of them
comes first, as upon a prompt of two tokens, SIGILL ends the engine.

AMX's sums are ordered by the shape of the batch: what else is in it changes a token's last bits,
and then its experts. For a batch-invariant engine attention and matrices are left to AVX-512,
whose sums are not; vLLM's own `VLLM_BATCH_INVARIANT` refuses every MoE model on CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from vllm.v1.attention.backends import cpu_attn

from routing.engine.hooks import wrap


def prepare(*, batch_invariant: bool) -> None:
    """In a worker, before it loads a model: oneDNN reads its environment once. Idempotent."""
    if not torch.cpu._is_amx_tile_supported():
        return
    torch.cpu._init_amx()
    if batch_invariant:
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
        wrap(cpu_attn, "_get_attn_isa", _without_amx)


def _without_amx(original: Callable[..., str], *args: Any, **kwargs: Any) -> str:
    isa = original(*args, **kwargs)
    return "vec" if isa == "amx" else isa
