"""Connections of clients that are slow, stop, or never began."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from server.http_protocol import HttpProtocol

HEAD = b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n%b\r\n"
OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


class Impatient(HttpProtocol):
    """Leaves a client after a tenth of a second."""

    seconds = 0.1


class App:
    """Answers with the body; /slow takes ten times the patience, /endless never ends."""

    def __init__(self) -> None:
        self.left = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        if scope["path"] == "/slow":
            await asyncio.sleep(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/endless":
            gone = asyncio.ensure_future(receive())
            while not gone.done():
                await send({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
            self.left.set()
            return
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[App, int]]:
    app = App()
    config = uvicorn.Config(app, http=Impatient, lifespan="off", log_level="error")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield app, listening.getsockname()[1]
        server.should_exit = True
        thread.join(60)


def is_left(connection: socket.socket) -> bool:
    """Whether the server closes the connection, having sent nothing."""
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HT",
        HEAD % (b"", b""),
        HEAD % (b"", b"") + b"abc",
        HEAD % (b"", OFFER) + b"abc",
        HEAD % (b"", b"") + b"abcd" + b"POST",
    ],
)
def test_a_request_that_does_not_end_is_not_awaited_for_ever(
    served: tuple[App, int], sent: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", served[1]), timeout=60) as connection:
        connection.sendall(sent)
        if b"abcd" in sent:
            assert connection.recv(1000).endswith(b"abcd\r\n0\r\n\r\n")
        assert is_left(connection)


@pytest.mark.parametrize("offer", [b"", OFFER])
def test_an_answer_may_take_longer_than_a_client(served: tuple[App, int], offer: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served[1]), timeout=60) as connection:
        for _ in range(2):  # the connection goes on
            connection.sendall(HEAD % (b"slow", offer) + b"abcd")
            answer = b""
            while not answer.endswith(b"0\r\n\r\n"):
                answer += connection.recv(1000)
            assert b"\r\nabcd\r\n" in answer


@pytest.mark.parametrize("offer", [b"", OFFER])
def test_who_does_not_read_the_answer_is_left(served: tuple[App, int], offer: bytes) -> None:
    app, port = served
    app.left.clear()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(HEAD % (b"endless", offer) + b"abcd")
        assert app.left.wait(60)
