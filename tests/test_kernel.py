"""The compiled kernel, through the state the engine fills: exact, and equal to the reference."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from routing.reference import select_experts
from routing.rule import RouterRule
from routing.state import RoutedRequest
from tests.kernels import run, spec_of, state_of, step, stock_choice

PLAIN = RouterRule(renormalize=False)


def choice(
    logits: npt.NDArray[np.float32], position: int, *, layer: int = 0, **numbers: float
) -> list[int]:
    """Experts that the reference samples for one token of seed 5."""
    numbers = {"top_k": 4, "temperature": 1.0, **numbers}
    _, ids = select_experts(
        logits,
        "sample",
        numbers,
        rule=RouterRule(),
        native_top_k=4,
        seed=5,
        layer=layer,
        position=position,
    )
    return ids.tolist()


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 10.0])
@pytest.mark.parametrize(
    ("num_experts", "top_k"), [(2, 1), (7, 3), (16, 16), (64, 8), (128, 8), (512, 10)]
)
def test_kernel_equals_reference(
    num_experts: int, top_k: int, temperature: float, renormalize: bool
) -> None:
    rng = np.random.default_rng(num_experts)
    logits = rng.normal(0, 2, (50, num_experts)).astype(np.float32)
    logits[10:20] = rng.integers(0, 3, (10, num_experts))  # ties
    spec = spec_of(num_experts, 1, num_experts)
    routing = {"mode": "sample", "top_k": top_k, "temperature": temperature, "seed": 2**62 + 9}
    rule = RouterRule(renormalize=renormalize)
    weights, ids = run(step(spec, routing, len(logits), rule), logits, layer_row=1)
    for position, row in enumerate(logits):
        expected_weights, expected_ids = select_experts(
            row,
            "sample",
            {"top_k": top_k, "temperature": temperature},
            rule=rule,
            native_top_k=1,
            seed=2**62 + 9,
            layer=3,
            position=position,
        )
        assert ids[position, :top_k].tolist() == expected_ids.tolist()
        # The kernel writes float32.
        np.testing.assert_allclose(weights[position, :top_k], expected_weights, rtol=2e-7)


def test_equal_logits_keep_lower_id() -> None:
    state = step(spec_of(8, 4), {"mode": "sample", "temperature": 0, "seed": 1}, 1)
    _, ids = run(state, np.array([[1, 2, 2, 0, 2, 1, 1, 0]], np.float32))
    assert ids.tolist() == [[1, 2, 4, 0]]


def test_founding_example() -> None:
    """Logits 2 and 1: experts chosen with probability 0.731 and 0.269.

    Chi-squared over N = 400,000 tokens; a right kernel fails with probability 1e-6, one
    that is off by 1 % (0.724, 10.4 standard deviations) passes with probability 2e-8.
    """
    num_tokens = 400_000
    state = step(spec_of(2, 1), {"mode": "sample", "temperature": 1.0, "seed": 7}, num_tokens)
    _, ids = run(state, np.tile(np.array([[2, 1]], np.float32), (num_tokens, 1)))
    observed = np.bincount(ids[:, 0], minlength=2)
    assert observed.tolist() == state.assignments[0].tolist()
    probabilities = np.array([0.7310586, 0.2689414])
    assert stats.chisquare(observed, num_tokens * probabilities).pvalue > 1e-6


@pytest.mark.parametrize("shape", ["peaked", "flat", "tied"])
@pytest.mark.parametrize(
    ("num_experts", "temperature"),
    [(3, 0.3), (3, 1.0), (64, 0.3), (64, 1.0), (64, 10.0), (512, 1.0)],
)
def test_first_choice_follows_softmax(num_experts: int, shape: str, temperature: float) -> None:
    """N = 1,000,000 tokens, and the best experts of half the mass: a right kernel is 5 standard
    deviations off with probability 6e-7, one whose probability is 1 % off is 10 away and
    passes with probability 3e-7. Chi-squared over all experts looks for the rest.
    """
    rng = np.random.default_rng(num_experts)
    logits = {
        "peaked": rng.normal(0, 3, num_experts),
        "flat": rng.normal(0, 0.1, num_experts),
        "tied": rng.integers(0, 2, num_experts),
    }[shape].astype(np.float32)
    chunk, chunks = 20_000, 50
    spec = spec_of(num_experts, 1)
    routing = {"mode": "sample", "temperature": temperature, "seed": 5, "scope": "all"}
    request = RoutedRequest.of(routing, 0, spec)
    state = state_of(spec, chunk, 1, RouterRule())
    rows = np.tile(logits, (chunk, 1))
    for i in range(chunks):
        state.begin_step([request], np.array([chunk]), np.array([i * chunk]))
        run(state, rows)
    total, counts = chunk * chunks, state.assignments[0]
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()

    order = np.argsort(-p)
    half = order[: np.searchsorted(np.cumsum(p[order]), 0.5) + 1]
    mass = p[half].sum()
    deviations = (counts[half].sum() - total * mass) / math.sqrt(total * mass * (1 - mass))
    assert abs(deviations) < 5
    often = total * p > 20
    if often.sum() > 1:
        observed, expected = counts[often], p[often] / p[often].sum() * counts[often].sum()
        assert stats.chisquare(observed, expected).pvalue > 1e-6


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_ordered_pairs_are_plackett_luce(temperature: float) -> None:
    """All 30 ordered pairs of 6 experts against p_i * p_j / (1 - p_i); N = 200,000."""
    num_tokens = 200_000
    logits = np.array([2.0, 1.0, 0.5, 0.0, 0.0, -1.0], np.float32)
    routing = {"mode": "sample", "temperature": temperature, "seed": 3}
    _, ids = run(step(spec_of(6, 2), routing, num_tokens), np.tile(logits, (num_tokens, 1)))
    p = np.exp(logits / temperature, dtype=np.float64)
    p /= p.sum()
    pairs = list(itertools.permutations(range(6), 2))
    expected = [num_tokens * p[i] * p[j] / (1 - p[i]) for i, j in pairs]
    counts = np.bincount(ids[:, 0] * 6 + ids[:, 1], minlength=36)
    observed = [counts[i * 6 + j] for i, j in pairs]
    assert sum(observed) == num_tokens  # never the same expert twice
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def test_overlap_with_top_k_falls_with_temperature() -> None:
    num_tokens = 2_000
    logits = np.random.default_rng(0).normal(0, 1, (num_tokens, 64)).astype(np.float32)
    overlaps = []
    for temperature in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0):
        routing = {"mode": "sample", "temperature": temperature, "seed": 1}
        _, ids = run(step(spec_of(64, 8), routing, num_tokens), logits)
        if temperature == 0:
            clean = ids
        overlaps.append(np.mean([len(set(a) & set(b)) for a, b in zip(ids, clean, strict=True)]))
    assert overlaps[0] == 8
    assert all(a > b for a, b in itertools.pairwise(overlaps))


def test_weights_carry_no_noise() -> None:
    num_tokens = 200
    logits = np.random.default_rng(1).normal(0, 1, (num_tokens, 16)).astype(np.float32)
    routing = {"mode": "sample", "temperature": 2.0, "seed": 1}
    weights, ids = run(step(spec_of(16, 4), routing, num_tokens, PLAIN), logits)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, np.take_along_axis(softmax, ids, axis=1), rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e4, -1e4, 3.4e38])
@pytest.mark.parametrize("renormalize", [True, False])
def test_extreme_logits_never_leave_the_range(bad: float, renormalize: bool) -> None:
    logits = np.zeros((64, 16), np.float32)
    logits[:, 5] = bad
    logits[32:] = bad
    routing = {"mode": "sample", "temperature": 1.0, "seed": 1}
    rule = RouterRule(renormalize=renormalize)
    weights, ids = run(step(spec_of(16, 4), routing, 64, rule), logits)
    assert all(len(set(row)) == 4 for row in ids.tolist())
    assert ids.min() >= 0
    assert ids.max() < 16
    assert np.isfinite(weights).all()
    assert (weights.sum(axis=1) <= 1 + 1e-6).all()


def test_unused_slots_repeat_the_best_expert_with_weight_zero() -> None:
    logits = np.random.default_rng(2).normal(0, 1, (10, 16)).astype(np.float32)
    state = step(spec_of(16, 4, 8), {"mode": "top_k", "top_k": 3}, 10)
    weights, ids = run(state, logits)
    assert (ids[:, 3:] == ids[:, :1]).all()
    assert (weights[:, 3:] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    assert state.assignments[0].sum() == 10 * 3


def test_rows_without_a_policy_are_stocks_own_bits_beside_sampled_ones() -> None:
    spec = spec_of(16, 4, 8)
    state = state_of(spec, 64, 3, RouterRule())
    sampled = RoutedRequest.of({"mode": "sample", "seed": 5}, 4, spec)
    stock = RoutedRequest.of(None, 9, spec)
    # Prefill of 3 of 9 tokens; 2 prompt and 3 generated tokens; one generated token.
    state.begin_step([stock, sampled, stock], np.array([3, 5, 1]), np.array([0, 2, 11]))
    logits = np.random.default_rng(3).normal(0, 1, (12, 16)).astype(np.float32)
    weights, ids = run(state, logits)
    stock_weights, stock_ids = stock_choice(logits, 4)
    for token in (0, 1, 2, 3, 4, 8, 9, 10, 11):  # the last three are padding
        assert ids[token, :4].tolist() == stock_ids[token].tolist()
        assert weights[token, :4].tolist() == stock_weights[token].tolist()
    for token, position in ((5, 4), (6, 5), (7, 6)):
        assert ids[token, :4].tolist() == choice(logits[token], position)
    assert state.assignments[0].sum() == 9 * 4
    assert state.assignments[1].sum() == 0


def test_nothing_is_counted_or_steered_outside_a_step() -> None:
    state = step(spec_of(16, 4), {"mode": "sample", "temperature": 5.0, "seed": 1}, 8)
    state.end_step()
    logits = np.random.default_rng(4).normal(0, 1, (8, 16)).astype(np.float32)
    _, ids = run(state, logits)
    assert ids.tolist() == stock_choice(logits, 4)[1].tolist()
    assert state.assignments.sum() == 0


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 7], [3, 3, 3, 3]])
def test_noise_does_not_depend_on_chunks(chunks: list[int]) -> None:
    spec = spec_of(16, 4)
    request = RoutedRequest.of({"mode": "sample", "seed": 5, "scope": "all"}, 12, spec)
    neighbour = RoutedRequest.of({"mode": "sample", "seed": 6, "scope": "all"}, 12, spec)
    state = state_of(spec, 64, 2, RouterRule())
    logits = np.random.default_rng(5).normal(0, 1, (12, 16)).astype(np.float32)
    done, chosen = 0, []
    for count in chunks:
        state.begin_step([neighbour, request], np.array([2, count]), np.array([4, done]))
        rows = np.concatenate([logits[:2], logits[done : done + count]])
        chosen += run(state, rows)[1][2:].tolist()
        done += count
    assert chosen == [choice(row, position) for position, row in enumerate(logits)]


def test_a_new_request_in_a_row_brings_its_own_policy() -> None:
    spec = spec_of(16, 4, 8)
    state = state_of(spec, 8, 1, RouterRule())
    counts = []
    for routing in ({"top_k": 8}, None, {"top_k": 1}, {"mode": "sample", "seed": 1, "top_k": 2}):
        request = RoutedRequest.of(routing, 0, spec)
        before = state.assignments[0].sum()
        state.begin_step([request], np.array([1]), np.array([0]))
        run(state, np.zeros((1, 16), np.float32))
        counts.append(int(state.assignments[0].sum() - before))
    assert counts == [8, 4, 1, 2]
    assert state.routed_tokens.tolist()[:2] == [[0, 3], [0, 1]]
