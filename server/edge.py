"""The edge of the HTTP application: what a request meets before, and an answer meets after, vLLM's.

What vLLM leaves to a proxy: a browser may read every answer, errors included; a key may come in
the headers of Azure's and Anthropic's clients; a body has a greatest size; and what vLLM refuses
though it is clear what is meant.
Pure ASGI: Starlette's `BaseHTTPMiddleware` would hide disconnects from streams.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI, HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.entrypoints.serve.exception_handling.handlers.http import http_exception_handler
from vllm.entrypoints.serve.exception_handling.handlers.vllm_error import vllm_error_handler
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware
from vllm.exceptions import GracefulHTTPError

from server.anthropic_errors import AnthropicErrors
from server.auth import Authentication, is_open
from server.health import RETRY_AFTER
from server.settle import HEADER

KEY_HEADERS: Final = ("api-key", "x-api-key")
_SLASHES: Final = re.compile("/{2,}")


def attach_edge(app: FastAPI, max_body_bytes: int) -> None:
    """Put the edge around `app`, before vLLM adds its own middleware."""
    # vLLM 0.32 registers its handler for FastAPI's class only: an unknown path or method
    # raises Starlette's, and its answer would not have OpenAI's shape.
    app.exception_handler(AnyHTTPException)(_http_error)
    app.exception_handler(GracefulHTTPError)(_busy)
    app.add_middleware(BodyLimit, max_body_bytes=max_body_bytes)
    build = app.build_middleware_stack

    def build_with_edge() -> ASGIApp:
        """vLLM's own CORS, moved outside its authentication and Starlette's answer to a crash."""
        added = app.user_middleware
        for middleware in added:
            if cast(object, middleware.cls) is AuthenticationMiddleware:
                middleware.cls = Authentication
        cors = next((m for m in added if cast(object, m.cls) is CORSMiddleware), None)
        assert cors is not None, "vLLM's init_entrypoints_middleware no longer adds CORSMiddleware"
        added.remove(cors)
        options = cast(dict[str, Any], cors.kwargs)
        inner = Understanding(AnthropicErrors(build()))
        return CORSMiddleware(inner, **{**options, "expose_headers": [HEADER]})

    app.build_middleware_stack = build_with_edge  # type: ignore[method-assign]


async def _http_error(request: Request, error: HTTPException) -> Response:
    """vLLM's handler, which drops the error's headers: a 405 without `Allow`."""
    response = await http_exception_handler(request, error)
    response.headers.update(error.headers or {})
    return response


async def _busy(request: Request, error: GracefulHTTPError) -> Response:
    """vLLM's handler of a request that it does not admit, and when to come again."""
    response = await vllm_error_handler(request, error)
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers.update(RETRY_AFTER)
    return response


class Understanding:
    """ASGI middleware: what a client means becomes what vLLM's application knows.

    `api-key: KEY` and `x-api-key: KEY`, Azure's and Anthropic's, mean `Authorization: Bearer KEY`,
    which wins where it is given. Slashes in a row are one: a base URL often ends in one. HEAD asks
    a probe as GET does.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "path": _SLASHES.sub("/", scope["path"])}
            if scope.get("method") == "HEAD" and is_open(scope):
                scope["method"] = "GET"  # uvicorn sends no body all the same
            headers = Headers(scope=scope)
            key = next((headers[name] for name in KEY_HEADERS if name in headers), None)
            if key is not None and "authorization" not in headers:
                scope["headers"] = list(scope["headers"])
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
