"""The Triton kernel against NumPy's reference; run by `test_triton_kernel.py`, in its own process.

On a GPU where there is one, else in Triton's interpreter, which has to be chosen before
triton is first imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import triton
import triton.language as tl

from routing.bench.gpu import our_router, torch_router
from routing.gpu.noise import gumbel as gpu_gumbel
from routing.gpu.noise import words as gpu_words
from routing.gpu.route import route_triton
from routing.reference.noise import gumbel, philox4x32
from routing.reference.route import route_token
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest, StepState
from tests.shared.kernels import Floats, Ints, request_of, spec_of, state_of, stock_choice
from tests.shared.traces import random_trace

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NOT_FINITE = [float("inf"), float("-inf"), float("nan")]
SPECIALS = [0.0, -0.0, 1.0, 1e-30, 1e4, -40.0, -50.0, -1e4, 3e38, *NOT_FINITE]
# Where GPU and CPU round exp or ln differently in the last bit of a float64, a float32 key
# can move by one step: about one in 2^29.
MOST_ADJACENT = 2
OPTIONS = {"enable_fp_fusion": False}  # as the kernel is compiled


def run(state: StepState, logits: torch.Tensor, layer_row: int) -> tuple[Floats, Ints]:
    """`tests.shared.kernels.run` on the device; the state's counts are brought back."""
    spec = state.spec
    shape = (len(logits), spec.max_top_k)
    weights = torch.full(shape, torch.nan, device=DEVICE)
    ids = torch.full(shape, -1, dtype=torch.int32, device=DEVICE)
    stock = [torch.from_numpy(a).to(DEVICE) for a in stock_choice(_clean(logits), spec.top_k)]
    arrays = [torch.from_numpy(a).to(DEVICE, copy=True) for a in state.kernel_arrays()]
    arguments: list[Any] = [logits.to(DEVICE), *stock, weights, ids, layer_row, *arrays]
    route_triton(*arguments)
    state.assignments[:] = arrays[-1].cpu().numpy()
    return weights.cpu().numpy(), ids.cpu().numpy()


def _clean(logits: torch.Tensor) -> Floats:
    clean: Floats = np.nan_to_num(logits.float().numpy())
    return clean


def hostile_logits(num_tokens: int, num_experts: int, seed: int) -> Floats:
    """[T, E]; in every four rows: narrow, wide, full of ties, full of NaN and infinities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (num_tokens, num_experts))
    logits[1::4] *= 8
    logits[2::4] = rng.integers(-1, 2, logits[2::4].shape)
    logits[3::4] = rng.choice(SPECIALS, logits[3::4].shape)
    return logits.astype(np.float32)


# --- the random numbers ---------------------------------------------------------------------


@triton.jit
def _noise_of(words, noise, seed, layer, position, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    lanes = tl.arange(0, LANES)
    seed, layer, position = tl.load(seed), tl.load(layer), tl.load(position)
    tl.store(words + lanes, gpu_words(seed, layer, position, LANES).to(tl.int64))
    tl.store(noise + lanes, gpu_gumbel(seed, layer, position, LANES))


@triton.jit
def _philox(out, counter, key):  # type: ignore[no-untyped-def]
    c0, c1, c2, c3 = tl.philox(
        tl.load(key),
        tl.load(counter).to(tl.uint32),
        tl.load(counter + 1).to(tl.uint32),
        tl.load(counter + 2).to(tl.uint32),
        tl.load(counter + 3).to(tl.uint32),
    )
    tl.store(out, c0.to(tl.int64))
    tl.store(out + 1, c1.to(tl.int64))
    tl.store(out + 2, c2.to(tl.int64))
    tl.store(out + 3, c3.to(tl.int64))


def _int64(*numbers: int) -> torch.Tensor:
    signed = np.array(numbers, np.uint64).view(np.int64)
    return torch.from_numpy(signed).to(DEVICE)


@pytest.mark.parametrize(
    ("counter", "key"),
    [
        ((0, 0, 0, 0), (0, 0)),  # this and the next two: Random123's published vectors
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)),
        ((31, 47, 2**31 + 5, 0), (7, 0x80000001)),
    ],
)
def test_philox_is_the_same_generator(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> None:
    # test_noise.py holds philox4x32 to the published words.
    out = _int64(0, 0, 0, 0)
    _philox[(1,)](out, _int64(*counter), _int64(key[0] | key[1] << 32), **OPTIONS)
    assert out.tolist() == philox4x32(counter, key)


@pytest.mark.parametrize("num_experts", [4, 64])
def test_words_and_noise_of_an_expert(num_experts: int) -> None:
    rng = np.random.default_rng(num_experts)
    for seed in (0, 2**63 - 1, *rng.integers(0, 2**63, 4).tolist()):
        layer, position = (int(n) for n in rng.integers(0, 2**20, 2))
        words = _int64(*[0] * num_experts)
        noise = torch.zeros(num_experts, dtype=torch.float64, device=DEVICE)
        arguments = (_int64(seed), _int64(layer), _int64(position))
        _noise_of[(1,)](words, noise, *arguments, LANES=num_experts, **OPTIONS)
        key = (seed & 0xFFFFFFFF, seed >> 32)
        expected = [
            philox4x32((block, layer, position, 0), key) for block in range(num_experts // 4)
        ]
        assert words.tolist() == [word for block in expected for word in block]
        np.testing.assert_allclose(
            noise.cpu().numpy(), gumbel(seed, layer, position, num_experts), rtol=1e-14, atol=1e-14
        )


# --- the choice -----------------------------------------------------------------------------

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
    {"mode": "sample", "top_k": 8, "temperature": 10.0, "weights": "renormalize"},
    {"mode": "sample", "top_k": 3, "temperature": 0, "bias": {"3": {"1": 3.5, "2": -20}}},
    {"mode": "sample", "top_k": 2, "temperature": 1e-3, "ban": {"*": list(range(12))}},
    {"mode": "top_p", "top_p": 0.5, "max_experts": 8, "mass": "full"},
    {"mode": "top_p", "top_p": 0.9, "max_experts": 6, "min_experts": 2, "mass": "top_k"},
    {"mode": "top_p", "top_p": 1.0, "max_experts": 2, "ban": {"3": [3]}},
    {"mode": "head_sample", "weights": "preserve_mass", "ban": {"3": [0, 6, 7]}},
    {"mode": "head_sample", "top_k": 5, "head": 1, "pool": 16, "force": {"*": [9, 2]}},
    {"mode": "head_sample", "top_k": 3, "head": 0, "pool": 6, "temperature": 3.0},
    {"mode": "uniform", "top_k": 4},
    {"mode": "uniform", "top_k": 8, "ban": {"*": [1, 4]}, "force": {"3": [0, 7]}},
    {
        "mode": "replay",
        "trace": random_trace(spec_of(16, 4, 8), 4, first_position=14_000).encode_base64(),
    },
]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_kernel_equals_reference_in_one_batch_of_all_modes(rule: RouterRule) -> None:
    each, native = 4, 4
    spec = spec_of(16, native, 8)
    asked = [{**policy, "seed": 2**62 + n, "scope": "all"} for n, policy in enumerate(POLICIES)]
    requests = [request_of(routing, 0, spec) for routing in asked]
    state = state_of(spec, each * len(asked), len(asked), rule)
    starts = np.arange(len(asked)) * 1000
    state.begin_step(requests, np.full(len(asked), each), starts)
    logits = hostile_logits(each * len(asked), 16, seed=1)
    weights, ids = run(state, torch.from_numpy(logits), layer_row=1)

    adjacent, counts = 0, np.zeros(16, int)
    for t, row in enumerate(logits):
        request = requests[t // each]
        assert request.policy is not None
        position = int(state.token_position[t])
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
    assert state.assignments.tolist() == [[0] * 16, counts.tolist()]


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
    state = state_of(spec, 4, 1, rule)
    state.begin_step([request], np.array([4]), np.array([70_000]))
    logits = hostile_logits(4, num_experts, seed=num_experts)
    weights, ids = run(state, torch.from_numpy(logits), layer_row=1)
    for t, row in enumerate(logits):
        expected_weights, expected_ids = _expected(request, row, rule, 70_000 + t, spec)
        assert ids[t].tolist() == expected_ids.tolist()
        np.testing.assert_allclose(weights[t], expected_weights, rtol=1e-5, atol=1e-37)


def test_bfloat16_logits_are_read_exactly() -> None:
    spec = spec_of(16, 4)
    request = request_of({"mode": "sample", "seed": 3, "scope": "all"}, 0, spec)
    state = state_of(spec, 4, 1, RouterRule())
    state.begin_step([request], np.array([4]), np.array([0]))
    logits = torch.from_numpy(hostile_logits(4, 16, seed=8)).bfloat16()
    weights, ids = run(state, logits, layer_row=0)
    same_weights, same_ids = run(state, logits.float(), layer_row=0)
    assert ids.tolist() == same_ids.tolist()
    assert weights.tolist() == same_weights.tolist()


def test_benchmark_compares_routers_that_choose_the_same() -> None:
    logits = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    weights, ids = our_router(logits, "top_k", 8)()
    expected_weights, expected_ids = torch_router(logits, 8)
    assert ids.tolist() == expected_ids.tolist()
    torch.testing.assert_close(weights, expected_weights)


# --- what is not routed ---------------------------------------------------------------------


def test_stock_rows_keep_their_bits_and_padding_is_not_counted() -> None:
    spec = spec_of(16, 4, 6)
    state = state_of(spec, 16, 3, RouterRule())
    sampled = request_of({"mode": "sample", "seed": 5}, 4, spec)
    stock = request_of(None, 9, spec)
    # Prefill of 3 of 9 tokens; 2 prompt and 3 generated tokens; one generated token.
    state.begin_step([stock, sampled, stock], np.array([3, 5, 1]), np.array([0, 2, 11]))
    logits = hostile_logits(12, 16, seed=3)
    weights, ids = run(state, torch.from_numpy(logits), layer_row=0)
    stock_weights, stock_ids = stock_choice(_clean(torch.from_numpy(logits)), 4)
    unrouted = [0, 1, 2, 3, 4, 8, 9, 10, 11]  # the last three are padding
    assert ids[unrouted, :4].tolist() == stock_ids[unrouted].tolist()
    assert weights[unrouted, :4].tolist() == stock_weights[unrouted].tolist()
    assert (ids[:, 4:] == ids[:, :1]).all()
    assert (weights[:, 4:] == 0).all()
    assert ids[5:8, :4].tolist() != stock_ids[5:8].tolist()
    counts = np.bincount(ids[:9, :4].reshape(-1), minlength=16)
    assert state.assignments.tolist() == [counts.tolist(), [0] * 16]


def test_nothing_is_counted_or_steered_outside_a_step() -> None:
    spec = spec_of(16, 4)
    request = request_of({"mode": "uniform", "seed": 1, "scope": "all"}, 0, spec)
    state = state_of(spec, 4, 1, RouterRule())
    state.begin_step([request], np.array([4]), np.array([0]))
    state.end_step()
    logits = hostile_logits(4, 16, seed=4)
    _, ids = run(state, torch.from_numpy(logits), layer_row=0)
    assert ids.tolist() == stock_choice(_clean(torch.from_numpy(logits)), 4)[1].tolist()
    assert state.assignments.sum() == 0


def test_counts_add_up_over_launches() -> None:
    spec = spec_of(16, 4)
    request = request_of({"mode": "uniform", "seed": 1, "scope": "all"}, 0, spec)
    state = state_of(spec, 4, 1, RouterRule())
    state.begin_step([request], np.array([4]), np.array([0]))
    logits = torch.from_numpy(hostile_logits(4, 16, seed=5))
    run(state, logits, layer_row=0)
    once = state.assignments.copy()
    run(state, logits, layer_row=0)
    assert once.sum() == 16
    assert state.assignments.tolist() == (2 * once).tolist()


@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a GPU")
def test_captured_launch_follows_the_next_step() -> None:
    spec = spec_of(16, 4)
    request = request_of({"mode": "sample", "seed": 1, "scope": "all"}, 0, spec)
    state = state_of(spec, 4, 1, RouterRule())
    state.begin_step([request], np.array([4]), np.array([0]))
    logits = torch.from_numpy(hostile_logits(4, 16, seed=6))
    stock = [torch.from_numpy(a).to(DEVICE) for a in stock_choice(_clean(logits), 4)]
    weights, ids = (torch.empty_like(a) for a in stock)
    arrays = [torch.from_numpy(a).to(DEVICE) for a in state.kernel_arrays()]
    arguments: list[Any] = [logits.to(DEVICE), *stock, weights, ids, 0, *arrays]
    route_triton(*arguments)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        route_triton(*arguments)

    state.begin_step([request], np.array([3]), np.array([500]))
    for on_device, array in zip(arrays, state.kernel_arrays(), strict=True):
        on_device.copy_(torch.from_numpy(array))
    graph.replay()
    replayed = ids.tolist()
    assert replayed == run(state, logits, layer_row=0)[1].tolist()
    assert arrays[-1].cpu().tolist() == state.assignments.tolist()
