"""The compiled kernel draws from the distribution it says, and nothing else.

N is chosen so that a 1 % error of a probability is caught: `frequencies.tokens_to_catch`. A
right kernel fails a statistical test with probability 1e-6 (5e-7 beyond 5 standard deviations).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from routing.policy import modes
from routing.reference.rule import RouterRule, clamp, model_weights
from tests.shared.frequencies import (
    assert_distribution,
    assert_frequencies,
    inclusion,
    pair_probability,
    plackett_luce,
    softmax,
    tokens_to_catch,
)
from tests.shared.kernels import (
    RULES,
    SHAPES,
    Floats,
    Ints,
    draws,
    logits_of,
    rule_of,
    run,
    spec_of,
    step,
)

MODES = tuple(name for name, mode in modes.MODES.items() if not mode.takes_trace)
NOISY = tuple(name for name, mode in modes.MODES.items() if mode.draws_noise)
SIZES = [(2, 1), (2, 2), (8, 3), (16, 16), (64, 8), (512, 1), (512, 16)]


def sample(top_k: int, temperature: float = 1.0, seed: int = 5) -> dict[str, Any]:
    return {"mode": "sample", "top_k": top_k, "temperature": temperature, "seed": seed}


def policy(mode: str, top_k: int, temperature: float = 1.0) -> dict[str, Any]:
    """A request for up to `top_k` experts."""
    own: dict[str, Any] = {
        "top_k": {"top_k": top_k},
        "sample": {"top_k": top_k, "temperature": temperature},
        "top_p": {"max_experts": top_k, "top_p": 0.7},
        "head_sample": {"top_k": top_k, "head": top_k // 2, "temperature": temperature},
        "uniform": {"top_k": top_k},
    }
    return {"mode": mode, **own[mode], "seed": 5}


def normal_logits(num_tokens: int, num_experts: int) -> Floats:
    return np.random.default_rng(7).normal(0, 2, (num_tokens, num_experts)).astype(np.float32)


def routed(
    logits: Floats, routing: dict[str, Any], rule: RouterRule | None = None
) -> tuple[Floats, Ints]:
    """Weights and experts of one token per row of logits."""
    top_k = routing.get("top_k") or routing["max_experts"]
    return run(step(spec_of(logits.shape[1], top_k), routing, len(logits), rule), logits)


def included(ids: Ints, num_experts: int) -> npt.NDArray[np.int64]:
    """[E] how many tokens got each expert."""
    return np.bincount(ids.ravel(), minlength=num_experts)


# First choices.


def assert_first_choices(ids: Ints, p: npt.NDArray[np.float64]) -> None:
    """Each expert, the best j experts for every j, and all of them by chi-squared."""
    counts, order = included(ids[:, 0], p.size), np.argsort(-p, kind="stable")[:-1]
    assert_distribution(counts, len(ids), p)
    assert_frequencies(
        np.concatenate([counts, np.cumsum(counts[order])]),
        len(ids),
        np.concatenate([p, np.cumsum(p[order])]),
    )


def test_founding_example() -> None:
    """Logits 2 and 1: experts drawn with probability 0.731 and 0.269.

    N = 2,800,000: 1 % of 0.269, and so of either, passes with probability 1e-6.
    """
    p = np.array([0.7310585786, 0.2689414214])
    num_tokens = tokens_to_catch(p[1], num_tests=3)
    assert_first_choices(draws(np.array([2, 1], np.float32), sample(1), num_tokens), p)


@pytest.mark.parametrize("off", [0.99, 1.01])
def test_one_percent_off_would_be_caught(off: float) -> None:
    """The power of these tests, seen: logits of a probability 1 % off fail."""
    p = np.array([0.6, 0.4])
    wrong = np.log([1 - off * 0.4, off * 0.4]).astype(np.float32)
    ids = draws(wrong, sample(1), tokens_to_catch(0.4, num_tests=3))
    with pytest.raises(AssertionError, match="expected"):
        assert_frequencies(included(ids, 2), len(ids), p)
    with pytest.raises(AssertionError):
        assert_distribution(included(ids, 2), len(ids), p)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("num_experts", "temperature", "caught"),
    [
        (4, 1.0, 0.25),
        (8, 0.3, 0.5),
        (8, 10.0, 0.5),
        (64, 0.3, 0.5),
        (64, 1.0, 0.5),
        (512, 1.0, 0.5),
    ],
)
def test_first_choice_follows_softmax(
    num_experts: int, temperature: float, caught: float, shape: str
) -> None:
    """N such that a 1 % error of a probability of `caught` or more, of one expert or of the
    best j together for any j, passes with probability 1e-6: 3,300,000 tokens for 4 experts,
    530,000 to 600,000 for more.
    """
    logits = logits_of(shape, num_experts)
    num_tokens = tokens_to_catch(caught, num_tests=2 * num_experts - 1)
    ids = draws(logits, sample(1, temperature), num_tokens)
    assert_first_choices(ids, softmax(logits, temperature))


# Further choices.


def test_pairs_without_order() -> None:
    """Three pairs of 54, 31 and 15 %. N = 2,200,000: 1 % of the second is caught."""
    logits = np.array([1.0, 0.5, 0.0], np.float32)
    p = softmax(logits)
    pairs = list(itertools.combinations(range(3), 2))
    expected = np.array([pair_probability(p, i, j) for i, j in pairs])
    num_tokens = tokens_to_catch(0.3, num_tests=3)
    drawn = np.sort(draws(logits, sample(2), num_tokens), axis=1)
    counts = np.array([(drawn == pair).all(axis=1).sum() for pair in pairs])
    assert_distribution(counts, num_tokens, expected)
    assert_frequencies(counts, num_tokens, expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("num_experts", "top_k"), [(6, 2), (5, 3), (4, 4)])
def test_sequences_are_plackett_luce(num_experts: int, top_k: int, temperature: float) -> None:
    """Chi-squared over all 24 to 60 ordered choices; N = 200,000."""
    logits = np.array([2.0, 1.0, 0.5, 0.0, 0.0, -1.0], np.float32)[:num_experts]
    expected = plackett_luce(softmax(logits, temperature), top_k)
    ids = draws(logits, sample(top_k, temperature), 200_000)
    places = num_experts ** np.arange(top_k)
    counts = np.bincount(ids @ places, minlength=num_experts**top_k)
    observed = counts[np.array(list(expected)) @ places]
    assert_distribution(observed, len(ids), np.array(list(expected.values())))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("num_experts", "top_k", "temperature", "num_tokens"),
    [(5, 3, 1.0, 1_100_000), (64, 8, 0.5, 200_000), (512, 16, 1.0, 130_000)],
)
def test_inclusion_probabilities(
    num_experts: int, top_k: int, temperature: float, num_tokens: int, shape: str
) -> None:
    """Each expert's, and how many of a token's experts are among the likelier half.

    Of 5 experts, 1 % of a probability of half or more is caught; of 64 and 512, 1 % of the
    mean number (z beyond 5 where it is right, at least 10 standard deviations away where not).
    """
    logits = logits_of(shape, num_experts)
    likeliest = np.argsort(-logits, kind="stable")
    exact = inclusion(softmax(logits, temperature), top_k)
    ids = draws(logits, sample(top_k, temperature), num_tokens)
    counts = included(ids, num_experts)
    assert counts.sum() == top_k * num_tokens
    assert_frequencies(counts, num_tokens, exact)

    half = likeliest[: num_experts // 2]
    expected = exact[half].sum()
    among = np.isin(ids, half).sum(axis=1)
    deviation = among.std() / math.sqrt(num_tokens)
    assert abs(among.mean() - expected) < 5 * deviation
    assert num_experts < 64 or 0.01 * expected > 10 * deviation


def test_exact_inclusion_probabilities_are_those_of_all_sequences() -> None:
    p = softmax(logits_of("peaked", 6))
    listed = np.zeros(6)
    for sequence, probability in plackett_luce(p, 3).items():
        listed[list(sequence)] += probability
    np.testing.assert_allclose(inclusion(p, 3), listed, atol=1e-6)
    assert abs(listed.sum() - 3) < 1e-9


def test_uniform_includes_every_expert_alike() -> None:
    """N = 1,100,000: 1 % of 8 / 16 is caught; then chances of 16 / 512 in 130,000 tokens."""
    for num_experts, top_k, num_tokens in (
        (16, 8, tokens_to_catch(1 / 2, num_tests=16)),
        (512, 16, 130_000),
    ):
        ids = draws(logits_of("peaked", num_experts), policy("uniform", top_k), num_tokens)
        chance = np.full(num_experts, top_k / num_experts)
        assert_frequencies(included(ids, num_experts), num_tokens, chance)


def test_temperature_10_on_flat_logits_is_nearly_uniform() -> None:
    """N = 1,100,000: 1 % of the exact probabilities, all within 2 % of 8 / 16, is caught."""
    logits = logits_of("flat", 16)
    exact = inclusion(softmax(logits, 10.0), 8)
    np.testing.assert_allclose(exact, 8 / 16, rtol=0.02)
    ids = draws(logits, sample(8, 10.0), tokens_to_catch(1 / 2, num_tests=16))
    assert_frequencies(included(ids, 16), len(ids), exact)


def test_head_sample_draws_the_rest_from_the_pool() -> None:
    """The best for sure, then two of ranks 2 to 4. N = 900,000: 1 % of the likeliest pair,
    of 54 %, is caught.
    """
    logits = np.array([-3.0, 1.0, 5.0, 0.0, -0.5, 0.5], np.float32)
    tail = np.array([1, 5, 3])
    p = softmax(logits[tail])
    pairs = list(itertools.combinations(range(3), 2))
    num_tokens = tokens_to_catch(0.53, num_tests=3)
    routing = {"mode": "head_sample", "top_k": 3, "head": 1, "pool": 4, "seed": 5}
    ids = draws(logits, routing, num_tokens)
    assert (ids[:, 0] == 2).all()
    drawn = np.sort(ids[:, 1:], axis=1)
    counts = np.array([(drawn == np.sort(tail[list(pair)])).all(axis=1).sum() for pair in pairs])
    expected = np.array([pair_probability(p, i, j) for i, j in pairs])
    assert_distribution(counts, num_tokens, expected)
    assert_frequencies(counts, num_tokens, expected)


@pytest.mark.parametrize("axis", ["seed", "layer", "position"])
def test_neighbors_choose_independently(axis: str) -> None:
    """Correlation of two neighbors' first choice being expert 0 of 4: N = 500,000 pairs."""
    logits, num_tokens = np.zeros(4, np.float32), 500_000
    here = draws(logits, sample(1), num_tokens)[:, 0] == 0
    if axis == "position":
        there = np.roll(here, 1)
    else:
        seed, layer_index = (6, 0) if axis == "seed" else (5, 1)
        there = draws(logits, sample(1, seed=seed), num_tokens, layer_index=layer_index)[:, 0] == 0
    assert abs(np.corrcoef(here, there)[0, 1]) < 4 / math.sqrt(num_tokens)


# What temperature does.


def test_overlap_with_top_k_falls_with_temperature() -> None:
    logits = normal_logits(2_000, 64) / np.float32(2)
    clean = routed(logits, policy("top_k", 8))[1]
    overlaps = [
        np.mean([len(set(a) & set(b)) for a, b in zip(ids, clean, strict=True)])
        for ids in (routed(logits, sample(8, t))[1] for t in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0))
    ]
    assert overlaps[0] == 8
    assert all(a > b for a, b in itertools.pairwise(overlaps))


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-9, 1e-3])
@pytest.mark.parametrize("rule", ["softmax", "softmax, renormalized", "softmax, groups"])
@pytest.mark.parametrize(("num_experts", "top_k"), SIZES)
def test_no_temperature_and_a_tiny_one_are_top_k(
    num_experts: int, top_k: int, rule: str, temperature: float
) -> None:
    """Logits 0.021 apart: two experts' noise never differs by 21, as a word has 24 bits."""
    rng = np.random.default_rng(1)
    rows = rng.permuted(np.tile(0.021 * np.arange(num_experts), (100, 1)), axis=1)
    logits, router = rows.astype(np.float32), rule_of(rule, num_experts)
    weights, ids = routed(logits, sample(top_k, temperature), router)
    clean_weights, clean_ids = routed(logits, policy("top_k", top_k), router)
    assert ids.tolist() == clean_ids.tolist()
    assert weights.tolist() == clean_weights.tolist()


# What holds for every token.


@pytest.mark.parametrize("mode", ["top_k", *NOISY])
@pytest.mark.parametrize(("num_experts", "top_k"), SIZES)
def test_k_experts_are_k_different_ones(num_experts: int, top_k: int, mode: str) -> None:
    logits = np.concatenate([normal_logits(300, num_experts), np.zeros((300, num_experts))])
    _, ids = routed(logits.astype(np.float32), policy(mode, top_k))
    assert all(len(set(row)) == top_k for row in ids.tolist())
    assert ids.min() >= 0
    assert ids.max() < num_experts


@pytest.mark.parametrize("mode", ["top_k", "sample", "uniform"])
def test_fewer_experts_are_the_first_of_more(mode: str) -> None:
    logits = normal_logits(200, 64)
    _, most = routed(logits, policy(mode, 16))
    for top_k in range(1, 16):
        _, ids = routed(logits, policy(mode, top_k))
        assert ids.tolist() == most[:, :top_k].tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", RULES)
def test_weights_carry_no_noise(rule: str, mode: str) -> None:
    """They are the model's own weights of the chosen experts' clean logits."""
    logits, router = normal_logits(300, 64), rule_of(rule, 64)
    weights, ids = routed(logits, policy(mode, 6, temperature=2.0), router)
    for row, chosen, given in zip(logits, ids, weights, strict=True):
        used = len(set(chosen.tolist()))
        own = model_weights(router, clamp(row), chosen[:used].astype(np.int64))
        np.testing.assert_allclose(given[:used], own, rtol=1e-5, atol=1e-37)
        assert (given[used:] == 0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", [rule for rule in RULES if "bias" in rule])
def test_a_constant_added_to_the_correction_bias_changes_nothing(rule: str, mode: str) -> None:
    logits, router = normal_logits(1_000, 64), rule_of(rule, 64)
    assert router.correction_bias is not None
    raised = RouterRule(
        router.scoring,
        router.renormalize,
        router.scaling_factor,
        router.num_groups,
        router.topk_groups,
        tuple(bias + 0.5 for bias in router.correction_bias),
    )
    weights, ids = routed(logits, policy(mode, 6), router)
    weights_raised, ids_raised = routed(logits, policy(mode, 6), raised)
    assert ids.tolist() == ids_raised.tolist()
    assert weights.tolist() == weights_raised.tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", [rule for rule in RULES if "groups" in rule])
def test_experts_never_leave_the_clean_groups(rule: str, mode: str) -> None:
    """Two of four groups: by their best score, with a correction bias by their two best."""
    logits, router = normal_logits(1_000, 64), rule_of(rule, 64)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64))) if "sigmoid" in rule else logits
    counted = 1
    if router.correction_bias is not None:
        scores, counted = scores + np.array(router.correction_bias), 2
    best = np.sort(scores.reshape(-1, 4, 16), axis=2)[:, :, -counted:].sum(axis=2)
    open_groups = np.argsort(-best, axis=1)[:, :2]
    _, ids = routed(logits, policy(mode, 16, temperature=10.0), router)
    assert (ids[:, :, None] // 16 == open_groups[:, None]).any(axis=2).all()


HOSTILE = np.array([0.0, -0.0, 1e-30, 1e4, -1e4, 3.4e38, math.inf, -math.inf, math.nan], np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("num_experts", "top_k"), [(2, 1), (16, 16), (64, 8), (512, 16)])
def test_hostile_logits_never_break_a_choice(
    num_experts: int, top_k: int, rule: str, mode: str
) -> None:
    """No expert out of range, none twice but as filler, no weight that is not a number."""
    rng = np.random.default_rng(2)
    logits = np.concatenate(
        [
            rng.choice(HOSTILE, (60, num_experts)),
            np.repeat(HOSTILE[:, None], num_experts, axis=1),  # all the same
            np.where(np.arange(num_experts) == 1, HOSTILE[:, None], np.float32(0)),  # one of them
        ]
    )
    router = rule_of(rule, num_experts)
    weights, ids = routed(logits, policy(mode, top_k, temperature=10.0), router)
    assert ids.min() >= 0
    assert ids.max() < num_experts
    repeated = (ids[:, :, None] == ids[:, None]) & np.tri(top_k, k=-1, dtype=bool)
    filler = repeated.any(axis=2)
    assert (weights[filler] == 0).all()
    assert (ids == ids[:, :1])[filler].all()
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
