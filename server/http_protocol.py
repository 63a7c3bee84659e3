"""Connections: uvicorn's, with patience that ends, and an answer for clients that offer HTTP/2."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from httptools import HttpParserUpgrade
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    _Protocol = HttpToolsProtocol
else:
    _Protocol = object


class Patience(_Protocol):
    """Mixin: a client that sends its request too slowly, or does not read its answer, is left.

    uvicorn waits for ever, and with it whatever the request holds.
    """

    seconds: float = 300

    _waiting: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_request()

    def _await_request(self) -> None:
        """A clock runs from the first byte of a request, or from none at all, to its last."""
        if self.transport.get_protocol() is not self:  # another has taken over
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self.seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)


class PatientH11Protocol(Patience, H11Protocol):  # type: ignore[misc]
    """A connection under h11."""


class HttpProtocol(Patience, HttpToolsProtocol):
    """A connection. An offer to speak HTTP/2 is declined, and the request answered.

    Java's HTTP client makes that offer with its first request. httptools stops reading there, and
    uvicorn answers a request without its body (uvicorn#2722, httptools#124). So such a connection
    goes on under h11, as uvicorn lets one go on that becomes a WebSocket.
    """

    def data_received(self, data: bytes) -> None:
        self._received = data
        super().data_received(data)

    def _should_upgrade(self) -> bool:
        """Whether another protocol takes over; the request is then not begun here."""
        return self._get_upgrade() is not None

    def handle_websocket_upgrade(self) -> None:
        """Called by `data_received` where `_should_upgrade`, with httptools' exception in hand."""
        self._stop_waiting()
        if super()._should_upgrade():
            super().handle_websocket_upgrade()
            return
        stop = sys.exception()
        assert isinstance(stop, HttpParserUpgrade)
        head = [b"%b %b HTTP/1.1\r\n" % (self.scope["method"].encode(), self.url)]
        for name, value in self.headers:
            if name not in (b"connection", b"upgrade"):
                head.append(b"%b: %b\r\n" % (name, value))
        self.connections.discard(self)
        protocol = PatientH11Protocol(self.config, self.server_state, self.app_state)
        protocol.seconds = self.seconds
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(b"".join([*head, b"\r\n", self._received[stop.args[0] :]]))
