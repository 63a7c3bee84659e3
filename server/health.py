"""What load balancers ask: whether the server takes requests now."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import Response

api = APIRouter()


@api.get("/ready", response_class=Response, responses={503: {}})
async def ready(raw_request: Request) -> Response:
    """200 where the engine runs, else 503. Needs no key."""
    engine = raw_request.app.state.engine_client
    is_ready = engine is not None and not engine.errored
    return Response(status_code=HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)
