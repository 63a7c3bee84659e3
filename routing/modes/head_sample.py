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
from routing.modes.mode import TEMPERATURE, TOP_K, Mode, Numbers, Parameter
from routing.rule import Ids
from routing.spec import RouterSpec


def select(token: Token, numbers: Numbers) -> Ids:
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


def _default_head(spec: RouterSpec, numbers: Numbers) -> float:
    return numbers["top_k"] // 2 + 1


def _default_pool(spec: RouterSpec, numbers: Numbers) -> float:
    return min(4 * numbers["top_k"], spec.num_experts)


MODE = Mode(
    "head_sample",
    "The best experts for sure, the rest drawn from the next ranks.",
    (
        TOP_K,
        Parameter(
            "head", "experts kept for sure", high="top_k", default=_default_head, integer=True
        ),
        Parameter(
            "pool",
            "lowest rank that may be drawn",
            low="top_k",
            high="num_experts",
            default=_default_pool,
            integer=True,
        ),
        TEMPERATURE,
    ),
    select,
    kernel,
)
