"""Where there are several API keys: who sends a thousand requests keeps nobody waiting, or out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send
from vllm.entrypoints.generate.base.serving import PRIORITY_HEADER


@dataclass(slots=True)
class _Request:
    """An HTTP request that is being answered, and the places that it has."""

    key: str
    places: int = 0


_request: Final[ContextVar[_Request | None]] = ContextVar("request", default=None)


class Shares:
    """Places in the queue by key: of those that vLLM lets run and wait, `max_places`.

    A key may hold as many as are left, so that there is always room for another: dynamic
    thresholds (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998, alpha = 1).
    """

    def __init__(self, max_places: int) -> None:
        self._max_places = max_places
        self._held = Counter[str]()

    def admit(self, check: Callable[..., None], n: int = 1, request_id: str | None = None) -> None:
        """In place of the engine's `check_admission`: called for all choices of an HTTP request by
        `server.answers`, then by vLLM for some of them, and, with an id, for each of the engine's.
        """
        request = _request.get()
        if request is None or request_id is not None or n <= request.places:
            check(n, request_id)
            return
        free = self._max_places - self._held.total()
        too_many = self._held[request.key] + n > free
        check(self._max_places + 1 if too_many else n)  # vLLM refuses that, and counts it
        self._held[request.key] += n - request.places
        request.places = n

    def leave(self, request: _Request) -> None:
        """Give the places of an answered request back."""
        self._held[request.key] -= request.places


class FairQueue:
    """ASGI middleware: of waiting requests, those come first whose key has fewest before them.

    By vLLM's priorities, lower ones first: a request's is the number of its key's requests that
    are being answered. So who sends one waits behind one of each key, not behind a thousand.
    """

    def __init__(self, app: ASGIApp, shares: Shares) -> None:
        self.app = app
        self._shares = shares
        self._active = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope = {**scope, "headers": list(scope["headers"])}
        headers = MutableHeaders(scope=scope)
        request = _Request(headers.get("authorization", "").partition(" ")[2])
        headers[PRIORITY_HEADER] = str(self._active[request.key])  # whatever the client wants
        self._active[request.key] += 1
        token = _request.set(request)
        try:
            await self.app(scope, receive, send)
        finally:
            _request.reset(token)
            self._active[request.key] -= 1
            self._shares.leave(request)
