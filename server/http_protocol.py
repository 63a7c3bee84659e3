"""uvicorn's fast HTTP parser, and for the clients that it cannot serve the other one."""

from __future__ import annotations

import sys

from httptools import HttpParserUpgrade
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpProtocol(HttpToolsProtocol):
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
        if super()._should_upgrade():
            super().handle_websocket_upgrade()
            return
        stop = sys.exception()
        assert isinstance(stop, HttpParserUpgrade)
        head = [b"%b %b HTTP/1.1\r\n" % (self.scope["method"].encode(), self.url)]
        head += [b"%b: %b\r\n" % h for h in self.headers if h[0] not in (b"upgrade", b"connection")]
        self.connections.discard(self)
        protocol = H11Protocol(self.config, self.server_state, self.app_state)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(b"".join([*head, b"\r\n", self._received[stop.args[0] :]]))
