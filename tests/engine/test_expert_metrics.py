"""What is counted of tokens and experts, through a real engine: exact to the unit."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from routing.trace import Trace
from tests.conftest import FreshPrompt
from tests.shared.servers import HTTP, MODEL, Server

NUM_LAYERS, NUM_EXPERTS, TOP_K = 8, 16, 4
SAMPLE = {"mode": "sample", "temperature": 1.5, "seed": 7}


class Scrape(NamedTuple):
    """Of one page: per layer, or by mode, preset and phase."""

    assignments: list[float]
    active: list[float]
    steps: list[float]
    entropy: list[float]
    tokens: dict[tuple[str, ...], float]
    computed: dict[tuple[str, ...], float]
    native: dict[tuple[str, ...], float]


def scrape(server: Server) -> Scrape:
    def by(name: str, *labels: str) -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for sample in server.all_samples(name):
            key = tuple(sample.labels[label] for label in labels)
            found[key] = found.get(key, 0) + sample.value
        return found

    def layers(name: str) -> list[float]:
        found = by(name, "layer")
        return [found[str(layer),] for layer in range(NUM_LAYERS)]

    return Scrape(
        layers("galton_expert_assignments_total"),
        layers("galton_active_experts_sum"),
        layers("galton_active_experts_count"),
        layers("galton_router_entropy_nats_sum"),
        by("galton_routed_tokens_total", "mode", "preset", "phase"),
        by("galton_policy_assignments_total", "mode", "preset"),
        by("galton_native_assignments_total", "mode", "preset"),
    )


def more(before: dict[Any, float], after: dict[Any, float]) -> dict[Any, float]:
    """What has grown, and by how much."""
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    return {key: value for key, value in grown.items() if value}


def test_tokens_and_experts_are_counted_once(server: Server, fresh_prompt: FreshPrompt) -> None:
    before = scrape(server)
    # 37 prompt tokens and 10 generated: the last one generated is never routed.
    server.complete(fresh_prompt(37), SAMPLE, max_tokens=10)
    between = scrape(server)
    assert more(before.tokens, between.tokens) == {
        ("top_k", "", "prefill"): 37,
        ("sample", "", "decode"): 9,
    }
    grown = np.subtract(between.assignments, before.assignments)
    assert grown.tolist() == [46 * TOP_K] * NUM_LAYERS

    policy = {"mode": "sample", "top_k": 2, "seed": 1, "scope": "all"}
    server.complete(fresh_prompt(20), policy, max_tokens=6)
    after = scrape(server)
    assert more(between.tokens, after.tokens) == {
        ("sample", "", "prefill"): 20,
        ("sample", "", "decode"): 5,
    }
    grown = np.subtract(after.assignments, between.assignments)
    assert grown.tolist() == [25 * 2] * NUM_LAYERS
    assert more(between.computed, after.computed) == {("sample", ""): 25 * 2 * NUM_LAYERS}
    assert more(between.native, after.native) == {("sample", ""): 25 * TOP_K * NUM_LAYERS}


def test_presets_have_counts_of_their_own(server: Server, fresh_prompt: FreshPrompt) -> None:
    before = scrape(server)
    prompt = fresh_prompt(40)
    routing = server.complete(prompt, model=f"{MODEL}-two", max_tokens=11)["routing"]
    assert routing["preset"] == "two"
    after = scrape(server)
    pair = ("top_k", "two")
    # Its scope is `decode`.
    assert more(before.tokens, after.tokens) == {
        ("top_k", "", "prefill"): 40,
        (*pair, "decode"): 10,
    }
    assert more(before.computed, after.computed)[pair] == 10 * 2 * NUM_LAYERS
    assert more(before.native, after.native)[pair] == 10 * TOP_K * NUM_LAYERS


def test_a_native_preset_counts_as_itself(server: Server, fresh_prompt: FreshPrompt) -> None:
    before = scrape(server)
    server.complete(fresh_prompt(40), model=f"{MODEL}-own", max_tokens=11)
    after = scrape(server)
    assert more(before.tokens, after.tokens) == {
        ("top_k", "own", "prefill"): 40,
        ("top_k", "own", "decode"): 10,
    }


def test_active_experts_and_entropies_are_the_traces(
    server: Server, fresh_prompt: FreshPrompt
) -> None:
    before = scrape(server)
    policy = {"mode": "top_p", "top_p": 0.5, "max_experts": 8, "scope": "all"}
    answer = server.complete(
        fresh_prompt(40), {**policy, "include": ["trace", "stats"]}, max_tokens=10
    )
    after = scrape(server)
    trace = Trace.decode(answer["routing"]["trace"][0]["data"])
    # Ten steps: the prompt, and nine of one token.
    steps = [trace.topk_ids[:40], *trace.topk_ids[40:, None]]
    active = [
        sum(len({*step[:, layer].flat} - {-1}) for step in steps) for layer in range(NUM_LAYERS)
    ]
    assert np.subtract(after.active, before.active).tolist() == active
    assert np.subtract(after.steps, before.steps).tolist() == [len(steps)] * NUM_LAYERS
    (told,) = answer["routing"]["stats"]
    entropies = [
        sum(part["tokens"] * part["layers"][layer]["entropy_nats"] for part in parts_of(told))
        for layer in range(NUM_LAYERS)
    ]
    np.testing.assert_allclose(
        np.subtract(after.entropy, before.entropy), entropies, rtol=0, atol=49e-6
    )


def parts_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [told["prompt"], told["generated"]]


def test_cached_tokens_are_not_counted(server: Server, fresh_prompt: FreshPrompt) -> None:
    prompt = fresh_prompt(70)
    server.complete(prompt, max_tokens=1)
    before = scrape(server)
    usage = server.complete(prompt, max_tokens=1)["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached == 64
    grown = more(before.tokens, scrape(server).tokens)
    assert grown == {("top_k", "", "prefill"): 70 - cached}


def test_what_is_computed_again_is_counted_apart(
    small_server: Server, fresh_prompt: FreshPrompt
) -> None:
    """More requests than the cache holds, in chunks: some are preempted, and begin anew."""
    requests = [(fresh_prompt(120), SAMPLE if i % 2 else None) for i in range(12)]
    before, preempted = scrape(small_server), small_server.metric("vllm:num_preemptions_total")
    small_server.together(requests, max_tokens=60)
    after = scrape(small_server)
    assert small_server.metric("vllm:num_preemptions_total") > preempted
    by_phase: dict[str, float] = {}
    for (_, _, phase), count in more(before.tokens, after.tokens).items():
        by_phase[phase] = by_phase.get(phase, 0) + count
    assert by_phase["prefill"] == 12 * 120
    assert by_phase["decode"] == 12 * 59
    assert by_phase["recompute"] > 0
    tokens = sum(by_phase.values())
    assert np.subtract(after.assignments, before.assignments).tolist() == [tokens * TOP_K] * 8


def test_statistics_are_the_metrics(server: Server, fresh_prompt: FreshPrompt) -> None:
    def stats(**query: str) -> httpx.Response:
        return HTTP.get(f"{server.url}/v1/routing/stats", params=query)

    before, mark = scrape(server), stats().json()["mark"]
    server.complete(fresh_prompt(30), {**SAMPLE, "scope": "all"}, max_tokens=5)
    told, after = stats(since=mark).json(), scrape(server)
    assert told["since"] == mark
    assert told["steps"] == 5
    assert [sum(layer["assignments"]) for layer in told["layers"]] == [34 * TOP_K] * NUM_LAYERS
    assert [layer["active_experts"] * 5 for layer in told["layers"]] == pytest.approx(
        np.subtract(after.active, before.active)
    )
    assert [layer["router_entropy_nats"] * 34 for layer in told["layers"]] == pytest.approx(
        np.subtract(after.entropy, before.entropy), abs=34e-6
    )
    (policy,) = told["policies"]
    assert policy == {
        "mode": "sample",
        "preset": "",
        "tokens": {"prefill": 30, "decode": 4, "recompute": 0},
        "assignments": 34 * TOP_K * NUM_LAYERS,
        "native_assignments": 34 * TOP_K * NUM_LAYERS,
    }
    unknown = stats(since="yesterday")
    assert unknown.status_code == 404
    assert "since must be the mark" in unknown.json()["error"]["message"]


def test_layers_tell_of_the_last_minute(server: Server, fresh_prompt: FreshPrompt) -> None:
    one = {"mode": "top_k", "top_k": 1, "scope": "all"}
    server.complete(fresh_prompt(40), one, max_tokens=5)
    for name, low, high in (
        ("galton_layer_imbalance_ratio", 1, NUM_EXPERTS),
        ("galton_layer_load_entropy_ratio", 0, 1),
    ):
        values = [sample.value for sample in server.all_samples(name)]
        assert len(values) == NUM_LAYERS
        assert all(low <= value <= high for value in values)
    (routers,) = server.all_samples("galton_routers_info")
    assert routers.labels == {
        "model_name": MODEL,
        "layers": "8",
        "experts": "16",
        "top_k": "4",
        "max_experts_per_token": "8",
    }
