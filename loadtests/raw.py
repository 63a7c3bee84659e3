"""Requests as bytes: for clients that leave, or break rules, and for load that costs its sender
little.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any


def address(url: str) -> tuple[str, int]:
    """Host and port of a server."""
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


def post(
    path: str, body: bytes | Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> bytes:
    """A request; headers: more of them, or others."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {
        "Host": "x",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content


async def ask(url: str, sent: bytes) -> bytes:
    """All that comes back on a connection of its own, which the request asks to be closed.

    Raises OSError.
    """
    reader, writer = await asyncio.open_connection(*address(url))
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.transport.abort()
