"""`routing.step`'s slots in Triton, and what a slot's trace holds."""

from __future__ import annotations

import triton
import triton.language as tl

from routing.step import Slot

NUM_NUMBERS = tl.constexpr(len(Slot._fields))
_INT16, _BOOL = tl.constexpr(tl.pointer_type(tl.int16)), tl.constexpr(tl.pointer_type(tl.int8))


@triton.jit
def slot_at(step, slot):
    """The `Slot` of that number."""
    row = step.slot_numbers + slot * NUM_NUMBERS
    return Slot(
        tl.load(row),
        tl.load(row + 1),
        tl.load(row + 2),
        tl.load(row + 3),
        tl.load(row + 4),
        tl.load(row + 5),
        tl.load(row + 6),
        tl.load(row + 7),
        tl.load(row + 8),
        tl.load(row + 9),
        tl.load(row + 10),
        tl.load(row + 11),
        tl.load(row + 12),
        tl.load(row + 13),
        tl.load(row + 14),
        tl.load(row + 15),
        tl.load(row + 16),
    )


@triton.jit
def trace_row(slot, positions):
    """Places of positions in the trace that a slot replays; -1 where it holds none."""
    rows = positions - slot.trace_position
    return tl.where((rows >= 0) & (rows < slot.trace_tokens), rows, -1)


@triton.jit
def trace_experts(slot, row, layer_index, num_layers):
    """Pointer to the `slot.trace_top_k` experts of a row of the slot's trace."""
    start = (row * num_layers + layer_index) * slot.trace_top_k
    return slot.trace_ids.to(_INT16, bitcast=True) + start


@triton.jit
def trace_was_native(slot, row):
    """Whether the native router chose them."""
    return tl.load(slot.trace_native.to(_BOOL, bitcast=True) + row) != 0
