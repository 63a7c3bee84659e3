"""How the end of a stream is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.metrics import CountedStream


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
