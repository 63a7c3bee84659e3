"""What is published of experts, as metrics and as JSON; how the end of a stream is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from routing.counts import Counts, Groups
from routing.engine.counts import EngineCounts, WorkerCounts
from routing.spec import RouterSpec
from server.exposition import METRICS_PATH, SERVING_PATH, Pages
from server.load import Load
from server.metrics import CountedStream, ExpertLoad
from server.names import (
    EXPERT_ASSIGNMENTS,
    LAYER_IMBALANCE,
    LAYER_LOAD_ENTROPY,
    NAMES,
    REQUEST_SECONDS,
    REQUESTS,
    ROUTED_TOKENS,
)
from server.statistics import MAX_MARKS, Marks


@pytest.mark.parametrize(
    ("events_sent", "outcome"),
    [
        (['data: {"id": 1}\n\n', "data: [DONE]\n\n"], "ok"),
        (['data: {"id": 1}\n\n', 'data: {"error": {}}\n\n', "data: [DONE]\n\n"], "error"),
        (["event: message_start\n\n", "event: error\n\n"], "error"),
        (['data: {"id": 1}\n\n', RuntimeError("the engine died")], "error"),
        (['data: {"id": 1}\n\n', asyncio.CancelledError()], "abort"),
    ],
)
def test_end_of_a_stream_is_seen_in_it(events_sent: list[Any], outcome: str) -> None:
    async def sent() -> AsyncIterator[str]:
        for event in events_sent:
            if isinstance(event, BaseException):
                raise event
            yield event

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(_: Any) -> None:
        pass

    counted: list[str] = []
    stream = CountedStream(sent(), counted.append, {})
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
    with contextlib.suppress(BaseException):
        asyncio.run(stream(scope, receive, send))
    assert counted == [outcome]


SPEC = RouterSpec(layers=(3,), num_experts=2, top_k=1, max_top_k=1)


def counts_of(spec: RouterSpec) -> Counts:
    size = len(spec.layers), spec.num_experts
    return Counts.on(bytearray(Counts.num_bytes(*size)), *size)


def load_of(spec: RouterSpec, counts: Counts, **options: Any) -> Load:
    return Load(spec, EngineCounts([WorkerCounts(spec.layers, counts)]), Groups(), **options)


def page_of(load: Load, level: str = "full", accept: str = "") -> str:
    pages = Pages(ExpertLoad(load, "m", level), CollectorRegistry(), kept_seconds=0)
    return pages.read(METRICS_PATH, accept)[0].decode()


def samples(load: Load, level: str = "full") -> dict[str, dict[tuple[str, ...], float]]:
    """By name and labels, but for the model's."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(page_of(load, level)):
        for sample in family.samples:
            assert sample.labels["model_name"] == "m"
            wanted = next(n for n in NAMES if sample.name.startswith(n.name)).labels
            labels = tuple(sample.labels[label] for label in wanted if label != "model_name")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.mark.parametrize(
    ("level", "series"),
    [("full", {("3", "0"), ("3", "1")}), ("layer", {("3", "all")}), ("off", set())],
)
def test_expert_counts_are_published_once_enough_tokens_came(
    level: str, series: set[tuple[str, str]]
) -> None:
    counts = counts_of(SPEC)
    load = load_of(SPEC, counts, min_tokens=10)

    def published() -> tuple[float, float]:
        found = samples(load, level)
        assignments = found.get(EXPERT_ASSIGNMENTS.name, {})
        assert set(assignments) == series
        return sum(assignments.values()), sum(found[ROUTED_TOKENS.name].values())

    def routed(num_tokens: int) -> None:
        counts.routed_tokens[0, 1] += num_tokens
        counts.assignments[0, 1] += num_tokens

    seen = [published()]
    for num_tokens in (9, 1, 9, 30):
        routed(num_tokens)
        seen.append(published())
    shown = 0 if level == "off" else 1
    assert seen == [(n * shown, n) for n in (0, 0, 10, 10, 49)]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_every_metric_is_exported_under_its_name_and_labels(accept: str) -> None:
    parse = openmetrics.text_string_to_metric_families if accept else text_string_to_metric_families
    counts = counts_of(SPEC)
    counts.assignments[:] = 1
    found = {
        (family.name, family.type): set(sample.labels)
        for family in parse(page_of(load_of(SPEC, counts), "full", accept))
        for sample in family.samples
    }
    wanted = {
        (name.name.removesuffix("_total"), name.type): set(name.labels)
        for name in NAMES
        if name not in (REQUESTS, REQUEST_SECONDS)  # of `RequestCounter`
    }
    # A layer without load has no gauges.
    gauges = {(name.name, "gauge") for name in (LAYER_IMBALANCE, LAYER_LOAD_ENTROPY)}
    assert set(wanted) - set(found) <= gauges
    assert found == {key: labels for key, labels in wanted.items() if key in found}


def test_labels_are_escaped() -> None:
    name = 'a "b"\\\n\u2028c'
    load = load_of(SPEC, counts_of(SPEC))
    pages = Pages(ExpertLoad(load, name, "full"), CollectorRegistry(), kept_seconds=0)
    page = pages.read(METRICS_PATH, None)[0].decode()
    models = {
        sample.labels["model_name"]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert models == {name}


def test_a_page_is_kept_for_a_while() -> None:
    now = 0.0
    counts = counts_of(SPEC)
    experts = ExpertLoad(load_of(SPEC, counts), "m", "full")
    registry = CollectorRegistry()
    written = Counter("written", "Pages.", registry=registry)
    pages = Pages(experts, registry, kept_seconds=1, clock=lambda: now)

    def seen(path: str, accept: str = "") -> list[str]:
        written.inc()
        counts.assignments[:] += 1
        page = pages.read(path, accept)[0].decode()
        return [line for line in page.splitlines() if line.startswith(("written_t", "galton_ex"))]

    expert = 'galton_expert_assignments_total{expert="%d",layer="3",model_name="m"} %d'
    assert seen(METRICS_PATH) == ["written_total 1.0", expert % (0, 1), expert % (1, 1)]
    now = 0.9
    assert seen(METRICS_PATH) == ["written_total 1.0", expert % (0, 1), expert % (1, 1)]
    assert seen(SERVING_PATH) == ["written_total 3.0"]
    assert seen(METRICS_PATH, "application/openmetrics-text")[0] == "written_total 4.0"
    now = 1.0
    assert seen(METRICS_PATH) == ["written_total 5.0", expert % (0, 5), expert % (1, 5)]
    assert seen(SERVING_PATH) == ["written_total 3.0"]


def test_what_a_policy_saved() -> None:
    spec = RouterSpec(layers=(0, 1, 2), num_experts=8, top_k=4, max_top_k=8)
    counts = counts_of(spec)
    load = load_of(spec, counts)
    group = load.groups.number("top_k", "fast")
    counts.routed_tokens[group] = [10, 20, 5]
    counts.group_assignments[group] = 35 * 3 * 2  # half the experts, in three layers
    found = samples(load)
    pair = ("top_k", "fast")
    assert found["galton_routed_tokens_total"][(*pair, "recompute")] == 5
    assert found["galton_policy_assignments_total"][pair] == 210
    assert found["galton_native_assignments_total"][pair] == 420
    assert found["galton_routers_info"] == {("3", "8", "4", "8"): 1}


def test_layers_are_judged_by_the_last_minute() -> None:
    now = 0.0
    counts = counts_of(SPEC)
    load = load_of(SPEC, counts, clock=lambda: now)

    def ratios() -> list[float]:
        found = samples(load)
        return [next(iter(found.get(n.name, {}).values()), -1) for n in (LAYER_IMBALANCE,)]

    assert ratios() == [-1]
    counts.assignments[:] = [[30, 10]]
    for now in (10.0, 20.0, 60.0):
        assert ratios() == [1.5], now  # since the start
    counts.assignments[0, 1] += 20
    now = 65.0
    assert ratios() == [1]  # still all: the one before is not a minute old
    for now in (80.0, 100.0, 110.0):
        assert ratios() == [2], now  # the last twenty
    now = 130.0
    assert ratios() == [-1]
    counts.assignments[0, 0] += 1
    now = 1000.0  # nobody asked for a quarter of an hour
    assert ratios() == [2]


def test_statistics_since_a_mark_disturb_nobody() -> None:
    spec = RouterSpec(layers=(0, 2), num_experts=4, top_k=2, max_top_k=4)
    counts = counts_of(spec)
    load, marks = load_of(spec, counts), Marks()
    counts.assignments[:] = [[3, 1, 0, 0], [1, 1, 1, 1]]
    counts.router_entropy[:] = [1.0, 2.0]
    counts.active_experts[:] = [2, 4]
    counts.num_steps[:] = 1
    counts.routed_tokens[0] = [2, 0, 0]
    counts.group_assignments[0] = 8
    first = marks.tell(load, None)
    assert (first.steps, first.since) == (1, None)
    assert [layer.layer for layer in first.layers] == [0, 2]
    assert [layer.imbalance_ratio for layer in first.layers] == [3, 1]
    assert [layer.router_entropy_nats for layer in first.layers] == [0.5, 1]
    assert [layer.active_experts for layer in first.layers] == [2, 4]
    (policy,) = first.policies
    assert (policy.mode, policy.preset, policy.tokens["prefill"]) == ("top_k", "", 2)
    assert (policy.assignments, policy.native_assignments) == (8, 8)

    nothing = marks.tell(load, first.mark)
    assert nothing.since == first.mark
    assert nothing.layers[0].assignments == [0] * 4
    assert nothing.layers[0].imbalance_ratio is None
    assert nothing.policies == []
    counts.assignments[0] += 1
    assert marks.tell(load, first.mark).layers[0].assignments == [1] * 4
    assert marks.tell(load, None).layers[0].assignments == [4, 2, 1, 1]
    for _ in range(MAX_MARKS):
        marks.tell(load, None)
    with pytest.raises(KeyError):
        marks.tell(load, first.mark)
