"""`top_p`: the smallest set of best experts whose mass reaches p.

Source: top-p routing of Huang et al., "Harder tasks need more experts", ACL 2024, arXiv
2403.07652. On a flat router no small set reaches p of all experts' mass; `mass: top_k`
counts within the model's own top-k instead.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from routing.choice import Token, best
from routing.policy.keys import Parameters
from routing.rule import Ids, to_scores

TOP_K_MASS: Final = 1
# Masses that are equal but for the order in which they were summed count as equal.
ALMOST: Final = 1 - 1e-12


def select(token: Token, numbers: Parameters) -> Ids:
    """The shortest list of best experts with the mass, from min_experts to max_experts long."""
    mass = token.masses()
    total = mass.sum()
    if numbers["mass"] == TOP_K_MASS:
        total = mass[token.best(token.logits, token.native_top_k)].sum()
    order = token.best(token.logits, int(numbers["max_experts"]))
    reached = np.cumsum(mass[order]) >= numbers["top_p"] * total * ALMOST
    enough = int(reached.argmax()) + 1 if reached.any() else order.size
    return order[: max(enough, int(numbers["min_experts"]))]


@njit(inline="always", error_model="numpy")
def kernel(token, numbers):  # type: ignore[no-untyped-def]
    """The same, compiled."""
    top_p, max_experts, min_experts = numbers[0], int(numbers[1]), int(numbers[2])
    num_experts = token.logits.shape[0]
    found = best(token, max(max_experts, token.native_top_k))
    mass = token.work
    for e in range(num_experts):
        mass[e] = token.logits[e]
    to_scores(mass, num_experts, token.rule)
    total = 0.0
    if numbers[3] == TOP_K_MASS:
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
