"""What should be drawn how often, and how many draws show that it is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

# The probability that right frequencies fail a test, and that wrong ones pass it.
ERROR = 1e-6


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Floats:
    """[E] what a router with these logits draws from."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max())
    return exponentials / exponentials.sum()


def pair_probability(p: Floats, i: int, j: int) -> float:
    """The probability that two draws without replacement are i and j, in either order."""
    return float(p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j])))


def plackett_luce(p: Floats, top_k: int) -> dict[tuple[int, ...], float]:
    """The probability of every sequence of `top_k` draws without replacement."""
    found = {}
    for sequence in itertools.permutations(range(p.size), top_k):
        left, probability = 1.0, 1.0
        for expert in sequence:
            probability *= p[expert] / left
            left -= p[expert]
        found[sequence] = probability
    return found


def inclusion(p: Floats, top_k: int) -> Floats:
    """[E] the probability that each expert is among `top_k` draws without replacement.

    The draws are the first arrivals of E exponential clocks with rates p. An expert that
    arrives at t is among them if fewer than k of the others came before: independent
    indicators, summed, and integrated over ln t by the trapezoid rule. Right to 1e-6.
    """
    log_t = np.arange(math.log(1e-9 / p.max()), math.log(40 / p.min()), 0.1)
    t = np.exp(log_t)
    came = -np.expm1(-p[:, None] * t)
    none_yet = np.eye(1, top_k).repeat(t.size, axis=0)
    few_before = [state.sum(axis=1) for state in _all_but_one(came, none_yet)]
    return np.trapezoid(p[:, None] * t * (1 - came) * few_before, log_t, axis=1)


def _all_but_one(came: Floats, state: Floats) -> list[Floats]:
    """[N] states, each with all but one of came, [N, nodes], added to `state`.

    state: [nodes, k] the probability that j < k have come.
    """
    if len(came) == 1:
        return [state]
    first, second = np.array_split(came, 2)
    return _all_but_one(first, _added(second, state)) + _all_but_one(second, _added(first, state))


def _added(came: Floats, state: Floats) -> Floats:
    for probability in came[:, :, None]:
        one_more = np.pad(state, ((0, 0), (1, 0)))[:, :-1]
        state = state * (1 - probability) + one_more * probability
    return state


def tokens_to_catch(probability: float, num_tests: int = 1) -> int:
    """How many draws show that an event's probability is 1 % less or more than this.

    For `assert_frequencies` of `num_tests` events: what is 1 % off passes with probability
    ERROR at most. By the normal approximation of the binomial distribution.
    """
    bound, far = stats.norm.isf(ERROR / num_tests / 2), stats.norm.isf(ERROR)
    spreads = [math.sqrt(q * (1 - q)) for q in (probability, 0.99 * probability)]
    return math.ceil(((bound * spreads[0] + far * max(spreads)) / (0.01 * probability)) ** 2)


def assert_frequencies(
    counts: npt.NDArray[np.integer], num_draws: int, probabilities: Floats
) -> None:
    """Exact binomial tests of N events; what is right fails with probability ERROR at most.

    counts, probabilities: [N], of events that may overlap.
    """
    below = stats.binom.cdf(counts, num_draws, probabilities)
    above = stats.binom.sf(counts - 1, num_draws, probabilities)
    p_values = 2 * np.minimum(below, above)
    worst = int(np.argmin(p_values))
    assert p_values[worst] * counts.size > ERROR, (
        f"event {worst}: {counts[worst]} of {num_draws}, "
        f"expected {num_draws * probabilities[worst]:.1f}, p = {p_values[worst]:.2g}"
    )


def assert_distribution(
    counts: npt.NDArray[np.integer], num_draws: int, probabilities: Floats
) -> None:
    """Chi-squared over disjoint events that fill the space; rare ones are taken together."""
    assert counts.sum() == num_draws
    often = num_draws * probabilities > 20
    observed = np.append(counts[often], counts[~often].sum())
    expected = num_draws * np.append(probabilities[often], probabilities[~often].sum())
    if expected[-1] < 20:  # too rare even together: given that one of the others happened
        observed, expected = observed[:-1], expected[:-1]
        expected = expected / expected.sum() * observed.sum()
    if observed.size > 1:
        assert stats.chisquare(observed, expected).pvalue > ERROR
