"""Who may ask: where API keys are set, every path needs one but the probes'."""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

from server import playground
from server.exposition import METRICS_PATH, SERVING_PATH

# What load balancers and Prometheus ask. Nothing on them tells of a request's text; what
# /metrics tells of its experts is said in server/README.md.
OPEN: Final = ("/health", "/ready", "/ping", METRICS_PATH, SERVING_PATH)
# A browser opens a page without a key; the page asks for one.
PAGE: Final = ("", playground.PATH, *(f"{playground.PATH}/{name}" for name in playground.FILES))


class Authentication(AuthenticationMiddleware):
    """ASGI middleware: vLLM's comparison of keys, in constant time, for all paths but the `OPEN`.

    vLLM guards some prefixes and leaves /invocations, /tokenize and others to anybody.
    """

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        is_request = scope["type"] in ("http", "websocket")
        # A browser's question whether it may ask carries no key.
        if not is_request or scope.get("method") == "OPTIONS" or is_open(scope):
            return self._on(scope, receive, send)
        headers = Headers(scope=scope)
        if self.verify_token(headers):
            return self._on(scope, receive, send)
        given = "is not one of this server's" if "authorization" in headers else "is missing"
        error = create_error_response(
            f"the API key {given}: send 'Authorization: Bearer KEY'",
            "AuthenticationError",
            HTTPStatus.UNAUTHORIZED,
        )
        challenge = {"WWW-Authenticate": "Bearer"}
        return JSONResponse(error.model_dump(), 401, challenge)(scope, receive, send)

    def _on(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        app: ASGIApp = self.app
        return app(scope, receive, send)


def is_open(scope: Scope) -> bool:
    """Whether that path needs no key."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.removesuffix("/") in {*OPEN, *PAGE}
