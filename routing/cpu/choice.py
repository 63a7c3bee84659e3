"""`routing.reference.choice`, compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from routing.cpu.elementary import f32, order_of
from routing.cpu.noise import gumbel_into
from routing.cpu.rule import to_selection_scores


class CompiledToken(NamedTuple):
    """A `Token` with room to work in. Arrays are float64 [E] unless said otherwise.

    clean: float32, the logits before steering. logits, gate: filled where the token is gated.
    gated: whether `gate` holds anything but zeros. work, scratch: room to work in, E rounded
    up to `whole_blocks`. keys: int64 [E], see `set_keys`. replayed: int16 [S], the experts that
    a trace holds for the token, then -1. ids: int32, where a mode leaves its choice.
    """

    clean: Any
    logits: Any
    gate: Any
    gated: Any
    rule: Any
    native_top_k: Any
    seed: Any
    layer: Any
    position: Any
    work: Any
    scratch: Any
    keys: Any
    replayed: Any
    ids: Any


@njit(inline="always", error_model="numpy")
def best(token, count):
    """ids <- `Token.best` of the logits; how many there are."""
    logits_into(token.work, token)
    to_selection_scores(token.work, token.clean.shape[0], token.rule)
    return largest(token, count)


@njit(inline="always", error_model="numpy")
def logits_into(values, token):
    """Fill values[:E] with the token's logits after steering."""
    if token.gated:
        for e in range(token.clean.shape[0]):
            values[e] = token.logits[e]
    else:
        for e in range(token.clean.shape[0]):
            values[e] = token.clean[e]


@njit(inline="always", error_model="numpy")
def noisy_scores(token, temperature):
    """work <- selection scores of the logits with temperature x Gumbel noise."""
    gumbel_into(token.work, token.scratch, token.seed, token.layer, token.position)
    logits_into(token.scratch, token)
    for e in range(token.clean.shape[0]):
        token.work[e] = token.scratch[e] + temperature * token.work[e]
    to_selection_scores(token.work, token.clean.shape[0], token.rule)


@njit(inline="always", error_model="numpy")
def largest(token, count):
    """ids <- `Token.largest` of work; how many there are."""
    rank(token)
    return take_largest(token.keys, token.ids, count)


@njit(inline="always", error_model="numpy")
def rank(token):
    """keys <- the order of work, after bans and forces."""
    if token.gated:
        for e in range(token.gate.shape[0]):
            if token.gate[e] != 0:
                token.work[e] = token.gate[e]
    set_keys(token.keys, token.work)


_LAST = (1 << 31) - 1
CLOSED = (-0x7F800001 << 32) + _LAST  # no key of a value above -inf is below it
_HIGHEST_KEY, _HALF, _1 = np.uint64((1 << 63) - 1), np.uint64(1 << 63), np.uint64(1)


@njit(error_model="numpy")
def set_keys(keys, values):
    """keys <- integers in the order of (float32 value, lower id first).

    One comparison of keys settles value and tie, in vector instructions and without a branch.
    """
    for e in range(keys.shape[0]):
        order = order_of(f32(values[e]) + f32(0))  # -0 becomes 0
        keys[e] = (np.int64(order) << 32) | (_LAST - e)


@njit(error_model="numpy")
def take_largest(keys, ids, count):
    """ids <- experts of the `count` largest keys, largest first; how many are not closed.

    One pass for each, without a branch: on random logits a branch is mispredicted about
    `count` ln(E / `count`) times, which costs more. A pass looks for the key nearest below a
    limit, the last one taken. Distances are modulo 2^64, so that those to keys above wrap
    around to the far end, and count from -2^63: AVX2 compares signed numbers only.
    """
    limit = _HIGHEST_KEY
    for slot in range(count):
        origin = limit + _HALF
        to_closed = np.int64(origin - np.uint64(np.int64(CLOSED)))
        nearest = to_closed
        for e in range(keys.shape[0]):
            nearest = min(nearest, np.int64(origin - np.uint64(keys[e])))
        if nearest == to_closed:
            return slot
        found = origin - np.uint64(nearest)
        ids[slot] = np.int32(_LAST - (np.int64(found) & _LAST))
        limit = found - _1
    return count


@njit(error_model="numpy")
def key_above_all(place, expert):
    """A key above every number's, for the expert to be taken as number `place`."""
    return (np.int64(0x7FFFFFFE - place) << np.int64(32)) | np.int64(_LAST - expert)
