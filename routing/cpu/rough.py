"""A choice among noisy scores in float32, where that is certainly the exact one.

Two logarithms in float64 per expert are most of what `sample` costs. In float32 they cost a third.
A score is then within `ERROR` x temperature of the exact one, so that the choice is the same unless
two of the best scores are that close, as one token's in two hundred are.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from routing.cpu.elementary import f32, i32, order_of, rough_minus_ln, split
from routing.cpu.noise import words_into
from routing.cpu.rule import selects_by_logits

ERROR = 2.0**-18
"""How far temperature x noise is from the exact one at most, for a temperature of 1."""

u32 = np.uint32
_STEP, _HALF_STEP, _2_24 = f32(2.0**-24), f32(2.0**-25), f32(2.0**24)
_ALL_BUT_SIGN, _2_31, _ABOVE_ALL = i32(0x7FFFFFFF), u32(1 << 31), 1e300


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def rough_exponential(n):
    """-ln u in float32, of u = (n + 1/2) 2^-24; n: int32 below 2^24. -ln of it is Gumbel noise."""
    exponent, f = split(f32(n) * _STEP + _HALF_STEP)
    exact = (f32(n) - _2_24) * _STEP + _HALF_STEP  # u - 1 near 1, where u is rounded
    return rough_minus_ln(exponent, exact if exponent == i32(0) else f)


@njit(error_model="numpy", fastmath={"contract"})
def _scores_into(scores, noise, words, clean, temperature):
    """scores <- clean + temperature x noise. scores, noise: float32; words: of `words_into`.

    One loop for each width of numbers: the widest in a loop says how many go into a vector. One
    for each logarithm: AVX2 has no registers for the constants of two.
    """
    num_blocks, t, numbers = words.shape[0] // 4, f32(temperature), scores.view(np.int32)
    for i in range(4 * num_blocks):
        numbers[i] = i32(np.uint64(words[i]) >> np.uint64(8))
    for i in range(4 * num_blocks):
        noise[i] = rough_exponential(numbers[i])
    for i in range(4 * num_blocks):
        noise[i] = rough_minus_ln(*split(noise[i]))
    for block in range(num_blocks):
        for j in range(4):
            scores[4 * block + j] = noise[j * num_blocks + block]
    for e in range(clean.shape[0]):
        scores[e] = clean[e] + t * scores[e]


@njit(error_model="numpy")
def _set_keys(keys, scores, id_bits):
    """keys <- int32 in the order of the scores, but for their last bits, which hold the expert."""
    for e in range(keys.shape[0]):
        keys[e] = i32(i32(order_of(scores[e]) | id_bits) - i32(e))


@njit(error_model="numpy")
def _surely_take(keys, scores, ids, count, id_bits, error):
    """`choice.take_largest` of such keys, as long as each score is certainly below the last."""
    limit, last, rounding = u32(_ALL_BUT_SIGN), _ABOVE_ALL, (id_bits + 3) * 2.0**-23
    for slot in range(count):
        origin = u32(limit + _2_31)
        nearest = _ALL_BUT_SIGN
        for e in range(keys.shape[0]):
            nearest = min(nearest, i32(u32(origin - u32(keys[e]))))
        found = u32(origin - u32(nearest))
        expert = i32(id_bits - i32(i32(found) & id_bits))
        score = np.float64(scores[expert])
        if not last - score > 2 * error + rounding * (abs(last) + abs(score)):
            return False
        ids[slot] = expert
        limit, last = u32(found - u32(1)), score
    return True


@njit(error_model="numpy")
def surely_largest(token, temperature, count):
    """ids <- experts of the `count` largest `noisy_scores`; False where that is not certain."""
    if token.gated or not selects_by_logits(token.rule):
        return False
    num_experts = token.clean.shape[0]
    words, keys = token.scratch.view(np.uint64), token.keys.view(np.int32)[:num_experts]
    scores, noise = token.work.view(np.float32), token.ids.view(np.float32)
    words_into(words, token.seed, token.layer, token.position)
    _scores_into(scores, noise, words, token.clean, temperature)
    id_bits = i32(1)
    while id_bits < num_experts - 1:
        id_bits = i32(2 * id_bits + 1)
    _set_keys(keys, scores, id_bits)
    taken = min(count + 1, num_experts)  # the next best, too, is to be certainly below
    return _surely_take(keys, scores, token.ids, taken, id_bits, ERROR * temperature)
