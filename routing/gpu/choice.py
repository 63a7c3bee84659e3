"""`routing.reference.choice` in Triton."""

from __future__ import annotations

import triton
import triton.language as tl

from routing.gpu.rule import INFINITY, LAST

CLOSED = tl.constexpr((-0x7F800001 << 32) + LAST.value)  # no key of a value above -inf is below it
_ABOVE_ALL = tl.constexpr((1 << 63) - 1)


@triton.jit
def keys_of(values, allowed, forced):
    """int64 in the order of (forced, float32 value, lower id), see `cpu.choice.set_keys`."""
    experts = tl.arange(0, values.shape[0])
    rounded = values.to(tl.float32)
    rounded = tl.where(rounded == 0, 0.0, rounded)  # -0 becomes 0
    rounded = tl.where(forced, INFINITY, rounded)
    bits = rounded.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & LAST)
    keys = (ordered.to(tl.int64) << 32) | (experts ^ LAST).to(tl.int64)
    return tl.where(allowed, keys, CLOSED)


@triton.jit
def take_largest(keys, count):
    """Places of the `count` largest keys; fewer, where fewer are not closed."""
    place = tl.full(keys.shape, LAST, tl.int32)
    found = tl.full((), _ABOVE_ALL, tl.int64)
    for slot in range(count):
        found = tl.max(tl.where(keys < found, keys, CLOSED))
        place = tl.where((keys == found) & (found > CLOSED), slot, place)
    return place
