"""Galton's part of vLLM's HTTP application: the routes that understand `routing`, metrics.

vLLM's `vllm.endpoint_plugins` entry point. vLLM's own handlers do the work; what is new
is the policy on the way in and its echo on the way out.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import REGISTRY
from pydantic import BaseModel
from starlette.datastructures import State
from starlette.responses import Response
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.anthropic import api_router as anthropic
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion import api_router as chat_completion
from vllm.entrypoints.openai.chat_completion.protocol import BatchChatCompletionRequest
from vllm.entrypoints.openai.responses import api_router as responses
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import (
    load_aware_call,
    should_include_usage,
    validate_json_request,
    with_cancellation,
)
from vllm.entrypoints.serve.utils.orca_metrics import metrics_header
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive
from vllm.logger import init_logger

from routing.engine.startup import attach
from server.metrics import ExpertLoad, RefreshOnScrape
from server.protocol import (
    HEADER,
    RoutedChatCompletionRequest,
    RoutedCompletionRequest,
    RoutedRequest,
    RoutedResponsesRequest,
    without_routing,
)

logger = init_logger("vllm.galton")

router = APIRouter()
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}},
    **{status: {"model": ErrorResponse} for status in (400, 404, 500, 501)},
}


class GaltonEndpoints:
    """Satisfies vLLM's `EndpointPlugin` protocol."""

    name = "galton"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes, which replace vLLM's of the same path."""
        app.include_router(router)
        app.add_middleware(RefreshOnScrape)

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Self-test the routers and start counting. Raises SelfTestError."""
        assert engine_client is not None, "Galton needs an engine"
        spec = state.galton_router_spec = await attach(engine_client)
        load = ExpertLoad(
            spec,
            state.openai_serving_models.base_model_paths[0].name,
            args.galton_settings.expert_metrics,
            lambda: engine_client.collective_rpc("galton_counts"),
        )
        REGISTRY.register(load)
        state.galton_expert_load = load
        logger.info("routing self-test passed: %s", spec)


@router.post(
    "/v1/chat/completions", dependencies=[Depends(validate_json_request)], responses=_RESPONSES
)
@with_cancellation
@load_aware_call
async def create_chat_completion(
    request: RoutedChatCompletionRequest, raw_request: Request
) -> Response:
    """OpenAI's chat completions; `routing` chooses the experts."""
    return await _answer(request, raw_request, "openai_serving_chat", "create_chat_completion")


@router.post("/v1/completions", dependencies=[Depends(validate_json_request)], responses=_RESPONSES)
@with_cancellation
@load_aware_call
async def create_completion(request: RoutedCompletionRequest, raw_request: Request) -> Response:
    """OpenAI's completions; `routing` chooses the experts."""
    return await _answer(request, raw_request, "openai_serving_completion", "create_completion")


@router.post("/v1/responses", dependencies=[Depends(validate_json_request)], responses=_RESPONSES)
@with_cancellation
@load_aware_call
async def create_responses(request: RoutedResponsesRequest, raw_request: Request) -> Response:
    """OpenAI's responses; `routing` chooses the experts."""
    return await _answer(request, raw_request, "openai_serving_responses", "create_responses")


def _refuse_routing(path: str, model: type[BaseModel], endpoint: Callable[..., Any]) -> None:
    async def refuse_routing(request: Any, raw_request: Request) -> Response:
        return await endpoint(request, raw_request)

    refuse_routing.__doc__ = endpoint.__doc__
    refuse_routing.__annotations__["request"] = without_routing(model)
    router.post(path, dependencies=[Depends(validate_json_request)], responses=_RESPONSES)(
        refuse_routing
    )


_refuse_routing("/v1/messages", AnthropicMessagesRequest, anthropic.create_messages)
_refuse_routing(
    "/v1/chat/completions/batch",
    BatchChatCompletionRequest,
    chat_completion.create_batch_chat_completion,
)


async def _answer(
    request: RoutedRequest, raw_request: Request, serving: str, method: str
) -> Response:
    """Settle the policy, let vLLM's handler answer, echo the policy."""
    state = raw_request.app.state
    handler = getattr(state, serving)
    if handler is None:
        raise NotImplementedError(f"The model does not support {raw_request.url.path}")
    request.resolve_routing(
        raw_request.headers.get(HEADER),
        state.galton_router_spec,
        allow_steering=state.args.galton_settings.allow_request_steering,
    )
    answer = await getattr(handler, method)(request, raw_request)

    if isinstance(answer, ErrorResponse):
        return JSONResponse(answer.model_dump(mode="json"), status_code=answer.error.code)
    headers = request.routing_headers()
    if isinstance(answer, BaseModel):
        wanted = raw_request.headers.get("endpoint-load-metrics-format", "")
        return JSONResponse(
            {**answer.model_dump(mode="json", by_alias=True), "routing": request.routing_echo()},
            headers={**headers, **(metrics_header(wanted) or {})},
        )
    if isinstance(request, RoutedResponsesRequest):
        events = responses._convert_stream_to_sse_events(_echo_in_events(answer, request))
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)
    include_usage, _ = should_include_usage(
        getattr(request, "stream_options", None), state.args.enable_force_include_usage
    )
    stream = echo_in_stream(
        answer,
        json.dumps(request.routing_echo(), separators=(",", ":")),
        num_choices=request.num_choices(),
        include_usage=include_usage,
    )
    interval = float(getattr(state.args, "sse_keep_alive_interval", 0))
    return StreamingResponse(
        with_sse_keep_alive(stream, interval), media_type="text/event-stream", headers=headers
    )


async def _echo_in_events(
    events: AsyncIterator[Any], request: RoutedResponsesRequest
) -> AsyncGenerator[Any, None]:
    """Put `routing` on the response that the last event carries."""
    async for event in events:
        if event.type in ("response.completed", "response.incomplete"):
            event.response.routing = request.routing_echo()
        yield event


async def echo_in_stream(
    stream: AsyncIterator[str], routing: str, *, num_choices: int, include_usage: bool
) -> AsyncGenerator[str, None]:
    """Put `routing` (JSON) on the last chunk: the one with `usage`, else the last to finish.

    No chunk is held back, and none but the last is touched. The searched strings cannot
    stand inside JSON text: its quotes would be escaped.
    """
    unfinished = num_choices
    async for chunk in stream:
        if include_usage:
            last = '"choices":[]' in chunk
        elif finished := chunk.count('"finish_reason":"'):
            unfinished -= finished
            last = unfinished == 0
        else:
            last = False
        if last:
            chunk = f'{chunk.rstrip()[:-1]},"routing":{routing}}}\n\n'
        yield chunk
