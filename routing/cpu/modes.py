"""`routing.reference.modes`, compiled: (CompiledToken, [P] float64) -> how many ids were left.

The experts are left in the token's `ids`, best first.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from routing.cpu.choice import (
    CLOSED,
    best,
    key_above_all,
    largest,
    logits_into,
    noisy_scores,
    rank,
    take_largest,
)
from routing.cpu.noise import numbers_into
from routing.cpu.rough import surely_largest
from routing.cpu.rule import to_scores
from routing.policy.modes import MODES
from routing.reference.modes import ALMOST, TOP_K_MASS

# Places of parameters.
_TOP_K: Final = MODES["top_k"].index("top_k")
_SAMPLE_TOP_K, _SAMPLE_TEMPERATURE = map(MODES["sample"].index, ("top_k", "temperature"))
_TOP_P, _MAX_EXPERTS, _MIN_EXPERTS, _MASS = map(
    MODES["top_p"].index, ("top_p", "max_experts", "min_experts", "mass")
)
_HEAD_TOP_K, _HEAD, _POOL, _HEAD_TEMPERATURE = map(
    MODES["head_sample"].index, ("top_k", "head", "pool", "temperature")
)
_UNIFORM_TOP_K: Final = MODES["uniform"].index("top_k")


@njit(inline="always", error_model="numpy")
def top_k(token, parameters):
    return best(token, int(parameters[_TOP_K]))


@njit(inline="always", error_model="numpy")
def sample(token, parameters):
    top_k, temperature = int(parameters[_SAMPLE_TOP_K]), parameters[_SAMPLE_TEMPERATURE]
    if temperature == 0:
        return best(token, top_k)
    if surely_largest(token, temperature, top_k):
        return top_k
    noisy_scores(token, temperature)
    return largest(token, top_k)


@njit(inline="always", error_model="numpy")
def top_p(token, parameters):
    max_experts, min_experts = int(parameters[_MAX_EXPERTS]), int(parameters[_MIN_EXPERTS])
    num_experts = token.clean.shape[0]
    found = best(token, max(max_experts, token.native_top_k))
    mass = token.work
    logits_into(mass, token)
    to_scores(mass, num_experts, token.rule)
    total = 0.0
    if parameters[_MASS] == TOP_K_MASS:
        for j in range(min(found, token.native_top_k)):
            total += mass[token.ids[j]]
    else:
        for e in range(num_experts):
            if not token.gated or token.gate[e] >= 0:
                total += mass[e]
    found = min(found, max_experts)
    reached = 0.0
    for j in range(found):
        reached += mass[token.ids[j]]
        if j + 1 >= min_experts and reached >= parameters[_TOP_P] * total * ALMOST:
            return j + 1
    return found


@njit(inline="always", error_model="numpy")
def head_sample(token, parameters):
    """The head's keys are put above all others, in its order."""
    head, pool = int(parameters[_HEAD]), int(parameters[_POOL])
    found = best(token, pool)
    noisy_scores(token, parameters[_HEAD_TEMPERATURE])
    rank(token)
    kept = token.work.view(np.int64)
    for place in range(found):
        e = token.ids[place]
        kept[place] = key_above_all(place, e) if place < head else token.keys[e]
    for e in range(token.keys.shape[0]):
        token.keys[e] = CLOSED
    for place in range(found):
        token.keys[token.ids[place]] = kept[place]
    return take_largest(token.keys, token.ids, int(parameters[_HEAD_TOP_K]))


@njit(inline="always", error_model="numpy")
def uniform(token, parameters):
    """Gumbel noise grows with the random number that it is made of, also once in float32."""
    numbers_into(token.work, token.scratch, token.seed, token.layer, token.position)
    return largest(token, int(parameters[_UNIFORM_TOP_K]))


@njit(inline="always", error_model="numpy")
def replay(token, parameters):
    for j in range(token.replayed.shape[0]):
        if token.replayed[j] < 0:
            return j
        token.ids[j] = token.replayed[j]
    return token.replayed.shape[0]


CHOOSE: Final[dict[str, Any]] = {
    "top_k": top_k,
    "sample": sample,
    "top_p": top_p,
    "head_sample": head_sample,
    "uniform": uniform,
    "replay": replay,
}
