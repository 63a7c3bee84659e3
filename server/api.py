"""The routes that understand `routing`, as a table; they replace vLLM's of the same paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Discriminator, Tag
from starlette.responses import Response
from vllm.entrypoints.anthropic.protocol import AnthropicErrorResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import validate_json_request, with_cancellation

from server import sse
from server.answers import answer
from server.requests import (
    RoutedBatchRequest,
    RoutedChatCompletionRequest,
    RoutedCompletionRequest,
    RoutedMessagesRequest,
    RoutedRequest,
    RoutedResponsesRequest,
)
from server.strict_json import StrictRoute


class Route(NamedTuple):
    """A path, and the method of one of vLLM's handlers, by its name in the app's state."""

    path: str
    request: type[RoutedRequest]
    handler: str
    method: str
    meaning: str
    error: type[BaseModel] = ErrorResponse


ROUTES: Final = (
    Route(
        "/v1/chat/completions",
        RoutedChatCompletionRequest,
        "openai_serving_chat",
        "create_chat_completion",
        "OpenAI's chat completions; `routing` chooses the experts.",
    ),
    Route(
        "/v1/completions",
        RoutedCompletionRequest,
        "openai_serving_completion",
        "create_completion",
        "OpenAI's completions; `routing` chooses the experts.",
    ),
    Route(
        "/v1/responses",
        RoutedResponsesRequest,
        "openai_serving_responses",
        "create_responses",
        "OpenAI's responses; `routing` chooses the experts.",
    ),
    Route(
        "/v1/chat/completions/batch",
        RoutedBatchRequest,
        "openai_serving_chat_batch",
        "create_batch_chat_completion",
        "vLLM's chat completions of several conversations; `routing` chooses the experts.",
    ),
    Route(
        "/v1/messages",
        RoutedMessagesRequest,
        "anthropic_serving_messages",
        "create_messages",
        "Anthropic's messages; `routing` chooses the experts.",
        AnthropicErrorResponse,
    ),
)
CHAT, COMPLETION = ROUTES[:2]

api = APIRouter(route_class=StrictRoute)


def _endpoint(route: Route) -> Callable[..., Any]:
    async def endpoint(request: Any, raw_request: Any) -> Any:
        return await answer(request, raw_request, route.handler, route.method)

    endpoint.__name__ = route.method
    endpoint.__doc__ = route.meaning
    # What FastAPI reads, before the decorators hide it.
    endpoint.__annotations__ = {
        "request": route.request,
        "raw_request": Request,
        "return": Response,
    }
    decorated: Callable[..., Any] = with_cancellation(endpoint)
    return decorated


def _add(path: str, endpoint: Callable[..., Any], error: type[BaseModel] = ErrorResponse) -> None:
    api.post(
        path,
        dependencies=[Depends(validate_json_request)],
        responses={
            200: {"content": {sse.MEDIA_TYPE: {}}},
            **{status: {"model": error} for status in (400, 404, 500, 501)},
        },
    )(endpoint)


_endpoints: Final = {route: _endpoint(route) for route in ROUTES}
for _route, _function in _endpoints.items():
    _add(_route.path, _function, _route.error)

_CHAT_OR_COMPLETION = Annotated[
    Annotated[RoutedChatCompletionRequest, Tag("chat")]
    | Annotated[RoutedCompletionRequest, Tag("completion")],
    Discriminator(lambda body: "chat" if "messages" in body else "completion"),
]


async def invoke(request: _CHAT_OR_COMPLETION, raw_request: Request) -> Response:
    """Amazon SageMaker's name for chat completions and completions."""
    route = CHAT if isinstance(request, RoutedChatCompletionRequest) else COMPLETION
    response: Response = await _endpoints[route](request, raw_request)
    return response


_add("/invocations", invoke)
PATHS: Final = {route.path for route in ROUTES} | {"/invocations"}
