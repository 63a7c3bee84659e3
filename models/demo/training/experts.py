"""What training puts in place of transformers' loop over experts: their tokens sorted, in bf16."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 64


def _with_zero_row(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])


class _Dispatch(torch.autograd.Function):
    """hidden [T, H] -> the rows of each expert one after the other [P, H]; see `_slots`.

    The backward pass gathers and sums K rows, where autograd's own would scatter them.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, filled: Tensor, slots: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.top_k = top_k
        return _with_zero_row(hidden).index_select(0, filled // top_k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (slots,) = ctx.saved_tensors
        rows = grads[0].index_select(0, slots)
        return rows.view(-1, ctx.top_k, rows.shape[-1]).sum(dim=1), None, None, None


class _Collect(torch.autograd.Function):
    """The experts' rows back in the order of assignments: [P, H] -> [T * K, H]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, filled: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(filled)
        return rows.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (filled,) = ctx.saved_tensors
        return _with_zero_row(grads[0]).index_select(0, filled), None, None


def _slots(topk_ids: Tensor, num_experts: int) -> tuple[Tensor, Tensor, list[int]]:
    """Where each assignment goes when every expert has a multiple of ROWS rows; topk_ids [T, K].

    Returns filled [P], the assignment in each row, T * K where there is none; slots [T * K], the
    row of each assignment; and the number of rows of each expert. Multiples, because oneDNN
    compiles a kernel for every number of rows it has not seen: 0.7 ms, more than the product takes.
    """
    flat = topk_ids.reshape(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_experts)
    padded = (counts + ROWS - 1) // ROWS * ROWS
    shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
    slots = torch.empty_like(flat)
    slots[order] = torch.arange(flat.shape[0]) + shift[flat[order]]
    filled = torch.full((int(padded.sum()),), flat.shape[0])
    filled[slots] = torch.arange(flat.shape[0])
    return filled, slots, padded.tolist()


def sorted_experts(self: Any, hidden: Tensor, topk_ids: Tensor, topk_weights: Tensor) -> Tensor:
    """transformers' experts, tokens sorted by expert: hidden [T, H], topk_* [T, K] -> [T, H]."""
    top_k = topk_ids.shape[1]
    filled, slots, counts = _slots(topk_ids, self.num_experts)
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else hidden.dtype
    rows = _Dispatch.apply(hidden.to(dtype), filled, slots, top_k)  # type: ignore[no-untyped-call]
    outputs = []
    weights = zip(
        self.gate_up_proj.to(dtype).unbind(0), self.down_proj.to(dtype).unbind(0), strict=True
    )
    for part, (gate_up_proj, down_proj) in zip(rows.split(counts), weights, strict=True):
        gate, up = F.linear(part, gate_up_proj).chunk(2, dim=-1)
        outputs.append(F.linear(F.silu(gate) * up, down_proj))
    collected = _Collect.apply(torch.cat(outputs), filled, slots)  # type: ignore[no-untyped-call]
    weighted = collected.view(-1, top_k, hidden.shape[-1]) * topk_weights.to(dtype).unsqueeze(-1)
    return weighted.sum(dim=1).to(hidden.dtype)
