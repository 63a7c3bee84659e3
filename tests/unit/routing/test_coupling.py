"""Shared noise: one draw for a request's tokens, one seed for a window's requests.

Each choice keeps its own distribution; choices under the same noise agree.
"""

from __future__ import annotations

import numpy as np
import pytest

from routing.backend import begin_batch
from routing.policy import parse_policy
from routing.policy.compiled import compile_policy
from routing.policy.seed import SeedWindows
from routing.reference.rule import RouterRule
from routing.state import RoutedRequest
from tests.shared.frequencies import assert_distribution, softmax
from tests.shared.kernels import Floats, Ints, backend_of, request_of, run, spec_of

NUM_SEEDS, CHUNK = 50_000, 5_000


def first_choices(logits: Floats, temperature: float, noise: str) -> Ints:
    """[NUM_SEEDS, N] first choices of a request's N tokens under every seed; logits: [N, E]."""
    num_tokens, num_experts = logits.shape
    spec = spec_of(num_experts, 1)
    routing = {"mode": "sample", "temperature": temperature, "noise": noise, "scope": "all"}
    policy = compile_policy(parse_policy(routing, spec), spec)
    backend = backend_of(spec, CHUNK * num_tokens, CHUNK, RouterRule())
    rows, chosen = np.tile(logits, (CHUNK, 1)), []
    for start in range(0, NUM_SEEDS, CHUNK):
        seeds = range(start, start + CHUNK)
        requests = [RoutedRequest(policy.with_seed(seed), num_tokens) for seed in seeds]
        begin_batch(backend, requests, np.full(CHUNK, num_tokens), np.zeros(CHUNK, int))
        chosen.append(run(backend, rows)[1].reshape(CHUNK, num_tokens))
    return np.concatenate(chosen)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_each_token_has_its_own_distribution_and_agrees_with_the_others(temperature: float) -> None:
    """Agreement of two is at least (1 - TV) / (1 + TV), TV the total variation distance of their
    distributions: Daliri, Musco and Suresh, arXiv 2408.07978. Independent choices agree with
    probability sum(p q), far less.
    """
    logits = np.random.default_rng(1).normal(0, 1, (3, 16)).astype(np.float32)
    logits[1] = logits[0] + logits[1] / 4  # near the first
    p = np.stack([softmax(row / temperature) for row in logits])
    together = first_choices(logits, temperature, "request")
    apart = first_choices(logits, temperature, "token")
    for token in range(3):
        for chosen in (together, apart):
            counts = np.bincount(chosen[:, token], minlength=16)
            assert_distribution(counts, NUM_SEEDS, p[token])
    for a, b in ((0, 1), (0, 2)):
        distance = np.abs(p[a] - p[b]).sum() / 2
        agreed = (together[:, a] == together[:, b]).mean()
        by_chance = (p[a] * p[b]).sum()
        error = 5 / np.sqrt(4 * NUM_SEEDS)
        assert agreed >= (1 - distance) / (1 + distance) - error
        assert agreed > by_chance + error
        assert (apart[:, a] == apart[:, b]).mean() == pytest.approx(by_chance, abs=error)


@pytest.mark.parametrize("mode", ["sample", "uniform"])
def test_a_batch_under_one_seed_needs_fewer_experts(mode: str) -> None:
    """32 requests' tokens of a flat router, at different positions."""
    spec = spec_of(64, 8)
    logits = np.random.default_rng(2).normal(0, 0.5, (32, 64)).astype(np.float32)
    distinct = {}
    for noise, seeds in (("request", [7] * 32), ("token", [7] * 32), ("request", range(32))):
        backend = backend_of(spec, 32, 32, RouterRule())
        asked = [{"mode": mode, "seed": seed, "noise": noise, "scope": "all"} for seed in seeds]
        requests = [request_of(routing, 0, spec) for routing in asked]
        begin_batch(backend, requests, np.ones(32, int), np.arange(32) * 10)
        distinct[noise, len({*seeds})] = len({*run(backend, logits)[1].flat})
    assert distinct["request", 1] < 45
    assert distinct["token", 1] > 60
    assert distinct["request", 32] > 60


def test_a_window_is_one_seed_and_the_next_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("routing.policy.seed.time.monotonic", lambda: now)
    windows = SeedWindows(10)
    first = windows.seed()
    now = 1009.9
    assert windows.seed() == first
    assert windows.seed(3) not in (first, None)  # a preset's own
    now = 1010.0
    assert windows.seed() not in (first, None)
    assert SeedWindows(10).seed() != windows.seed()  # another server's
    assert SeedWindows(0).seed() is None
    assert windows.seed(0) is None
