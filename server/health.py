"""What load balancers and supervisors ask, and the gate for requests: one state, `Lifetime`."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import GracefulHTTPError

from server.lifetime import Lifetime

RETRY_AFTER: Final = {"Retry-After": "1"}

api = APIRouter()


@api.get("/health", response_class=Response, responses={503: {}})
async def health(raw_request: Request) -> Response:
    """200 where the engine lives and moves, else 503: for who restarts servers. Needs no key."""
    state = raw_request.app.state
    engine, lifetime = state.engine_client, _lifetime(raw_request)
    is_well = lifetime.stalled is None and lifetime.failure is None
    return _status(is_well and (engine is None or not engine.errored))


@api.get("/ready", response_class=Response, responses={503: {}})
async def ready(raw_request: Request) -> Response:
    """200 where requests are taken, else 503: for who sends them. Needs no key."""
    engine = raw_request.app.state.engine_client
    is_running = engine is not None and not engine.errored
    return _status(is_running and _lifetime(raw_request).refusal is None)


@api.get("/load")
async def load(raw_request: Request) -> dict[str, int]:
    """How many requests are being answered, in vLLM's form.

    vLLM's own count goes below zero where clients leave in the moment of their answer.
    """
    return {"server_load": _lifetime(raw_request).active}


def _lifetime(raw_request: Request) -> Lifetime:
    lifetime: Lifetime = raw_request.app.state.args.galton_lifetime
    return lifetime


def _status(is_well: bool) -> Response:
    return Response(status_code=HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE)


class Gate:
    """ASGI middleware: requests are counted while they are answered, and turned away where the
    server takes none, or has no place for another, before their body is read. Whoever reads, or
    cancels, is let in.

    queued: the paths whose requests need a place in the engine's queue.
    """

    def __init__(self, app: ASGIApp, lifetime: Lifetime, queued: Collection[str]) -> None:
        self.app = app
        self.lifetime = lifetime
        self.queued = queued

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if (error := self._refusal(scope)) is not None:
            response = JSONResponse(error.model_dump(), error.error.code, RETRY_AFTER)
            await response(scope, receive, send)
            return
        self.lifetime.active += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.lifetime.active -= 1

    def _refusal(self, scope: Scope) -> ErrorResponse | None:
        path: str = scope["path"]
        if self.lifetime.refusal is not None and not path.endswith("/cancel"):
            return create_error_response(
                self.lifetime.refusal, "ServiceUnavailableError", HTTPStatus.SERVICE_UNAVAILABLE
            )
        engine = scope["app"].state.engine_client
        if engine is not None and path.removeprefix(scope.get("root_path", "")) in self.queued:
            try:
                engine.check_admission()
            except GracefulHTTPError as error:
                return create_error_response(error)
        return None
