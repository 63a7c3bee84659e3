"""The beginning of a step, compiled: which token follows which slot's policy, and what is counted
of tokens without their experts.

Compiled ahead of the first call and cached on disk, as `routing.cpu.route` is.
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit

from routing.counts import RECOMPUTE
from routing.cpu.step import slot_at, sources, step_at, trace_experts, trace_row

_SIGNATURE: Final = "UniTuple(int64, 2)(int64[::1], int32[::1], int64[::1], int64)"


@njit(inline="always")
def _follows(slot, position, num_layers):
    """Whether the token at a position follows the slot's policy: if that is to replay a trace, it
    must hold the token.
    """
    if position < slot.first_position:
        return False
    if slot.trace_top_k == 0:
        return True
    row = trace_row(slot, position)
    return row >= 0 and trace_experts(slot, row, 0, num_layers)[0] >= 0


def _compile(checksum: int) -> Any:
    @njit(_SIGNATURE, cache=True, nogil=True, boundscheck=False, error_model="numpy")
    def begin(slots, query_start, positions, step_table):
        """slots, query_start, positions: see `Backend.begin_step`. step_table: address of a
        `table_of`. Returns how many tokens want to know the native choice, and how many want more
        than to keep it and be counted.
        """
        step = step_at(step_table)
        curious, busy = 0, 0
        num_layers = step.layers.shape[0]
        for request in range(slots.shape[0] if checksum >= 0 else 0):
            slot = slot_at(step, slots[request])
            for t in range(query_start[request], query_start[request + 1]):
                position = positions[t]
                follows = _follows(slot, position, num_layers)
                group = slot.group if follows else slot.native_group
                phase = 1 if position >= slot.num_prompt_tokens else 0
                if position < slot.num_routed:
                    phase = RECOMPUTE
                step.token_slot[t] = slots[request] if follows else -1
                step.token_position[t] = position
                step.token_group[t] = group
                step.token_records[t] = slot.records
                step.routed_tokens[group, phase] += 1
                if not follows or slot.records or slot.keeps_native:
                    curious += 1
                if follows or slot.records:
                    busy += 1
        step.num_tokens[0] = query_start[slots.shape[0]]
        step.step_number[0] += 1
        step.num_steps[0] += 1
        return curious, busy

    # Its one form: numba need not look it up.
    return begin.get_overload(begin.signatures[0])


begin = _compile(sources())
