"""The beginning of a step in Triton, one program per request: which token follows which slot's
policy, and what is counted of tokens without their experts.

It reads positions from device memory: of drafted tokens the host knows only an upper bound.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from routing.counts import PHASES, RECOMPUTE
from routing.gpu.step import slot_at, trace_experts, trace_row
from routing.step import Step

_NUM_PHASES, _RECOMPUTE = tl.constexpr(len(PHASES)), tl.constexpr(RECOMPUTE)
BLOCK: Final = 64


def begin(
    slots: torch.Tensor, query_start: torch.Tensor, positions: torch.Tensor, step: Step
) -> None:
    """slots, query_start, positions: see `Backend.begin_step`. step: tensors. All of one device;
    none is read on the host.
    """
    begin_kernel[(len(slots),)](
        slots, query_start, positions, step, NUM_LAYERS=step.layers.shape[0], BLOCK=BLOCK
    )


@triton.jit
def begin_kernel(
    slots, query_start, positions, step, NUM_LAYERS: tl.constexpr, BLOCK: tl.constexpr
):
    request = tl.program_id(0)
    number = tl.load(slots + request)
    slot = slot_at(step, number)
    start, end = tl.load(query_start + request), tl.load(query_start + request + 1)
    for first in range(start, end, BLOCK):
        t = first + tl.arange(0, BLOCK)
        real = t < end
        position = tl.load(positions + t, mask=real, other=0)
        follows = real & (position >= slot.first_position)
        if slot.trace_top_k > 0:
            row = trace_row(slot, position)
            experts = trace_experts(slot, row, 0, NUM_LAYERS)
            follows &= tl.load(experts, mask=follows & (row >= 0), other=-1) >= 0
        group = tl.where(follows, slot.group, slot.native_group)
        phase = (position >= slot.num_prompt_tokens).to(tl.int64)
        phase = tl.where(position < slot.num_routed, _RECOMPUTE, phase)
        tl.store(step.token_slot + t, tl.where(follows, number, -1).to(tl.int32), mask=real)
        tl.store(step.token_position + t, position, mask=real)
        tl.store(step.token_group + t, group.to(tl.int32), mask=real)
        records = tl.zeros_like(position) + slot.records
        tl.store(step.token_records + t, records.to(tl.int32), mask=real)
        counted = step.routed_tokens + group * _NUM_PHASES + phase
        tl.atomic_add(counted, tl.full(group.shape, 1, tl.int64), mask=real, sem="relaxed")
    if request == tl.num_programs(0) - 1:
        tl.store(step.num_tokens, end.to(tl.int64))
        tl.store(step.step_number, tl.load(step.step_number) + 1)
        tl.store(step.num_steps, tl.load(step.num_steps) + 1)
