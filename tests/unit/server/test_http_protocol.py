"""Connections of clients that are slow, stop, or never began."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from server.http_protocol import HttpProtocol, Patience

HEAD = b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n%b\r\n"
OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


seen: list[Patience] = []  # every connection's protocol, also the one it is handed to


class App:
    """Answers with the body; /waits with whether the server still waits for this request;
    /endless never ends.
    """

    def __init__(self) -> None:
        self.left = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        if scope["path"] == "/waits":
            now = [
                p for p in seen if p.transport.get_protocol() is p and p.client == scope["client"]
            ]
            body = str([p._waiting is not None for p in now]).encode()
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
    config = uvicorn.Config(app, http=HttpProtocol, lifespan="off", log_level="error")
    connection_made = Patience.connection_made

    def noted(self: Patience, transport: Any) -> None:
        seen.append(self)
        connection_made(self, transport)

    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listening:
        patch.setattr(Patience, "connection_made", noted)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield app, listening.getsockname()[1]
        server.should_exit = True
        thread.join(60)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, clients are left after a tenth of a second."""

    def become_impatient() -> None:
        monkeypatch.setattr(HttpProtocol, "seconds", 0.1)
        for protocol in seen:
            protocol.seconds = 0.1

    return become_impatient


def answer_on(connection: socket.socket) -> bytes:
    """One answer, which comes in chunks."""
    answer = b""
    while not answer.endswith(b"0\r\n\r\n"):
        piece = connection.recv(1000)
        assert piece, "the server closed the connection"
        answer += piece
    return answer


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
    ],
)
def test_a_request_that_does_not_end_is_not_awaited_for_ever(
    served: tuple[App, int], impatient: Callable[[], None], sent: bytes
) -> None:
    impatient()
    with socket.create_connection(("127.0.0.1", served[1]), timeout=60) as connection:
        with suppress(ConnectionError):  # so slow a machine that it is left already
            connection.sendall(sent)
        assert is_left(connection)


def test_nor_is_one_that_follows_another(
    served: tuple[App, int], impatient: Callable[[], None]
) -> None:
    with socket.create_connection(("127.0.0.1", served[1]), timeout=60) as connection:
        connection.sendall(HEAD % (b"", b"") + b"abcd")
        assert b"abcd" in answer_on(connection)
        impatient()
        connection.sendall(b"POST")
        assert is_left(connection)


@pytest.mark.parametrize("offer", [b"", OFFER])
def test_an_answer_may_take_longer_than_a_client(served: tuple[App, int], offer: bytes) -> None:
    """While it is made, no clock runs."""
    with socket.create_connection(("127.0.0.1", served[1]), timeout=60) as connection:
        for _ in range(2):  # the connection goes on
            connection.sendall(HEAD % (b"waits", offer) + b"abcd")
            assert b"[False]" in answer_on(connection)


@pytest.mark.parametrize("offer", [b"", OFFER])
def test_who_does_not_read_the_answer_is_left(
    served: tuple[App, int], impatient: Callable[[], None], offer: bytes
) -> None:
    app, port = served
    app.left.clear()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(HEAD % (b"endless", offer) + b"abcd")
        assert connection.recv(1000)
        impatient()
        # The clock that runs already is the patient one. Who reads slowly is left before the end.
        with suppress(ConnectionResetError):
            for _ in range(1000):
                connection.recv(2**16)
        assert app.left.wait(60)
