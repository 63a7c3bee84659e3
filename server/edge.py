"""The edge of the HTTP application: what a request meets before, and an answer meets after, vLLM's.

Three things that vLLM leaves to a proxy: a browser may read every answer, errors included;
a key may come in the headers of Azure's and Anthropic's clients; a body has a greatest size.
Pure ASGI: Starlette's `BaseHTTPMiddleware` would hide disconnects from streams.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.settle import HEADER

KEY_HEADERS = ("api-key", "x-api-key")


def attach_edge(app: FastAPI, *, max_body_bytes: int, on_http_error: Any) -> None:
    """Put the edge around `app`, before vLLM adds its own middleware.

    on_http_error: vLLM's handler of HTTP errors.
    """
    # vLLM 0.32 registers its handler for FastAPI's class only: an unknown path or method
    # raises Starlette's, and its answer would not have OpenAI's shape.
    app.exception_handler(AnyHTTPException)(on_http_error)
    app.add_middleware(BodyLimit, max_body_bytes=max_body_bytes)
    build = app.build_middleware_stack

    def build_with_edge() -> ASGIApp:
        """vLLM's own CORS, moved outside its authentication and Starlette's answer to a crash."""
        added = app.user_middleware
        cors = next((m for m in added if cast(object, m.cls) is CORSMiddleware), None)
        assert cors is not None, "vLLM's init_entrypoints_middleware no longer adds CORSMiddleware"
        added.remove(cors)
        options = cast(dict[str, Any], cors.kwargs)
        return CORSMiddleware(KeyHeaders(build()), **{**options, "expose_headers": [HEADER]})

    app.build_middleware_stack = build_with_edge  # type: ignore[method-assign]


class KeyHeaders:
    """ASGI middleware: `api-key: KEY` and `x-api-key: KEY` mean `Authorization: Bearer KEY`.

    Azure's and Anthropic's clients send these. `Authorization` wins where it is given.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            key = next((headers[name] for name in KEY_HEADERS if name in headers), None)
            if key is not None and "authorization" not in headers:
                scope = {**scope, "headers": list(scope["headers"])}
                MutableHeaders(scope=scope)["authorization"] = f"Bearer {key}"
        await self.app(scope, receive, send)


class BodyLimit:
    """ASGI middleware: a body of more than `max_body_bytes` is a 413.

    With a declared length nothing is read; without, reading stops at the first piece too many.
    The server discards what the client goes on sending, so the connection stays in use.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = int(Headers(scope=scope).get("content-length", 0))
        received = 0

        async def limited() -> Message:
            nonlocal received
            if declared > self.max_body_bytes:
                raise self._too_large()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                raise self._too_large()
            return message

        await self.app(scope, limited, send)

    def _too_large(self) -> HTTPException:
        """Raised where the body is read, so inside vLLM's error handlers."""
        return HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request's body must have at most {self.max_body_bytes} bytes",
        )
