"""The compiled kernel, through the state the engine fills: exact, and equal to the reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from routing.reference.route import select_experts
from routing.reference.rule import RouterRule
from tests.shared.kernels import request_of, run, spec_of, state_of, step, stock_choice


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
    sampled = request_of({"mode": "sample", "seed": 5}, 4, spec)
    stock = request_of(None, 9, spec)
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
    request = request_of({"mode": "sample", "seed": 5, "scope": "all"}, 12, spec)
    neighbour = request_of({"mode": "sample", "seed": 6, "scope": "all"}, 12, spec)
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
        request = request_of(routing, 0, spec)
        before = state.assignments[0].sum()
        state.begin_step([request], np.array([1]), np.array([0]))
        run(state, np.zeros((1, 16), np.float32))
        counts.append(int(state.assignments[0].sum() - before))
    assert counts == [8, 4, 1, 2]
    assert state.routed_tokens.tolist()[:2] == [[0, 3], [0, 1]]
