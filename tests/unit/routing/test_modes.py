"""Every mode on every router family, compiled kernel against reference, on hostile logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.policy import PolicyError, parse_policy
from routing.policy.compiled import compile_policy
from routing.policy.keys import WEIGHTS
from routing.policy.modes import MODES
from routing.reference.route import route_token, select_experts
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from tests.shared.kernels import assignments, run, step, to_bfloat16

SPECIALS = [0.0, -0.0, 1.0, 1e-30, 1e4, -1e4, 3e38, float("inf"), float("-inf"), float("nan")]


@st.composite
def rules(draw: st.DrawFn, num_experts: int) -> RouterRule:
    scoring = draw(st.sampled_from(["softmax", "sigmoid", "sqrtsoftplus", "sparsemixer"]))
    groups = draw(st.sampled_from([g for g in (1, 2, 4, 8) if num_experts % g == 0]))
    bias = None
    if draw(st.booleans()) and scoring != "sparsemixer":
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        bias = tuple(rng.uniform(-1, 1, num_experts).tolist())
    return RouterRule(
        scoring,
        draw(st.booleans()) and scoring != "sparsemixer",
        draw(st.sampled_from([1.0, 2.5])) if scoring != "sparsemixer" else 1.0,
        groups,
        draw(st.integers(1, groups)),
        bias,
    )


@st.composite
def policies(draw: st.DrawFn, spec: RouterSpec) -> dict[str, Any]:
    """A valid request for one of the modes; `replay` has tests of its own (`test_trace.py`)."""
    mode = draw(st.sampled_from([name for name in MODES if not MODES[name].takes_trace]))
    k = st.integers(1, spec.max_top_k)
    temperature = st.sampled_from([0, 1e-3, 1, 10])
    bias = st.floats(-20, 20)
    top_k = draw(k)
    of_mode: dict[str, dict[str, Any]] = {
        "top_k": {"top_k": top_k},
        "sample": {"top_k": top_k, "temperature": draw(temperature)},
        "top_p": {
            "top_p": draw(st.sampled_from([0.01, 0.5, 0.9, 1.0])),
            "max_experts": top_k,
            "min_experts": draw(st.integers(1, top_k)),
            "mass": draw(st.sampled_from(["full", "top_k"])),
        },
        "head_sample": {
            "top_k": top_k,
            "head": draw(st.integers(0, top_k)),
            "pool": draw(st.integers(top_k, spec.num_experts)),
            "temperature": draw(temperature),
        },
        "uniform": {"top_k": top_k},
    }
    routing = {"mode": mode, **of_mode[mode], "seed": draw(st.integers(0, 2**63 - 1))}
    routing["weights"] = draw(st.sampled_from(WEIGHTS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    experts = rng.permutation(spec.num_experts).tolist()
    if draw(st.booleans()):
        banned = draw(st.integers(0, spec.num_experts - top_k))
        forced = banned + draw(st.integers(0, of_mode[mode].get("min_experts", top_k)))
        routing["ban"] = {"*": experts[:banned]}
        routing["force"] = {"3": experts[banned:forced]}
        routing["bias"] = {"3": {str(e): draw(bias) for e in experts[forced : forced + 2]}}
    return routing


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_kernel_equals_reference_whatever_the_mode_the_family_and_the_logits(
    data: st.DataObject,
) -> None:
    num_experts = data.draw(st.sampled_from([2, 4, 7, 8, 16, 60, 64, 128, 256, 512]))
    native = data.draw(st.integers(1, min(16, num_experts)))
    most = data.draw(st.integers(native, min(16, num_experts)))
    spec = RouterSpec((0, 3), num_experts, native, most)
    rule = data.draw(rules(num_experts))
    routing = data.draw(policies(spec))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spread = data.draw(st.sampled_from([0.01, 1, 8]))
    logits = rng.normal(0, spread, (6, num_experts)).astype(np.float32)
    logits[3:5] = rng.integers(-1, 2, (2, num_experts))  # ties
    logits[5] = rng.choice(SPECIALS, num_experts)
    is_bfloat16 = data.draw(st.booleans())
    if is_bfloat16:
        logits = to_bfloat16(logits)

    policy = parse_policy({**routing, "scope": "all"}, spec)
    compiled = compile_policy(policy, spec)
    steering = np.zeros(num_experts)
    if policy.steering is not None:
        steering = np.array(policy.steering.dense(3, num_experts))
    backend = step(spec, routing, len(logits), rule)
    weights, ids = run(backend, logits, layer_index=1, is_bfloat16=is_bfloat16)
    num_assignments = 0
    for position, row in enumerate(logits):
        expected_weights, expected_ids = route_token(
            compiled, spec, rule, row, layer_index=1, position=position
        )
        used = expected_ids.size
        num_assignments += used
        assert ids[position, :used].tolist() == expected_ids.tolist()
        np.testing.assert_allclose(
            weights[position, :used], expected_weights, rtol=1e-5, atol=1e-37
        )
        assert (weights[position, used:] == 0).all()
        assert len(set(expected_ids.tolist())) == used
        assert not np.isneginf(steering[expected_ids]).any()
        assert set(np.flatnonzero(np.isposinf(steering))) <= set(expected_ids.tolist())
    assert assignments(backend).sum(axis=1).tolist() == [0, num_assignments]


@pytest.mark.parametrize("mass", ["top_k", "full"])
def test_top_p_1_does_not_depend_on_the_order_of_a_sum(mass: str) -> None:
    """All the mass is the native top-k's 9 experts; all others together have 1e-17 of it."""
    logits = np.random.default_rng(8).normal(0, 1, (500, 64)).astype(np.float32)
    logits[:, 9:] -= 50
    numbers = {"top_p": 1.0, "max_experts": 16, "min_experts": 1}
    routing = {"mode": "top_p", "mass": mass, **numbers}
    weights, _ = run(step(RouterSpec((0, 3), 64, 9, 16), routing, 500), logits)
    assert set((weights > 0).sum(axis=1)) == {9}
    numbers["mass"] = ["full", "top_k"].index(mass)
    for row in logits:
        _, ids = select_experts(row, "top_p", numbers, rule=RouterRule(), native_top_k=9)
        assert ids.size == 9


SPEC = RouterSpec((0, 3), 16, 4, 8)


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ({"ban": {"*": list(range(13))}}, r"routing\.ban must be at most 12 of layer 0's experts"),
        ({"force": {"3": [1, 2, 3, 4, 5]}}, r"routing\.force must be at most 4 of layer 3's"),
        ({"ban": {"1": [0]}}, r"routing\.ban must be an MoE layer \(0, 3\) or '\*', got '1'"),
        ({"ban": {"0": [16]}}, r"routing\.ban\.0 must be experts from 0 to 15, got 16"),
        ({"ban": {"0": [1]}, "force": {"*": [1]}}, r"an expert not steered otherwise too, got 1"),
        ({"bias": {"0": {"1": 21}}}, r"routing\.bias\.0\.1 must be a number from -20 to 20"),
        ({"ban": [1]}, r"routing\.ban must be an object \{layer: experts\}"),
        ({"mode": "top_p", "top_p": 0}, r"routing\.top_p must be a number above 0 to 1, got 0"),
        ({"mode": "top_p", "max_experts": 3, "min_experts": 4}, r"min_experts .* from 1 to 3"),
        ({"mode": "head_sample", "head": 5}, r"routing\.head must be an integer from 0 to 4"),
        ({"mode": "head_sample", "pool": 3}, r"routing\.pool must be an integer from 4 to 16"),
        ({"mode": "top_p", "mass": "half"}, r"routing\.mass must be 'full' or 'top_k'"),
        ({"weights": "none"}, r"routing\.weights must be 'model' or 'renormalize' or"),
        ({"head": 1}, r"routing\.head must be left out in mode 'top_k'; it belongs to head_sample"),
    ],
)
def test_what_cannot_be_is_refused(routing: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse_policy(routing, SPEC)


def test_steering_needs_permission() -> None:
    with pytest.raises(PolicyError, match=r"this server takes no steering"):
        parse_policy({"ban": {"*": [0]}}, SPEC, allow_steering=False)
