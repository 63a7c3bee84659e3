"""One answer: settle the policy, let vLLM's handler work, echo the policy, count the request."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import Response
from vllm.entrypoints.openai.responses import api_router as responses
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import should_include_usage
from vllm.entrypoints.serve.utils.orca_metrics import metrics_header
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive

from routing.engine.intake import invalid
from routing.policy import PolicyError
from server import sse
from server.app import Galton
from server.cost import check_priority, field
from server.metrics import CountedStream, outcome_of
from server.requests import (
    RoutedChatCompletionRequest,
    RoutedMessagesRequest,
    RoutedRequest,
    RoutedResponsesRequest,
)
from server.settle import HEADER, Sources, UnknownPresetError, settle


async def answer(
    request: RoutedRequest, raw_request: Request, handler_name: str, method: str
) -> Response:
    """Answer a request by a method of one of vLLM's handlers in the application's state."""
    state = raw_request.app.state
    handler = getattr(state, handler_name)
    if handler is None:
        raise NotImplementedError(f"The model does not support {raw_request.url.path}")
    galton: Galton = state.galton
    check_priority(raw_request.headers)
    galton.limits.check(request, request.num_prompts(), len(await raw_request.body()))
    try:
        _settle(request, raw_request.headers, galton)
    except UnknownPresetError as error:
        status = HTTPStatus.NOT_FOUND
        return _error(create_error_response(str(error), "NotFoundError", status, "routing"))

    settled = request.settled
    count = galton.requests.begin(settled.policy.mode, settled.preset)
    try:
        # vLLM asks the same for each prompt, when those before it are on their way.
        state.engine_client.check_admission(request.num_choices())
        result = await getattr(handler, method)(request, raw_request)
    except asyncio.CancelledError:
        count("abort")
        raise
    except Exception as error:
        count(outcome_of(create_error_response(error).error.code))
        raise
    if isinstance(result, ErrorResponse):
        count(outcome_of(result.error.code))
        return _error(result)
    # A client may send this header back.
    headers = {HEADER: json.dumps(settled.shown, separators=(",", ":"))}
    if isinstance(result, BaseModel):
        count(outcome_of(HTTPStatus.OK))
        wanted = raw_request.headers.get("endpoint-load-metrics-format", "")
        headers |= metrics_header(wanted) or {}
        return JSONResponse(_body(request, result, state.args), headers=headers)
    return CountedStream(_events(request, result, state.args), count, headers)


def _settle(request: RoutedRequest, headers: Headers, galton: Galton) -> None:
    """Raises VLLMValidationError, a 400, and UnknownPresetError, a 404."""
    presets = galton.presets
    model, token_seed = field(request, "model"), field(request, "seed")
    sources = Sources.of(request.routing, model, token_seed, headers, presets)
    # The choices of one request differ: nobody else's noise is asked for.
    windows = galton.seed_windows if request.num_choices() == 1 else None
    steering = galton.settings.allow_request_steering
    try:
        settled = settle(sources, presets, galton.spec, allow_steering=steering, windows=windows)
        group = galton.load.groups.number(settled.policy.mode, settled.preset)
        request.follow(replace(settled, group=group))
    except PolicyError as error:
        raise invalid(error) from error


def _body(request: RoutedRequest, result: BaseModel, args: Namespace) -> dict[str, Any]:
    """The JSON of a whole answer, with the echo."""
    is_message = isinstance(request, RoutedMessagesRequest)
    body = result.model_dump(mode="json", by_alias=True, exclude_none=is_message)
    if _reasons(request, args):
        sse.name_reasoning_twice(body)
    if "routing" not in body:  # a response has it already: `server.vllm_handlers`
        body["routing"] = echo(request)
    return body


def _events(request: RoutedRequest, stream: AsyncIterator[Any], args: Namespace) -> Any:
    """vLLM's stream as server-sent events, with the echo on the last that has content."""
    if isinstance(request, RoutedResponsesRequest):
        return responses._convert_stream_to_sse_events(stream)
    echoes = partial(echo, request), partial(news, request)
    if isinstance(request, RoutedMessagesRequest):
        return sse.with_routing(stream, sse.is_message_delta, *echoes)
    include_usage, _ = should_include_usage(
        getattr(request, "stream_options", None), args.enable_force_include_usage
    )
    if _reasons(request, args):
        stream = sse.with_reasoning_content(stream)
    is_last = sse.has_usage if include_usage else sse.Finish(request.num_choices())
    interval = float(getattr(args, "sse_keep_alive_interval", 0))
    return with_sse_keep_alive(sse.with_routing(stream, is_last, *echoes), interval)


def _error(error: ErrorResponse) -> Response:
    return JSONResponse(error.model_dump(mode="json"), status_code=error.error.code)


def echo(request: RoutedRequest) -> dict[str, Any]:
    """The `routing` object of an answer's body.

    choice_seeds: the seed of each choice, where there are several and noise is drawn;
    a request with that seed and n = 1 gets that choice's noise.
    """
    settled = request.settled
    out: dict[str, Any] = {"policy": settled.shown}
    if settled.preset is not None:
        out["preset"] = settled.preset
    seed = settled.policy.seed
    if settled.policy.draws_noise() and seed is not None and request.num_choices() > 1:
        out["choice_seeds"] = request.choice_seeds(seed)
    if settled.report is not None:
        # What a stream has told already is not told again.
        streams = getattr(request, "stream", False)
        out |= settled.report.rest() if streams else settled.report.whole()
    return out


def news(request: RoutedRequest) -> dict[str, Any] | None:
    """The `routing` object of a stream's chunk that is not the last, if it needs one."""
    report = request.settled.report
    return None if report is None else report.news()


def _reasons(request: RoutedRequest, args: Namespace) -> bool:
    """Whether the answer can have a part that is reasoning."""
    parser = args.structured_outputs_config.reasoning_parser
    return bool(parser) and isinstance(request, RoutedChatCompletionRequest)
