"""`top_k`: the model's own rule, with another number of experts."""

from __future__ import annotations

from numba import njit

from routing.choice import Token, best
from routing.policy.keys import Parameters
from routing.rule import Ids


def select(token: Token, numbers: Parameters) -> Ids:
    """The k best experts."""
    return token.best(token.logits, int(numbers["top_k"]))


@njit(inline="always", error_model="numpy")
def kernel(token, numbers):  # type: ignore[no-untyped-def]
    """The same, compiled."""
    return best(token, int(numbers[0]))
