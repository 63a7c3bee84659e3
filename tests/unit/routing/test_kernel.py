"""A backend's kernel, in steps as the engine begins them: exact, and equal to the reference.

`test_triton_kernel.py` runs this file again with the GPU's backend.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from routing.backend import begin_batch
from routing.policy.modes import MODES
from routing.reference.route import route_token, select_experts
from routing.reference.rule import RouterRule, clamp, entropy, measures
from routing.spec import RouterSpec
from routing.state import RoutedRequest
from tests.shared.kernels import (
    BACKEND,
    DEVICE,
    IS_INTERPRETED,
    Floats,
    assignments,
    backend_of,
    native_choice,
    request_of,
    run,
    spec_of,
    step,
)
from tests.shared.traces import random_trace

NOT_FINITE = [float("inf"), float("-inf"), float("nan")]
SPECIALS = [0.0, -0.0, 1.0, 1e-30, 1e4, -40.0, -50.0, -1e4, 3e38, *NOT_FINITE]
# Where GPU and CPU round exp or ln differently in the last bit of a float64, a float32 key
# can move by one step: about one in 2^29.
MOST_ADJACENT = 2


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


@pytest.mark.skipif(IS_INTERPRETED, reason="takes ten minutes")
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
    weights, ids = run(step(spec, routing, len(logits), rule), logits, layer_index=1)
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
    backend = step(spec_of(8, 4), {"mode": "sample", "temperature": 0, "seed": 1}, 1)
    _, ids = run(backend, np.array([[1, 2, 2, 0, 2, 1, 1, 0]], np.float32))
    assert ids.tolist() == [[1, 2, 4, 0]]


def test_unused_slots_repeat_the_best_expert_with_weight_zero() -> None:
    logits = np.random.default_rng(2).normal(0, 1, (10, 16)).astype(np.float32)
    backend = step(spec_of(16, 4, 8), {"mode": "top_k", "top_k": 3}, 10)
    weights, ids = run(backend, logits)
    assert (ids[:, 3:] == ids[:, :1]).all()
    assert (weights[:, 3:] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    assert assignments(backend)[0].sum() == 10 * 3


def test_columns_that_no_request_needs_are_left_out() -> None:
    """Only the width differs, and rows of padding have as many of theirs as there are."""
    spec = spec_of(16, 4, 8)
    logits = hostile_logits(6, 16, seed=1)
    native_ids = native_choice(logits, 4)[1]
    for policy in POLICIES:
        for scope, num_prompt_tokens in (("all", 0), ("decode", 2)):
            backend = backend_of(spec, 6, 1, RouterRule())
            request = request_of({**policy, "scope": scope}, num_prompt_tokens, spec)
            begin_batch(backend, [request], np.array([4]), np.array([0]))
            num_columns = int(backend.state.slot_columns[0])
            wide, narrow = run(backend, logits), run(backend, logits, num_columns=num_columns)
            for every, first in zip(wide, narrow, strict=True):
                assert first.shape == (6, num_columns)
                assert first[:4].tolist() == every[:4, :num_columns].tolist()
            assert not wide[0][:4, num_columns:].any()
            assert narrow[1][4:, :4].tolist() == native_ids[4:, :num_columns].tolist()
    one = request_of({"mode": "top_k", "top_k": 1, "scope": "all"}, 9, spec)
    assert [one.num_columns(spec), request_of(None, 9, spec).num_columns(spec)] == [1, 4]


def test_rows_without_a_policy_are_stocks_own_bits_beside_sampled_ones() -> None:
    spec = spec_of(16, 4, 8)
    backend = backend_of(spec, 64, 3, RouterRule())
    sampled = request_of({"mode": "sample", "seed": 5}, 4, spec)
    stock = request_of(None, 9, spec)
    # Prefill of 3 of 9 tokens; 2 prompt and 3 generated tokens; one generated token.
    begin_batch(backend, [stock, sampled, stock], np.array([3, 5, 1]), np.array([0, 2, 11]))
    logits = np.random.default_rng(3).normal(0, 1, (12, 16)).astype(np.float32)
    weights, ids = run(backend, logits)
    stock_weights, stock_ids = native_choice(logits, 4)
    for token in (0, 1, 2, 3, 4, 8, 9, 10, 11):  # the last three are padding
        assert ids[token, :4].tolist() == stock_ids[token].tolist()
        assert weights[token, :4].tolist() == stock_weights[token].tolist()
    for token, position in ((5, 4), (6, 5), (7, 6)):
        assert ids[token, :4].tolist() == choice(logits[token], position)
    assert (ids[:, 4:] == ids[:, :1]).all()
    assert (weights[:, 4:] == 0).all()
    counts = np.bincount(ids[:9, :4].reshape(-1), minlength=16)
    assert assignments(backend).tolist() == [counts.tolist(), [0] * 16]


def test_nothing_is_counted_or_steered_outside_a_step() -> None:
    backend = step(spec_of(16, 4), {"mode": "sample", "temperature": 5.0, "seed": 1}, 8)
    backend.end_step()
    logits = np.random.default_rng(4).normal(0, 1, (8, 16)).astype(np.float32)
    _, ids = run(backend, logits)
    assert ids.tolist() == native_choice(logits, 4)[1].tolist()
    assert assignments(backend).sum() == 0


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 7], [3, 3, 3, 3]])
def test_noise_does_not_depend_on_chunks(chunks: list[int]) -> None:
    spec = spec_of(16, 4)
    request = request_of({"mode": "sample", "seed": 5, "scope": "all"}, 12, spec)
    neighbor = request_of({"mode": "sample", "seed": 6, "scope": "all"}, 12, spec)
    backend = backend_of(spec, 64, 2, RouterRule())
    logits = np.random.default_rng(5).normal(0, 1, (12, 16)).astype(np.float32)
    done, chosen = 0, []
    for count in chunks:
        begin_batch(backend, [neighbor, request], np.array([2, count]), np.array([4, done]))
        rows = np.concatenate([logits[:2], logits[done : done + count]])
        chosen += run(backend, rows)[1][2:].tolist()
        done += count
    assert chosen == [choice(row, position) for position, row in enumerate(logits)]


def test_a_new_request_in_a_row_brings_its_own_policy() -> None:
    spec = spec_of(16, 4, 8)
    backend = backend_of(spec, 8, 1, RouterRule())
    counts = []
    for routing in ({"top_k": 8}, None, {"top_k": 1}, {"mode": "sample", "seed": 1, "top_k": 2}):
        request = request_of(routing, 0, spec)
        before = assignments(backend)[0].sum()
        begin_batch(backend, [request], np.array([1]), np.array([0]))
        run(backend, np.zeros((1, 16), np.float32))
        counts.append(int(assignments(backend)[0].sum() - before))
    assert counts == [8, 4, 1, 2]
    assert backend.counts().routed_tokens.tolist()[:2] == [[0, 3, 0], [0, 1, 0]]


def hostile_logits(num_tokens: int, num_experts: int, seed: int) -> Floats:
    """[T, E]; in every four rows: narrow, wide, full of ties, full of NaN and infinities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (num_tokens, num_experts))
    logits[1::4] *= 8
    logits[2::4] = rng.integers(-1, 2, logits[2::4].shape)
    logits[3::4] = rng.choice(SPECIALS, logits[3::4].shape)
    return logits.astype(np.float32)


RULES = {
    "softmax": RouterRule(renormalize=True),
    "softmax, not renormalized": RouterRule(renormalize=False, scaling_factor=2.5),
    "softmax, bias, groups": RouterRule("softmax", False, 1.0, 4, 2, (0.25, -0.125) * 8),
    "sigmoid": RouterRule("sigmoid", renormalize=False),
    "sigmoid, bias, groups": RouterRule("sigmoid", True, 2.5, 4, 2, (0.5, -0.25, 0, 0.75) * 4),
    "sqrtsoftplus": RouterRule("sqrtsoftplus", renormalize=False),
    "sqrtsoftplus, bias": RouterRule("sqrtsoftplus", True, 1.5, 1, 1, (0.5, 0) * 8),
    "groups": RouterRule("softmax", True, 1.0, 8, 3),
    "sparsemixer": RouterRule("sparsemixer", renormalize=False),
}
# Every mode, every kind of weights and of steering, often together.
POLICIES: list[dict[str, Any]] = [
    {"mode": "top_k", "top_k": 7, "weights": "preserve_mass"},
    {"mode": "top_k", "top_k": 2, "ban": {"*": [0, 5]}, "force": {"3": [15]}},
    {"mode": "sample", "top_k": 4, "temperature": 1.0},
    {
        "mode": "sample",
        "top_k": 8,
        "temperature": 9.0,
        "noise": "request",
        "weights": "renormalize",
    },
    {"mode": "sample", "top_k": 3, "temperature": 0, "bias": {"3": {"1": 3.5, "2": -20}}},
    {"mode": "sample", "top_k": 2, "temperature": 1e-3, "ban": {"*": list(range(12))}},
    {"mode": "top_p", "top_p": 0.5, "max_experts": 8, "mass": "full"},
    {"mode": "top_p", "top_p": 0.9, "max_experts": 6, "min_experts": 2, "mass": "top_k"},
    {"mode": "top_p", "top_p": 1.0, "max_experts": 2, "ban": {"3": [3]}},
    {"mode": "head_sample", "weights": "preserve_mass", "ban": {"3": [0, 6, 7]}},
    {"mode": "head_sample", "top_k": 5, "head": 1, "pool": 16, "force": {"*": [9, 2]}},
    {"mode": "head_sample", "top_k": 3, "head": 0, "pool": 6, "temperature": 3.0},
    {"mode": "uniform", "top_k": 4, "noise": "request"},
    {"mode": "uniform", "top_k": 8, "ban": {"*": [1, 4]}, "force": {"3": [0, 7]}},
    {
        "mode": "replay",
        "trace": random_trace(spec_of(16, 4, 8), 4, first_position=14_000).encode_base64(),
    },
]


def test_policies_name_every_mode() -> None:
    assert {policy["mode"] for policy in POLICIES} == set(MODES)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_kernel_equals_reference_in_one_batch_of_all_modes(rule: RouterRule) -> None:
    each, native = 4, 4
    spec = spec_of(16, native, 8)
    asked = [{**policy, "seed": 2**62 + n, "scope": "all"} for n, policy in enumerate(POLICIES)]
    requests = [request_of(routing, 0, spec) for routing in asked]
    backend = backend_of(spec, each * len(asked), len(asked), rule)
    starts = np.arange(len(asked)) * 1000
    begin_batch(backend, requests, np.full(len(asked), each), starts)
    logits = hostile_logits(each * len(asked), 16, seed=1)
    weights, ids = run(backend, logits, layer_index=1)

    adjacent, counts = 0, np.zeros(16, int)
    for t, row in enumerate(logits):
        request = requests[t // each]
        assert request.policy is not None
        position = int(backend.recorded(np.array([t])).position[0])
        expected_weights, expected_ids = _expected(request, row, rule, position, spec)
        used = expected_ids.size
        np.add.at(counts, ids[t, :used], 1)
        if ids[t, :used].tolist() != expected_ids.tolist():
            adjacent += 1
            print(f"token {t}: {ids[t].tolist()} instead of {expected_ids.tolist()}")
            continue
        np.testing.assert_allclose(weights[t, :used], expected_weights, rtol=1e-5, atol=1e-37)
        assert (weights[t, used:] == 0).all()
        assert (ids[t, used:] == ids[t, 0]).all()
    assert adjacent <= (MOST_ADJACENT if DEVICE == "cuda" else 0)
    assert assignments(backend).tolist() == [[0] * 16, counts.tolist()]


def _expected(
    request: RoutedRequest, logits: Floats, rule: RouterRule, position: int, spec: RouterSpec
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    assert request.policy is not None
    return route_token(request.policy, spec, rule, logits, layer_index=1, position=position)


@pytest.mark.parametrize(("num_experts", "top_k"), [(2, 1), (7, 3), (60, 4), (512, 10)])
def test_number_of_experts_is_free(num_experts: int, top_k: int) -> None:
    spec = spec_of(num_experts, top_k)
    rule = RouterRule(renormalize=False)
    request = request_of({"mode": "sample", "seed": 11, "scope": "all"}, 0, spec)
    backend = backend_of(spec, 4, 1, rule)
    begin_batch(backend, [request], np.array([4]), np.array([70_000]))
    logits = hostile_logits(4, num_experts, seed=num_experts)
    weights, ids = run(backend, logits, layer_index=1)
    for t, row in enumerate(logits):
        expected_weights, expected_ids = _expected(request, row, rule, 70_000 + t, spec)
        assert ids[t].tolist() == expected_ids.tolist()
        np.testing.assert_allclose(weights[t], expected_weights, rtol=1e-5, atol=1e-37)


def test_bfloat16_logits_are_read_exactly() -> None:
    spec = spec_of(16, 4)
    request = request_of({"mode": "sample", "seed": 3, "scope": "all"}, 0, spec)
    backend = backend_of(spec, 4, 1, RouterRule())
    begin_batch(backend, [request], np.array([4]), np.array([0]))
    logits = torch.from_numpy(hostile_logits(4, 16, seed=8)).bfloat16()
    weights, ids = run(backend, logits, layer_index=0)
    same_weights, same_ids = run(backend, logits.float(), layer_index=0)
    assert ids.tolist() == same_ids.tolist()
    assert weights.tolist() == same_weights.tolist()


def test_counts_add_up_over_launches() -> None:
    spec = spec_of(16, 4)
    request = request_of({"mode": "uniform", "seed": 1, "scope": "all"}, 0, spec)
    backend = backend_of(spec, 4, 1, RouterRule())
    begin_batch(backend, [request], np.array([4]), np.array([0]))
    logits = hostile_logits(4, 16, seed=5)
    run(backend, logits, layer_index=0)
    once = assignments(backend).copy()
    run(backend, logits, layer_index=0)
    assert once.sum() == 16
    assert assignments(backend).tolist() == (2 * once).tolist()


def test_what_is_counted_of_tokens_and_steps() -> None:
    """Entropies of all tokens, distinct experts of each step, the experts of each group."""
    spec = spec_of(16, 4, 8)
    backend = backend_of(spec, 12, 3, RouterRule())
    native = RoutedRequest(None, 4, group=9)
    sampled = request_of({"mode": "sample", "top_k": 6, "seed": 5}, 4, spec)
    sampled.group = 7
    logits = hostile_logits(12, 16, seed=9)
    active = [0, 0]
    for computed in (0, 4):  # prompts, which no policy routes; then generated tokens, and padding
        count = 4 if computed == 0 else 1
        begin_batch(backend, [native, sampled], np.array([count, count]), np.array([computed] * 2))
        for layer_index in range(2):
            _, ids = run(backend, logits, layer_index=layer_index)
            used = [*ids[:count, :4].flat, *ids[count : 2 * count, : 6 if computed else 4].flat]
            active[layer_index] += len(set(used))
    counts = backend.counts()
    assert counts.active_experts.tolist() == active
    assert counts.num_steps.tolist() == [2]
    assert counts.group_assignments.tolist()[:10] == [2 * 16, 0, 0, 0, 0, 0, 0, 2 * 6, 0, 2 * 20]
    assert counts.routed_tokens[[0, 7, 9]].tolist() == [[4, 0, 0], [0, 1, 0], [4, 1, 0]]
    expected = sum(entropy(clamp(logits[t])) for t in [*range(8), 0, 1])
    np.testing.assert_allclose(counts.router_entropy, expected, rtol=1e-6)


def test_what_is_recorded_of_tokens_whose_request_asked() -> None:
    spec, rule = spec_of(16, 4, 8), RULES["sigmoid, bias, groups"]
    asked = [{"mode": "top_p", "top_p": 0.8}, None, {"mode": "sample", "top_k": 6, "seed": 5}, None]
    requests = [request_of(routing and {**routing, "scope": "all"}, 0, spec) for routing in asked]
    for request, include in zip(requests, (["stats"], ["stats"], ["trace"], []), strict=True):
        request.include = tuple(include)
    backend = backend_of(spec, 16, 4, rule)
    logits = hostile_logits(14, 16, seed=3)  # two of padding
    begin_batch(backend, requests, np.full(4, 3), np.full(4, 20))
    weights, ids = run(backend, logits, layer_index=1)
    _, native_ids = native_choice(logits, 4)
    found = backend.recorded(np.arange(12))
    assert found.position.tolist() == [20, 21, 22] * 4
    assert found.slot.tolist() == [0] * 3 + [-1] * 3 + [2] * 3 + [-1] * 3
    for t in range(12):
        used = (ids[t] != ids[t, 0]).sum() + 1
        recorded = found.topk_ids[t, 1].tolist()
        if t >= 9:
            assert recorded == [0] * 8  # nobody asked
            continue
        assert recorded == [*ids[t, :used].tolist(), *[-1] * (8 - used)]
        assert found.topk_weights[t, 1, :used].tolist() == weights[t, :used].tolist()
        assert (found.topk_weights[t, 1, used:] == 0).all()
        expected = measures(clamp(logits[t]), ids[t, :used].astype(int), native_ids[t])
        of_stats = expected if t < 6 else (0, 0, 0)
        np.testing.assert_allclose(found.measures[t, 1].tolist(), of_stats, rtol=1e-5, atol=1e-7)


def test_what_layers_are_given_is_observed_while_asked_for() -> None:
    spec = spec_of(16, 4)
    backend = backend_of(spec, 4, 1, RouterRule())
    logits = hostile_logits(4, 16, seed=4)[:2]
    for observes in (False, True):
        backend.state.observes = observes
        request = request_of({"mode": "sample", "seed": 5, "scope": "all"}, 0, spec)
        begin_batch(backend, [request], np.array([2]), np.array([0]))
        _, ids = run(backend, logits)
        seen = backend.observed(4)
        assert (seen.native_weights[:2, 0] != 0).all() == observes
    native_weights, native_ids = native_choice(logits, 4)
    assert seen.native_ids[:2, 0].tolist() == native_ids.tolist()
    assert seen.native_weights[:2, 0].tolist() == native_weights.tolist()
    assert seen.router_logits[:2, 0].tolist() == clamp(logits).tolist()
    assert backend.recorded(np.arange(2)).topk_ids[:, 0].tolist() == ids.tolist()


@pytest.mark.skipif(BACKEND == "gpu", reason="what a GPU's tokens follow, its host does not know")
def test_the_native_choice_is_wanted_by_its_tokens_and_by_who_compares() -> None:
    spec = spec_of(16, 4)
    backend = backend_of(spec, 8, 2, RouterRule())
    sampled = request_of({"mode": "sample", "seed": 5}, 3, spec)
    both = [sampled, request_of({"mode": "uniform", "seed": 5, "scope": "all"}, 3, spec)]

    def wanted(requests: list[RoutedRequest], *computed: int, padding: int = 0) -> bool:
        tokens = np.ones(len(requests), int)
        begin_batch(backend, requests, tokens, np.array(computed))
        return backend.needs_native(len(requests) + padding)

    assert not wanted(both, 3, 0)
    assert wanted(both, 2, 0)  # a token of a prompt that the policy leaves alone
    assert wanted(both, 3, 0, padding=1)
    assert wanted([*both[:1], request_of(None, 3, spec)], 4, 0)
    reported = request_of({"mode": "sample", "seed": 5, "scope": "all"}, 3, spec)
    reported.include = ("stats",)
    assert wanted([reported], 3)
    backend.end_step()
    assert backend.needs_native(1)


@pytest.mark.skipif(BACKEND == "gpu", reason="what a GPU's tokens follow, its host does not know")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_steps_that_keep_the_native_choice_are_counted_as_if_routed(dtype: torch.dtype) -> None:
    spec = spec_of(16, 4)
    routed, counted = (backend_of(spec, 8, 2, RouterRule()) for _ in range(2))
    rng = np.random.default_rng(5)
    for first in (0, 3, 6):
        for backend in (routed, counted):
            requests = [RoutedRequest(None, 4, group=group) for group in (0, 2)]
            begin_batch(backend, requests, np.array([3, 1]), np.array([first, 9]))
        for layer_index in (0, 1):
            logits = rng.normal(0, 2, (6, 16)).astype(np.float32)  # two are padding
            given = torch.from_numpy(logits).to(dtype)
            ids = torch.from_numpy(native_choice(logits, 4)[1])
            routed.route(given, torch.zeros(6, 4), ids, layer_index, 4)
            assert counted.only_counts(given, ids, layer_index, 4)
            del given, ids  # the backend holds them
        for backend in (routed, counted):
            backend.end_step()
    for name, count in routed.counts()._asdict().items():
        if name != "last_step":
            assert counted.counts()._asdict()[name].tolist() == count.tolist(), name
    assert assignments(counted).sum() == 3 * 2 * 4 * 4


@pytest.mark.skipif(BACKEND == "gpu", reason="what a GPU's tokens follow, its host does not know")
def test_only_what_needs_no_more_is_only_counted() -> None:
    spec = spec_of(16, 4, 8)
    backend = backend_of(spec, 1024, 2, RouterRule())
    native = request_of(None, 3, spec)
    sampled = request_of({"mode": "sample", "seed": 5}, 3, spec)
    reported = request_of(None, 3, spec)
    reported.include = ("stats",)

    def only_counts(*requests: RoutedRequest, tokens: int = 2, num_columns: int = 4) -> bool:
        each = np.full(len(requests), tokens)
        begin_batch(backend, requests, each, np.zeros(len(requests), int))
        ids = torch.zeros(each.sum(), 4, dtype=torch.int32)
        counts = backend.only_counts(torch.zeros(len(ids), 16), ids, 0, num_columns)
        backend.end_step()
        return counts

    assert only_counts(native)
    assert only_counts(native, sampled)  # whose prompt the policy leaves alone
    assert not only_counts(native, sampled, tokens=5)
    assert not only_counts(native, reported)
    assert not only_counts(native, num_columns=8)
    assert not only_counts(native, tokens=1000)
    ids = torch.zeros(1, 4, dtype=torch.int32)
    assert not backend.only_counts(torch.zeros(1, 16), ids, 0, 4), "outside a step"


def test_a_token_computed_again_is_told_apart() -> None:
    spec = spec_of(16, 4)
    backend = backend_of(spec, 8, 2, RouterRule())
    request, other = RoutedRequest(None, 4), RoutedRequest(None, 2)
    # Preempted after six tokens, the request comes back in another slot, its first two cached.
    for requests, scheduled, computed in (
        ([request], [4], [0]),
        ([request], [1], [4]),
        ([request, other], [1, 2], [5, 0]),
        ([other, request], [1, 5], [2, 2]),
    ):
        begin_batch(backend, requests, np.array(scheduled), np.array(computed))
    assert backend.counts().routed_tokens[0].tolist() == [6, 4, 4]
