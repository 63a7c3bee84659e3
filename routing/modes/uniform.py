"""`uniform`: experts drawn uniformly, whatever the router says.

The control of experiments with sampling, and its limit for high temperatures. Groups and
steering still hold; weights are still the router's.
"""

from __future__ import annotations

from numba import njit

from routing.choice import Token, largest
from routing.noise import gumbel_into
from routing.policy.keys import Parameters
from routing.rule import Ids


def select(token: Token, numbers: Parameters) -> Ids:
    """The k experts of largest noise."""
    return token.largest(token.gumbel, int(numbers["top_k"]))


@njit(inline="always", error_model="numpy")
def kernel(token, numbers):  # type: ignore[no-untyped-def]
    """The same, compiled."""
    gumbel_into(token.work, token.scratch, token.seed, token.layer, token.position)
    return largest(token, int(numbers[0]))
