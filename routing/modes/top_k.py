"""`top_k`: the model's own rule, with another number of experts."""

from __future__ import annotations

from numba import njit

from routing.choice import Token, best
from routing.modes.mode import TOP_K, Mode, Numbers
from routing.rule import Ids


def select(token: Token, numbers: Numbers) -> Ids:
    """The k best experts."""
    return token.best(token.logits, int(numbers["top_k"]))


@njit(inline="always", error_model="numpy")
def kernel(token, numbers):  # type: ignore[no-untyped-def]
    """The same, compiled."""
    return best(token, int(numbers[0]))


MODE = Mode("top_k", "The model's own rule.", (TOP_K,), select, kernel, draws_noise=False)
