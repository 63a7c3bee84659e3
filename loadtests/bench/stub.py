"""A server that only streams: how many tokens a second the load tool can read on this machine.

It has as little to do as a server can, and takes its share of the cores as one does.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from loadtests.processes import SPAWN, beside

_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


@contextmanager
def stub() -> Iterator[str]:
    """Its URL. It answers every POST with as many chunks as `max_completion_tokens` says."""
    ours, theirs = SPAWN.Pipe()
    with beside(_work, theirs):
        yield f"http://127.0.0.1:{ours.recv()}"


def _work(connection: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await _until_blank_line(reader):
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        body = json.loads(await reader.readexactly(int(length[1])) if length else b"{}")
        tokens = body.get("max_completion_tokens", 0)
        writer.write(_HEAD)
        for _ in range(tokens):
            writer.write(_chunk({"choices": [{"index": 0, "delta": {"content": " token"}}]}))
            await writer.drain()
            await asyncio.sleep(0)  # the others' turn
        writer.write(_chunk({"choices": [], "usage": {"completion_tokens": tokens}}))
        writer.write(b"0\r\n\r\n")
    writer.close()


async def _until_blank_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _chunk(event: dict[str, Any]) -> bytes:
    frame = {"id": "stub", "object": "chat.completion.chunk", "created": 0, "model": "stub"}
    data = b"data: " + json.dumps({**frame, **event}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)
