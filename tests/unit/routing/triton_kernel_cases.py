"""The Triton kernel's own cases; run by `test_triton_kernel.py`, in its own process.

On a GPU where there is one, else in Triton's interpreter, which has to be chosen before
triton is first imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from routing.backend import begin_batch
from routing.bench.gpu import our_router, torch_router
from routing.cpu.backend import CpuBackend
from routing.gpu import begin as gpu_begin
from routing.gpu import route as gpu_route
from routing.gpu.backend import GpuBackend
from routing.gpu.noise import gumbel as gpu_gumbel
from routing.gpu.noise import words as gpu_words
from routing.reference.noise import gumbel, philox4x32
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.step import Step
from tests.shared.kernels import (
    DEVICE,
    IS_INTERPRETED,
    assignments,
    native_choice,
    request_of,
)
from tests.shared.traces import random_trace
from tests.unit.routing.test_kernel import MOST_ADJACENT, POLICIES, hostile_logits

OPTIONS = {"enable_fp_fusion": False}  # as the kernel is compiled


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


def test_benchmark_compares_routers_that_choose_the_same() -> None:
    logits = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    weights, ids = our_router(logits, "top_k", 8)()
    expected_weights, expected_ids = torch_router(logits, 8)
    assert ids.tolist() == expected_ids.tolist()
    torch.testing.assert_close(weights, expected_weights)


# --- steps, as an engine replays them ---------------------------------------------------------


def _policies(spec: RouterSpec) -> Iterator[dict[str, Any]]:
    """Those of test_kernel.py, with a trace of these layers."""
    for policy in POLICIES:
        if policy["mode"] == "replay":
            policy = {**policy, "trace": random_trace(spec, 90).encode_base64()}
        for scope in ("all", "decode"):
            yield {**policy, "seed": 2**62 + 1, "scope": scope}


def test_captured_layers_follow_every_step() -> None:
    """All layers, captured in one CUDA graph before the first step, and replayed for each: what
    they choose and count is what the CPU's kernel does. In the interpreter the launches are kept.
    """
    num_layers, num_steps = (4, 2) if IS_INTERPRETED else (48, 100)
    num_experts, top_k, num_tokens = (16, 4, 8) if IS_INTERPRETED else (128, 8, 160)
    spec = RouterSpec(tuple(range(num_layers)), num_experts, top_k, 10)
    requests = [request_of(policy, 40, spec) for policy in _policies(spec)]
    requests += [request_of(None, 40, spec)] * 10
    sizes = ([RouterRule()] * num_layers, num_tokens, len(requests))
    ours, theirs = GpuBackend(spec, *sizes), CpuBackend(spec, *sizes)
    logits = torch.zeros(num_layers, num_tokens, num_experts, device=DEVICE)
    native_weights = torch.zeros(num_layers, num_tokens, top_k, device=DEVICE)
    native_ids = native_weights.int()
    inputs = logits, native_weights, native_ids

    def layers() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [
            ours.route(logits[i], native_weights[i], native_ids[i], i, spec.max_top_k)
            for i in range(num_layers)
        ]

    routed, replay = _captured(layers)
    places = [tensor.data_ptr() for tensor in ours.step]
    rng = np.random.default_rng(0)
    adjacent = 0
    for _ in range(num_steps):
        batch = rng.permutation(len(requests))[: rng.integers(1, len(requests) + 1)]
        scheduled = rng.integers(1, max(2, num_tokens // len(batch)), len(batch))
        scheduled = scheduled[scheduled.cumsum() <= num_tokens]
        computed = rng.integers(0, 80, len(scheduled))
        step = [requests[i] for i in batch[: len(scheduled)]], scheduled, computed
        begin_batch(ours, *step)
        begin_batch(theirs, *step)
        for i in range(num_layers):
            drawn = hostile_logits(num_tokens, num_experts, int(rng.integers(2**32)))
            for tensor, array in zip(inputs, (drawn, *native_choice(drawn, top_k)), strict=True):
                tensor[i].copy_(torch.from_numpy(array))
        replay()
        for i, (weights, ids) in enumerate(routed):
            expected_weights, expected_ids = theirs.route(
                logits[i].cpu(), native_weights[i].cpu(), native_ids[i].cpu(), i, spec.max_top_k
            )
            same = (ids.cpu() == expected_ids).all(dim=1)
            adjacent += int((~same).sum())
            torch.testing.assert_close(
                weights.cpu()[same], expected_weights[same], rtol=1e-5, atol=1e-37
            )
    # What a graph has captured must stay where it is.
    assert [tensor.data_ptr() for tensor in ours.step] == places
    assert adjacent <= (MOST_ADJACENT if DEVICE == "cuda" else 0)
    moved = np.abs(assignments(ours) - assignments(theirs)).sum()
    assert moved <= 2 * spec.max_top_k * adjacent
    assert assignments(ours).sum() > 0


Routed = list[tuple[torch.Tensor, torch.Tensor]]


def _captured(call: Callable[[], Routed]) -> tuple[Routed, Callable[[], None]]:
    """What was routed last, and what routes again: the graph of the call, where there is a GPU."""
    routed = call()  # compiles
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            routed = call()
        return routed, graph.replay

    recorder = _Recorder(gpu_route.route_kernel)
    with mock.patch.object(gpu_route, "route_kernel", recorder):
        routed = call()
    return routed, recorder.replay


class _Recorder:
    """A kernel that remembers how it was launched, as a CUDA graph does: with which memory."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.launches: list[tuple[Any, Any, Any]] = []

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **kwargs: Any) -> None:
            self.launches.append((grid, args, kwargs))
            self.kernel[grid](*args, **kwargs)

        return launch

    def replay(self) -> None:
        for grid, args, kwargs in self.launches:
            self.kernel[grid](*args, **kwargs)


class _OnGpu:
    """A kernel that only sees to it that what it gets lies on a GPU."""

    def __init__(self) -> None:
        self.num_launches = 0

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **_: Any) -> None:
            self.num_launches += 1
            tensors = [a for a in tree_leaves(args) if isinstance(a, torch.Tensor)]
            assert {tensor.device.type for tensor in tensors} == {"cuda"}

        return launch


def test_a_step_reads_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tensors without content, as on a GPU: whoever reads one, or mixes devices, is told off."""
    spec = RouterSpec((0, 1), 16, 4, 6)
    backend = GpuBackend(spec, [RouterRule()] * 2, 8, 2)
    kernel = _OnGpu()
    monkeypatch.setattr(gpu_route, "route_kernel", kernel)
    monkeypatch.setattr(gpu_begin, "begin_kernel", kernel)
    with FakeTensorMode():

        def on_gpu(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device="cuda")

        backend.device = torch.device("cuda")
        backend.step = Step(*(on_gpu(*t.shape, dtype=t.dtype) for t in backend.step))
        backend._counted = on_gpu(*backend._counted.shape, dtype=torch.uint8)
        backend._copy = lambda array, out=None: on_gpu(len(array), dtype=torch.int64)  # type: ignore[method-assign]
        slots, positions = (on_gpu(2, dtype=torch.int64), on_gpu(8, dtype=torch.int64))
        backend.begin_step(slots, on_gpu(3, dtype=torch.int32), positions)
        logits = on_gpu(8, 16, dtype=torch.bfloat16)
        native = on_gpu(8, 4, dtype=torch.float32), on_gpu(8, 4, dtype=torch.int32)
        for layer_index in range(2):
            weights, ids = backend.route(logits, *native, layer_index, 5)
            assert weights.shape == ids.shape == (8, 5)
        assert backend.counted().device.type == "cuda"
        assert backend.recorded(np.arange(3)).topk_ids.shape == (3, 2, 6)
        backend.end_step()
    assert kernel.num_launches == 3
