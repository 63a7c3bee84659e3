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
    noisy_scores,
    rank,
    take_largest,
)
from routing.cpu.noise import gumbel_into
from routing.cpu.rule import to_scores
from routing.reference.modes import ALMOST, TOP_K_MASS


@njit(inline="always", error_model="numpy")
def top_k(token, parameters):
    return best(token, int(parameters[0]))


@njit(inline="always", error_model="numpy")
def sample(token, parameters):
    if parameters[1] == 0:
        return best(token, int(parameters[0]))
    noisy_scores(token, parameters[1])
    return largest(token, int(parameters[0]))


@njit(inline="always", error_model="numpy")
def top_p(token, parameters):
    top_p, max_experts, min_experts = parameters[0], int(parameters[1]), int(parameters[2])
    num_experts = token.logits.shape[0]
    found = best(token, max(max_experts, token.native_top_k))
    mass = token.work
    for e in range(num_experts):
        mass[e] = token.logits[e]
    to_scores(mass, num_experts, token.rule)
    total = 0.0
    if parameters[3] == TOP_K_MASS:
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
        if j + 1 >= min_experts and reached >= top_p * total * ALMOST:
            return j + 1
    return found


@njit(inline="always", error_model="numpy")
def head_sample(token, parameters):
    """The head's keys are put above all others, in its order."""
    top_k, head, pool = int(parameters[0]), int(parameters[1]), int(parameters[2])
    found = best(token, pool)
    noisy_scores(token, parameters[3])
    rank(token)
    kept = token.work.view(np.int64)
    for place in range(found):
        e = token.ids[place]
        kept[place] = key_above_all(place, e) if place < head else token.keys[e]
    for e in range(token.keys.shape[0]):
        token.keys[e] = CLOSED
    for place in range(found):
        token.keys[token.ids[place]] = kept[place]
    return take_largest(token.keys, token.ids, top_k)


@njit(inline="always", error_model="numpy")
def uniform(token, parameters):
    gumbel_into(token.work, token.scratch, token.seed, token.layer, token.position)
    return largest(token, int(parameters[0]))


@njit(inline="always", error_model="numpy")
def replay(token, parameters):
    for slot in range(token.replayed.shape[0]):
        if token.replayed[slot] < 0:
            return slot
        token.ids[slot] = token.replayed[slot]
    return token.replayed.shape[0]


CHOOSE: Final[dict[str, Any]] = {
    "top_k": top_k,
    "sample": sample,
    "top_p": top_p,
    "head_sample": head_sample,
    "uniform": uniform,
    "replay": replay,
}
