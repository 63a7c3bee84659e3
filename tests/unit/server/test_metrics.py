"""What is published of experts, and how the end of a stream is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from routing.counts import Counts
from routing.engine.counts import EngineCounts, WorkerCounts
from routing.spec import RouterSpec
from server.metrics import CountedStream, ExpertLoad


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


@pytest.mark.parametrize(
    ("level", "series"),
    [("full", {("3", "0"), ("3", "1")}), ("layer", {("3", "all")}), ("off", set())],
)
def test_expert_counts_are_published_once_enough_tokens_came(
    level: str, series: set[tuple[str, str]]
) -> None:
    counts = Counts.on(bytearray(Counts.num_bytes(1, 2)), 1, 2)
    spec = RouterSpec(layers=(3,), num_experts=2, top_k=1, max_top_k=1)
    load = ExpertLoad(spec, EngineCounts([WorkerCounts((3,), counts)]), "m", level, min_tokens=10)

    def published() -> tuple[float, float]:
        assignments, tokens = load.collect()
        labels = {(s.labels["layer"], s.labels["expert"]) for s in assignments.samples}
        assert labels == series
        return sum(s.value for s in assignments.samples), sum(s.value for s in tokens.samples)

    def routed(num_tokens: int) -> None:
        counts.routed_tokens[0, 1] += num_tokens
        counts.assignments[0, 1] += num_tokens

    seen = [published()]
    for num_tokens in (9, 1, 9, 30):
        routed(num_tokens)
        seen.append(published())
    shown = 0 if level == "off" else 1
    assert seen == [(n * shown, n) for n in (0, 0, 10, 10, 49)]
