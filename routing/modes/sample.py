"""`sample`: experts drawn without replacement from softmax(logits / T).

Gumbel noise of scale T on the logits, then the model's own rule. For a softmax router
this draws in order from the Plackett-Luce distribution (Kool et al., ICML 2019, arXiv
1903.06059); T = 0 is top-k. RoE (arXiv 2509.17238) uses the same noise.
"""

from __future__ import annotations

from numba import njit

from routing.choice import Token, best, largest, noisy_scores
from routing.policy.keys import Parameters
from routing.rule import Ids


def select(token: Token, numbers: Parameters) -> Ids:
    """The k best experts by noisy logits."""
    return token.best(token.logits + numbers["temperature"] * token.gumbel, int(numbers["top_k"]))


@njit(inline="always", error_model="numpy")
def kernel(token, numbers):  # type: ignore[no-untyped-def]
    """The same, compiled."""
    if numbers[1] == 0:
        return best(token, int(numbers[0]))
    noisy_scores(token, numbers[1])
    return largest(token, int(numbers[0]))
