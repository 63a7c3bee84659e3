"""`replay`: the experts that a trace recorded; live weights.

Source: router replay, R3, arXiv 2510.11370: training follows the routes of inference. A
token that the trace does not hold follows the model's own router.
"""

from __future__ import annotations

from numba import njit

from routing.choice import Token
from routing.policy.keys import Parameters
from routing.rule import Ids


def select(token: Token, numbers: Parameters) -> Ids:
    """The recorded experts, in their order, whatever groups they are in."""
    return token.replayed


@njit(inline="always", error_model="numpy")
def kernel(token, numbers):  # type: ignore[no-untyped-def]
    """The same, compiled."""
    for slot in range(token.replayed.shape[0]):
        if token.replayed[slot] < 0:
            return slot
        token.ids[slot] = token.replayed[slot]
    return token.replayed.shape[0]
