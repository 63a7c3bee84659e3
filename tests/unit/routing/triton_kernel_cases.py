"""The Triton kernel's own cases; run by `test_triton_kernel.py`, in its own process.

On a GPU where there is one, else in Triton's interpreter, which has to be chosen before
triton is first imported.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from routing.bench.gpu import our_router, torch_router
from routing.gpu.noise import gumbel as gpu_gumbel
from routing.gpu.noise import words as gpu_words
from routing.reference.noise import gumbel, philox4x32
from routing.reference.rule import RouterRule
from tests.shared.kernels import (
    DEVICE,
    assignments,
    backend_of,
    native_choice,
    request_of,
    run,
    spec_of,
)

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


@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a GPU")
def test_captured_launch_follows_the_next_step() -> None:
    spec = spec_of(16, 4)
    request = request_of({"mode": "sample", "seed": 1, "scope": "all"}, 0, spec)
    backend = backend_of(spec, 4, 1, RouterRule())
    backend.begin_step([request], np.array([4]), np.array([0]))
    logits = np.random.default_rng(6).normal(0, 1, (4, 16)).astype(np.float32)
    weights, ids = (torch.from_numpy(array).to(DEVICE) for array in native_choice(logits, 4))
    on_device = torch.from_numpy(logits).to(DEVICE)
    backend.route(on_device, weights, ids, 0)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _, chosen = backend.route(on_device, weights, ids, 0)

    backend.begin_step([request], np.array([3]), np.array([500]))
    before = assignments(backend)
    graph.replay()
    replayed = chosen.tolist()
    assert (assignments(backend) - before).sum() == 3 * 4
    assert replayed == run(backend, logits)[1].tolist()
