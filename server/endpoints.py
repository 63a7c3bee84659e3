"""Galton's part of vLLM's HTTP application: the routes that understand `routing`, metrics.

vLLM's `vllm.endpoint_plugins` entry point. vLLM's own handlers do the work; what is new
is the policy on the way in and its echo on the way out.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from argparse import Namespace
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from prometheus_client import REGISTRY
from pydantic import BaseModel, Discriminator, Tag
from starlette.datastructures import Headers, State
from starlette.responses import Response
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.anthropic import api_router as anthropic
from vllm.entrypoints.anthropic.protocol import AnthropicErrorResponse
from vllm.entrypoints.openai.responses import api_router as responses
from vllm.entrypoints.serve import create_error_response
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

from models.fingerprint import fingerprint
from routing.engine.startup import attach
from routing.policy.presets import PresetError
from server import catalog, reasoning
from server.aliases import presets_of
from server.edge import attach_edge
from server.metrics import (
    CountedStream,
    ExpertLoad,
    RefreshOnScrape,
    RequestCounter,
    outcome_of,
)
from server.precedence import Asked, UnknownPresetError
from server.protocol import (
    RoutedBatchRequest,
    RoutedChatCompletionRequest,
    RoutedCompletionRequest,
    RoutedMessagesRequest,
    RoutedRequest,
    RoutedResponsesRequest,
    route,
)
from server.strict_json import StrictRoute
from server.vllm_handlers import AliasedModels

logger = init_logger("vllm.galton")

router = APIRouter(route_class=StrictRoute)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}},
    **{status: {"model": ErrorResponse} for status in (400, 404, 500, 501)},
}
_ANTHROPIC_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}},
    **{status: {"model": AnthropicErrorResponse} for status in (400, 404, 500, 501)},
}


class GaltonEndpoints:
    """Satisfies vLLM's `EndpointPlugin` protocol."""

    name = "galton"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes, which replace vLLM's of the same path, and the edge around all."""
        app.include_router(router)
        app.include_router(catalog.router)
        app.add_middleware(RefreshOnScrape)
        attach_edge(app, max_body_bytes=app.state.args.galton_settings.max_body_bytes)

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Self-test the routers, start counting. Raises SelfTestError, PresetError."""
        assert engine_client is not None, "Galton needs an engine"
        spec = state.galton_router_spec = await attach(engine_client, fingerprint(args.model))
        AliasedModels.adopt(state.openai_serving_models, presets_of(args).resolved(spec))
        for handler in (state.anthropic_serving_messages, state.openai_serving_responses):
            route(handler)
        _heed_hangup(state)
        model_name = state.openai_serving_models.base_model_paths[0].name
        state.galton_requests = RequestCounter(model_name)
        load = ExpertLoad(
            spec,
            model_name,
            args.galton_settings.expert_metrics,
            lambda: engine_client.collective_rpc("galton_counts"),
        )
        REGISTRY.register(load)
        state.galton_expert_load = load
        logger.info("routing self-test passed: %s", spec)


def _heed_hangup(state: State) -> None:
    """SIGHUP reloads the operator's presets; without any it ends the server, as it always does.

    In order, though, like SIGTERM: else the engine would stay.
    """

    def heed() -> None:
        if state.args.galton_settings.presets is None:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with suppress(PresetError):  # logged
            catalog.reload_presets(state)

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup
    if state.args.galton_settings.presets is not None or not ignored:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, heed)


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


@router.post(
    "/v1/chat/completions/batch",
    dependencies=[Depends(validate_json_request)],
    responses=_RESPONSES,
)
@with_cancellation
@load_aware_call
async def create_batch(request: RoutedBatchRequest, raw_request: Request) -> Response:
    """vLLM's chat completions of several conversations; `routing` chooses the experts."""
    serving, method = "openai_serving_chat_batch", "create_batch_chat_completion"
    return await _answer(request, raw_request, serving, method)


@router.post(
    "/v1/messages", dependencies=[Depends(validate_json_request)], responses=_ANTHROPIC_RESPONSES
)
@with_cancellation
@load_aware_call
async def create_messages(request: RoutedMessagesRequest, raw_request: Request) -> Response:
    """Anthropic's messages; `routing` chooses the experts."""
    try:
        return await _answer(request, raw_request, "anthropic_serving_messages", "create_messages")
    except Exception as error:  # in Anthropic's shape, as vLLM does
        answer = create_error_response(error)
        if answer.error.code >= 500:
            logger.exception("/v1/messages failed")
        return anthropic.translate_error_response(answer)


_CHAT_OR_COMPLETION = Annotated[
    Annotated[RoutedChatCompletionRequest, Tag("chat")]
    | Annotated[RoutedCompletionRequest, Tag("completion")],
    Discriminator(lambda body: "chat" if "messages" in body else "completion"),
]


@router.post("/invocations", dependencies=[Depends(validate_json_request)], responses=_RESPONSES)
async def invoke(request: _CHAT_OR_COMPLETION, raw_request: Request) -> Response:
    """Amazon SageMaker's name for chat completions and completions."""
    if isinstance(request, RoutedChatCompletionRequest):
        return await create_chat_completion(request, raw_request)
    return await create_completion(request, raw_request)


async def _answer(
    request: RoutedRequest, raw_request: Request, serving: str, method: str
) -> Response:
    """Settle the policy, let vLLM's handler answer, echo the policy, count the request."""
    state = raw_request.app.state
    handler = getattr(state, serving)
    if handler is None:
        raise NotImplementedError(f"The model does not support {raw_request.url.path}")
    refusal = _settle(request, raw_request.headers, state)
    if refusal is not None:
        return _error(request, refusal)

    count = partial(state.galton_requests.add, *request.labels())
    try:
        answer = await getattr(handler, method)(request, raw_request)
    except asyncio.CancelledError:
        count("abort")
        raise
    except Exception as error:
        count(outcome_of(create_error_response(error).error.code))
        raise
    if isinstance(answer, ErrorResponse):
        count(outcome_of(answer.error.code))
        return _error(request, answer)
    headers = request.routing_headers()
    if isinstance(answer, BaseModel):
        count(outcome_of(HTTPStatus.OK))
        wanted = raw_request.headers.get("endpoint-load-metrics-format", "")
        is_message = isinstance(request, RoutedMessagesRequest)
        body = answer.model_dump(mode="json", by_alias=True, exclude_none=is_message)
        if _reasons(request, state.args):
            reasoning.name_twice(body)
        return JSONResponse(
            {**body, "routing": request.routing_echo()},
            headers={**headers, **(metrics_header(wanted) or {})},
        )
    return CountedStream(_stream(answer, request, state.args), count, headers)


def _reasons(request: RoutedRequest, args: Namespace) -> bool:
    """Whether the answer can have a part that is reasoning."""
    parser = args.structured_outputs_config.reasoning_parser
    return bool(parser) and isinstance(request, RoutedChatCompletionRequest)


def _stream(answer: AsyncIterator[Any], request: RoutedRequest, args: Namespace) -> Any:
    """vLLM's stream as server-sent events, with the echo on the last that has content."""
    if isinstance(request, RoutedResponsesRequest):
        return responses._convert_stream_to_sse_events(answer)
    if isinstance(request, RoutedMessagesRequest):
        return echo_in_stream(answer, request, _is_message_delta)
    include_usage, _ = should_include_usage(
        getattr(request, "stream_options", None), args.enable_force_include_usage
    )
    if _reasons(request, args):
        answer = reasoning.name_twice_in_stream(answer)
    is_last = _has_usage if include_usage else _Finish(request)
    interval = float(getattr(args, "sse_keep_alive_interval", 0))
    return with_sse_keep_alive(echo_in_stream(answer, request, is_last), interval)


def _error(request: RoutedRequest, error: ErrorResponse) -> Response:
    if isinstance(request, RoutedMessagesRequest):
        return anthropic.translate_error_response(error)
    return JSONResponse(error.model_dump(mode="json"), status_code=error.error.code)


def _settle(request: RoutedRequest, headers: Headers, state: State) -> ErrorResponse | None:
    """Settle the policy; what to answer where it names a preset that does not exist."""
    presets = state.openai_serving_models.presets
    try:
        request.settle_routing(
            Asked.of(request.routing, getattr(request, "model", None), headers, presets),
            presets,
            state.galton_router_spec,
            allow_steering=state.args.galton_settings.allow_request_steering,
        )
    except UnknownPresetError as error:
        return create_error_response(str(error), "NotFoundError", HTTPStatus.NOT_FOUND, "routing")
    return None


async def echo_in_stream(
    stream: AsyncIterator[str], request: RoutedRequest, is_last: Callable[[str], bool]
) -> AsyncGenerator[str, None]:
    """Put `routing` on the chunk that `is_last`, and on others that have something to trace.

    No chunk is held back. `is_last` is called for every chunk, in order; what it searches
    for cannot stand inside JSON text: its quotes would be escaped.
    """
    async for chunk in stream:
        routing = request.routing_echo() if is_last(chunk) else request.routing_news()
        if routing is not None:
            told = json.dumps(routing, separators=(",", ":"))
            chunk = f'{chunk.rstrip()[:-1]},"routing":{told}}}\n\n'
        yield chunk


def _has_usage(chunk: str) -> bool:
    """The chunk with `usage`, which has no choices."""
    return '"choices":[]' in chunk


def _is_message_delta(event: str) -> bool:
    """Anthropic's event with `usage`."""
    return event.startswith("event: message_delta")


class _Finish:
    """The chunk with which the last of a request's choices finishes."""

    def __init__(self, request: RoutedRequest) -> None:
        self.unfinished = request.num_choices()

    def __call__(self, chunk: str) -> bool:
        finished = chunk.count('"finish_reason":"')
        self.unfinished -= finished
        return bool(finished) and self.unfinished == 0
