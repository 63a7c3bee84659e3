"""`routing.reference.choice` in Triton."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from routing.gpu.noise import gumbel
from routing.gpu.rule import INFINITY, LAST, Rule, selection_scores

CLOSED = tl.constexpr((-0x7F800001 << 32) + LAST.value)  # no key of a value above -inf is below it
_ABOVE_ALL = tl.constexpr((1 << 63) - 1)


class Token(NamedTuple):
    """A `reference.choice.Token`. real: mask of the lanes that are experts.

    allowed, forced: masks of the experts that may and must be chosen. replayed: pointer to
    the experts that a trace holds for the token, so many that they fill columns, then -1.
    """

    logits: Any
    real: Any
    allowed: Any
    forced: Any
    rule: Rule
    seed: Any
    layer: Any
    position: Any
    replayed: Any
    columns: Any


@triton.jit
def best(token, count):
    """Places of the `count` best experts by the model's own scores."""
    return largest(token, selection_scores(token.rule, token.logits, token.real), count)


@triton.jit
def largest(token, values, count):
    """Places of the `count` experts of largest value, forced ones first."""
    return take_largest(keys_of(values, token.allowed, token.forced), count)


@triton.jit
def noisy_scores(token, temperature):
    """Selection scores of the logits with temperature x Gumbel noise."""
    noise = gumbel(token.seed, token.layer, token.position, token.logits.shape[0])
    return selection_scores(token.rule, token.logits + temperature * noise, token.real)


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
    for j in range(count):
        found = tl.max(tl.where(keys < found, keys, CLOSED))
        place = tl.where((keys == found) & (found > CLOSED), j, place)
    return place
