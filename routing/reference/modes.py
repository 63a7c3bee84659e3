"""How each mode chooses the experts of one token.

`routing.policy.modes` says what the modes take; here is what they do with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from routing.policy.keys import Parameters
from routing.policy.modes import MODES
from routing.reference.choice import Token
from routing.reference.rule import Ids

TOP_K_MASS: Final = MODES["top_p"].parameters[3].encode("top_k")
# Masses that are equal but for the order in which they were summed count as equal.
ALMOST: Final = 1 - 1e-12


def top_k(token: Token, parameters: Parameters) -> Ids:
    """The k best experts: the model's own rule."""
    return token.best(token.logits, int(parameters["top_k"]))


def sample(token: Token, parameters: Parameters) -> Ids:
    """The k best experts by noisy logits: drawn without replacement from softmax(logits / T).

    Gumbel noise of scale T on the logits, then the model's own rule. For a softmax router
    this draws in order from the Plackett-Luce distribution (Kool et al., ICML 2019, arXiv
    1903.06059); T = 0 is top-k. RoE (arXiv 2509.17238) uses the same noise.
    """
    noisy = token.logits + parameters["temperature"] * token.gumbel
    return token.best(noisy, int(parameters["top_k"]))


def top_p(token: Token, parameters: Parameters) -> Ids:
    """The shortest list of best experts with the mass, from min_experts to max_experts long.

    Source: top-p routing of Huang et al., "Harder tasks need more experts", ACL 2024, arXiv
    2403.07652. On a flat router no small set reaches p of all experts' mass; `mass: top_k`
    counts within the native top-k instead.
    """
    mass = token.masses()
    total = mass.sum()
    if parameters["mass"] == TOP_K_MASS:
        total = mass[token.best(token.logits, token.native_top_k)].sum()
    order = token.best(token.logits, int(parameters["max_experts"]))
    reached = np.cumsum(mass[order]) >= parameters["top_p"] * total * ALMOST
    enough = int(reached.argmax()) + 1 if reached.any() else order.size
    return order[: max(enough, int(parameters["min_experts"]))]


def head_sample(token: Token, parameters: Parameters) -> Ids:
    """The `head` best of the `pool` best, then the best of the others by noisy logits.

    Source: Expert-Sample, arXiv 2602.02443, with head = floor(k / 2) + 1, pool = 4 k and T = 1.
    """
    ranked = token.best(token.logits, int(parameters["pool"]))
    head, tail = np.split(ranked, [int(parameters["head"])])
    noisy = token.best(token.logits + parameters["temperature"] * token.gumbel, token.logits.size)
    drawn = noisy[np.isin(noisy, tail)]
    return np.concatenate([head, drawn])[: int(parameters["top_k"])]


def uniform(token: Token, parameters: Parameters) -> Ids:
    """The k experts of largest noise, whatever the router says.

    The control of experiments with sampling, and its limit for high temperatures. Groups and
    steering still hold; weights are still the router's.
    """
    return token.largest(token.gumbel, int(parameters["top_k"]))


def replay(token: Token, parameters: Parameters) -> Ids:
    """The recorded experts, in their order, whatever groups they are in.

    Source: router replay, R3, arXiv 2510.11370: training follows the routes of inference.
    """
    return token.replayed


CHOOSE: Final[dict[str, Callable[[Token, Parameters], Ids]]] = {
    "top_k": top_k,
    "sample": sample,
    "top_p": top_p,
    "head_sample": head_sample,
    "uniform": uniform,
    "replay": replay,
}
