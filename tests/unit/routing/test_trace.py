"""The trace's bytes, and what replaying them chooses."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from routing.backend import begin_batch
from routing.policy import PolicyError, parse_policy
from routing.policy.keys import WEIGHTS
from routing.reference.route import select_experts
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.trace import Trace, TraceError, join
from tests.shared.kernels import backend_of, native_choice, request_of, run, step
from tests.shared.traces import random_trace

SPEC = RouterSpec((0, 3), 16, 4, 8, "00c0ffee00c0ffee")
TRACE = random_trace(SPEC, 5)


@pytest.mark.parametrize("weighed", [False, True])
def test_bytes_give_the_trace_back(weighed: bool) -> None:
    weights = np.random.default_rng(1).random(TRACE.topk_ids.shape, np.float32)
    native = np.array([True, False, True, True, False])
    trace = replace(
        TRACE, native=native, topk_weights=weights if weighed else None, first_position=2**31
    )
    again = Trace.decode(trace.encode_base64())
    assert again == trace
    assert again.topk_ids.tolist() == trace.topk_ids.tolist()
    assert again.native.tolist() == native.tolist()
    assert (again.topk_weights is not None) == weighed
    assert (again.layers, again.num_experts, again.fingerprint) == ((0, 3), 16, SPEC.fingerprint)


def test_layout_is_the_documented_one() -> None:
    ids = np.array([[[2, 1], [0, -1]]], np.int16)
    weights = np.array([[[0.5, 0.25], [1, 0]]], np.float32)
    trace = Trace((1, 7), 3, ids, np.array([True]), weights, 9, "0123456789abcdef")
    expected = (
        "474c544e 0100 0100 0123456789abcdef 09000000 01000000 03000000 0200 0200"
        "0100 0700 01 0200 0100 0000 ffff 0000003f 0000803e 0000803f 00000000"
    )
    assert trace.encode() == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header"),
        (b"GLTM" + bytes(28), "header"),
        (TRACE.encode()[:-1], "its header tells of"),
        (TRACE.encode() + b"x", "its header tells of"),
        (TRACE.encode()[:4] + b"\x02" + TRACE.encode()[5:], "version 2"),
        (TRACE.encode()[:28] + bytes(4), "no layers"),
        ("not base64!", "not base64"),
        ("é", "not base64"),
    ],
)
def test_other_bytes_are_no_trace(data: bytes | str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        Trace.decode(data)


def test_parts_of_a_stream_join_whatever_was_cached_or_computed_twice() -> None:
    part = random_trace(replace(SPEC, max_top_k=3), 2, first_position=4, seed=1)
    later = random_trace(SPEC, 3, first_position=5, seed=2)
    whole = join([part, later])
    assert whole.first_position == 0
    assert (whole.topk_ids[:4] == -1).all()
    assert not whole.computed[:4].any()
    assert whole.topk_ids[4, :, :3].tolist() == part.topk_ids[0].tolist()
    assert (whole.topk_ids[4, :, 3:] == -1).all()
    assert whole.topk_ids[5:].tolist() == later.topk_ids.tolist()
    with pytest.raises(TraceError, match="different models"):
        join([part, replace(TRACE, fingerprint="1" * 16)])
    with pytest.raises(TraceError, match="no parts"):
        join([])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
def test_routed_experts_of_vllm_and_sglang_are_replayed(dtype: str) -> None:
    ids = np.random.default_rng(3).permuted(np.tile(np.arange(16), (6, 2, 1)), axis=2)[..., :4]
    raw = base64.b64encode(ids.astype(dtype).tobytes()).decode()
    routing = {"mode": "replay", "trace": {"data": raw, "dtype": dtype, "shape": [6, 2, 4]}}
    trace = parse_policy(routing, SPEC).trace
    assert trace is not None
    assert trace.topk_ids.tolist() == ids.tolist()


def _npy(array: Any) -> str:
    """As vLLM's answers carry `routed_experts`."""
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def _lying_npy(num_tokens: int) -> str:
    """A header that tells of more than any memory holds, and nothing behind it."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_tokens, 2, 4)}
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
    return base64.b64encode(file.getvalue()).decode()


def test_vllms_own_answer_is_replayed() -> None:
    ids = np.arange(16, dtype=np.uint8).reshape(2, 2, 4)
    trace = parse_policy({"mode": "replay", "trace": _npy(ids)}, SPEC).trace
    assert trace is not None
    assert trace.topk_ids.tolist() == ids.tolist()


def _changed(**fields: Any) -> str:
    return replace(TRACE, **fields).encode_base64()


def _with(change: Callable[[Any], None]) -> str:
    ids = TRACE.topk_ids.copy()
    change(ids)
    return _changed(topk_ids=ids)


def _set(index: Any, value: Any) -> str:
    return _with(lambda ids: ids.__setitem__(index, value))


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (None, "routing.trace must be a trace: mode 'replay' replays one, got None"),
        (7, "neither a string of base64 nor an object"),
        (_changed(fingerprint="1" * 16), "it is of model 1111111111111111, this is 00c0ffee"),
        (_changed(layers=(0, 2)), r"its MoE layers \[0, 2\] are not \[0, 3\]"),
        (_changed(num_experts=32), "it has 32 experts, the model 16"),
        (_set((0, 0, 0), 16), "expert ids must be -1 or from 0 to 15"),
        (_set((0, 0, 0), -2), "expert ids must be -1 or from 0 to 15"),
        (_set((0, 0), [1, -1, 2, -1, -1, -1, -1, -1]), "experts must come before its -1"),
        (_set((0, 0), [1, 2, 1, -1, -1, -1, -1, -1]), "the same expert twice"),
        (_set((0, 0), -1), "experts in every layer, or in none"),
        (random_trace(replace(SPEC, max_top_k=16), 9).encode_base64(), "at most 8 experts"),
        (_npy(np.zeros((1, 2, 4))), "dtype float64 is not of integers"),
        (_npy(np.zeros((1, 2), int)), "is not"),
        (_npy(np.zeros((1, 3, 4), int)), "is not"),
        (_lying_npy(2**50), ".npy file that cannot be read"),
        (_npy(np.array({})), ".npy file that cannot be read"),
        (_npy(np.zeros((1, 2, 4), int))[:-8], ".npy file that cannot be read"),
        ({"data": "", "shape": [1, 2]}, r"shape must be \[tokens, layers, top-k\]"),
        ({"data": "", "shape": [1, 3, 4]}, "data holds 0 bytes, not"),
        ({"data": "", "shape": [1, 2, 4], "dtype": "float32"}, "dtype 'float32' is none of"),
        ({"data": "", "shape": [1, 2, 4], "dtype": []}, r"dtype \[\] is none of"),
        ({"data": "AAAA", "dtype": "int32", "shape": [1, 2, 4]}, "data holds 3 bytes"),
        ({"data": 3, "shape": [1, 2, 4]}, "data must be a string"),
        ({"data": "", "shape": [1, 2, 4], "first_position": -1}, "first_position must be"),
        ({"data": "", "shape": [1, 2, 4], "start": 1}, "unknown key 'start'"),
        ({"data": "/////w==", "dtype": "uint8", "shape": [1, 2, 2]}, "expert ids must be"),
    ],
)
def test_what_this_model_cannot_replay_is_refused(trace: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as refused:
        parse_policy({"mode": "replay", "trace": trace}, SPEC)
    assert refused.value.field == "routing.trace"


def test_replay_takes_no_steering_and_others_no_trace() -> None:
    with pytest.raises(PolicyError, match="one of the keys mode, seed, scope, weights, trace"):
        parse_policy({"mode": "replay", "trace": TRACE.encode_base64(), "ban": {}}, SPEC)
    with pytest.raises(PolicyError, match="one of the keys"):
        parse_policy({"mode": "sample", "trace": TRACE.encode_base64()}, SPEC)


def test_policy_travels_whole_and_is_shown_short() -> None:
    policy = parse_policy({"mode": "replay", "trace": TRACE.encode_base64()}, SPEC)
    assert parse_policy(policy.as_dict(), SPEC) == policy
    shown = policy.shown()["trace"]
    assert (shown["first_position"], shown["tokens"], len(shown["sha256"])) == (0, 5, 64)
    assert policy.scope == "all"


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    "rule",
    [RouterRule(), RouterRule("sigmoid", True, 2.5, 4, 1, (0.5, -0.25) * 8)],
    ids=["softmax", "groups"],
)
def test_kernel_replays_the_recorded_experts_with_live_weights(
    rule: RouterRule, weights: str
) -> None:
    routing = {"mode": "replay", "trace": TRACE.encode_base64(), "weights": weights}
    policy = parse_policy(routing, SPEC)
    logits = np.random.default_rng(5).normal(0, 2, (5, 16)).astype(np.float32)
    found_weights, ids = run(step(SPEC, routing, 5, rule), logits, layer_index=1)
    for position, row in enumerate(logits):
        assert policy.trace is not None
        replayed = policy.trace.experts(position, 1)
        used = replayed.size
        expected, _ = select_experts(
            row, "replay", {}, rule=rule, native_top_k=4, weights=weights, replayed=replayed
        )
        assert ids[position, :used].tolist() == replayed.tolist()
        np.testing.assert_allclose(found_weights[position, :used], expected, rtol=1e-5)
        assert (found_weights[position, used:] == 0).all()


def test_tokens_that_the_trace_does_not_hold_follow_the_models_router() -> None:
    ids = TRACE.topk_ids.copy()
    ids[2] = -1  # not computed, as in a cached prompt
    trace = replace(TRACE, topk_ids=ids, first_position=3)
    request = request_of({"mode": "replay", "trace": trace.encode_base64()}, 12, SPEC)
    backend = backend_of(SPEC, 12, 1, RouterRule())
    begin_batch(backend, [request], np.array([12]), np.array([0]))
    logits = np.random.default_rng(6).normal(0, 2, (12, 16)).astype(np.float32)
    _, found = run(backend, logits)
    _, stock = native_choice(logits, 4)
    for position in range(12):
        held = position in (3, 4, 6, 7)
        own = found[position, :4].tolist() == stock[position].tolist()
        assert own != held, position
    assert backend.counts().routed_tokens.sum(1).tolist()[:6] == [8, 0, 0, 0, 0, 4]


def test_replay_of_the_models_own_choice_keeps_its_bits_while_the_router_agrees() -> None:
    logits = np.random.default_rng(7).normal(0, 2, (5, 16)).astype(np.float32)
    stock_weights, stock = native_choice(logits, 4)
    native = np.array([True, True, True, False, True])
    trace = Trace((0, 3), 16, np.stack([stock, stock], 1).astype(np.int16), native)
    routing = {"mode": "replay", "trace": trace.encode_base64()}
    logits[1, 5] += 40  # the router changed its mind
    weights, ids = run(step(SPEC, routing, 5), logits)
    assert ids[:, :4].tolist() == stock.tolist()
    kept = (weights[:, :4] == stock_weights).all(1)
    assert kept.tolist() == [True, False, True, False, True]
    reweighed, _ = run(step(SPEC, {**routing, "weights": "renormalize"}, 5), logits)
    assert not (reweighed[:, :4] == stock_weights).any()
