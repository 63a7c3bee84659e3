"""`head_sample`: the best experts for sure, the rest of the k drawn from the next ranks.

Source: Expert-Sample, arXiv 2602.02443, with head = floor(k / 2) + 1, pool = 4 k and T = 1.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from routing.choice import (
    CLOSED,
    Token,
    best,
    key_above_all,
    noisy_scores,
    rank,
    take_largest,
)
from routing.policy.keys import Parameters
from routing.rule import Ids


def select(token: Token, numbers: Parameters) -> Ids:
    """The `head` best of the `pool` best, then the best of the others by noisy logits."""
    ranked = token.best(token.logits, int(numbers["pool"]))
    head, tail = np.split(ranked, [int(numbers["head"])])
    noisy = token.best(token.logits + numbers["temperature"] * token.gumbel, token.logits.size)
    drawn = noisy[np.isin(noisy, tail)]
    return np.concatenate([head, drawn])[: int(numbers["top_k"])]


@njit(inline="always", error_model="numpy")
def kernel(token, numbers):  # type: ignore[no-untyped-def]
    """The same, compiled: the head's keys are put above all others, in its order."""
    top_k, head, pool = int(numbers[0]), int(numbers[1]), int(numbers[2])
    found = best(token, pool)
    noisy_scores(token, numbers[3])
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
