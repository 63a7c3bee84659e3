"""`routing.reference.modes` in Triton."""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from routing.gpu.choice import keys_of, take_largest
from routing.gpu.noise import gumbel
from routing.gpu.rule import LAST, scores, selection_scores
from routing.policy.modes import MODES
from routing.reference import modes

_KNOWN_MODES: Final = ("top_k", "sample", "top_p", "head_sample", "uniform", "replay")
if tuple(MODES) != _KNOWN_MODES:
    raise NotImplementedError(f"the GPU kernel knows the modes {_KNOWN_MODES}, not {tuple(MODES)}")

# Triton reads a global only where it is a constexpr.
_TOP_P, _HEAD_SAMPLE = (tl.constexpr(MODES[m].code) for m in ("top_p", "head_sample"))
_SAMPLE, _UNIFORM = (tl.constexpr(MODES[m].code) for m in ("sample", "uniform"))
REPLAY = tl.constexpr(MODES["replay"].code)
_TOP_K_MASS, _ALMOST = tl.constexpr(modes.TOP_K_MASS), tl.constexpr(modes.ALMOST)


@triton.jit
def choose(
    mode,
    parameters,
    logits,
    real,
    allowed,
    forced,
    scoring,
    has_bias,
    bias,
    seed,
    layer,
    position,
    replayed,
    NATIVE_TOP_K: tl.constexpr,
    NUM_SLOTS: tl.constexpr,
):
    """The places that the mode gives; parameters: pointer to the layer's, in the mode's order."""
    first = tl.load(parameters)  # top_k, or top_p's own number
    second = tl.load(parameters + 1)
    third = tl.load(parameters + 2)
    fourth = tl.load(parameters + 3)
    temperature = tl.where(mode == _HEAD_SAMPLE, fourth, second)
    noise = tl.zeros_like(logits)
    if (mode == _SAMPLE) | (mode == _HEAD_SAMPLE) | (mode == _UNIFORM):
        noise = gumbel(seed, layer, position, logits.shape[0])

    if mode == REPLAY:
        experts = tl.arange(0, logits.shape[0])
        place = tl.full(logits.shape, LAST, tl.int32)
        for slot in range(NUM_SLOTS):
            place = tl.where(experts == tl.load(replayed + slot), slot, place)
    elif mode == _UNIFORM:
        place = take_largest(keys_of(noise, allowed, forced), first.to(tl.int32))
    elif mode == _SAMPLE:
        noisy = selection_scores(logits + temperature * noise, real, scoring, has_bias, bias)
        place = take_largest(keys_of(noisy, allowed, forced), first.to(tl.int32))
    else:
        keys = keys_of(selection_scores(logits, real, scoring, has_bias, bias), allowed, forced)
        if mode == _HEAD_SAMPLE:
            place = take_largest(keys, third.to(tl.int32))
            noisy = selection_scores(logits + temperature * noise, real, scoring, has_bias, bias)
            keys = keys_of(noisy, allowed & (place < LAST), forced)
            # The head's keys are put above all others, in its order.
            above = ((place ^ LAST) - 1).to(tl.int64) << 32
            keys = tl.where(place < second.to(tl.int32), above, keys)
            place = take_largest(keys, first.to(tl.int32))
        elif mode == _TOP_P:
            max_experts = second.to(tl.int32)
            place = take_largest(keys, tl.maximum(max_experts, NATIVE_TOP_K))
            mass = tl.where(allowed, scores(logits, real, scoring), 0.0)
            total = tl.sum(mass)
            if fourth == _TOP_K_MASS:
                total = tl.sum(tl.where(place < NATIVE_TOP_K, mass, 0.0))
            to_reach = first * total * _ALMOST
            enough = _enough(mass, place, to_reach, third.to(tl.int32), max_experts)
            place = tl.where(place < enough, place, LAST)
        else:
            place = take_largest(keys, first.to(tl.int32))
    return place


@triton.jit
def _enough(mass, place, to_reach, min_experts, max_experts):
    """How many of the first places hold the mass, within the bounds."""
    enough = max_experts
    for count in range(min_experts, max_experts):
        reached = tl.sum(tl.where(place < count, mass, 0.0))
        enough = tl.where(reached >= to_reach, tl.minimum(enough, count), enough)
    return enough
