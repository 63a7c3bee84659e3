"""Every class put over one of vLLM's, and the one method of vLLM's that is replaced.

The application holds the handlers already, so they change their class instead of being made
anew. All of them ask one object, `OpenAIServingModels`, which names are served and which one
to answer with: presets are models there, and answers use the name that the client gave.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

from starlette.datastructures import State
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.openai.responses.protocol import ResponsesResponse
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, ModelCard, ModelList
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.exceptions import VLLMValidationError

from routing.engine.hooks import wrap
from routing.policy.presets import near
from server.answers import echo
from server.app import Galton
from server.requests import RoutedChatCompletionRequest, RoutedMessagesRequest, RoutedRequest

logger = logging.getLogger("vllm.galton")

# The name in the request that this task answers, once vLLM has accepted it.
_asked_for: Final[ContextVar[str | None]] = ContextVar("galton_asked_for", default=None)


def adopt(state: State, galton: Galton) -> None:
    """Have the application's handlers know presets and carry policies. Idempotent."""
    models = state.openai_serving_models
    models.__class__, models.galton = AliasedModels, galton
    wrap(BaseServing, "_check_model", _check_model)
    for name in ("render_chat", "render_responses", "preprocess_chat", "preprocess_completion"):
        wrap(state.online_renderer, name, _render)
    for handler in (state.anthropic_serving_messages, state.openai_serving_responses):
        for ours in (RoutedMessages, RoutedResponses):
            if type(handler) is ours.__base__:
                handler.__class__ = ours


async def _render(original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Where vLLM's making of a prompt stumbles over what a client sent, that is a 400: vLLM checks
    the types of some parts only, and no bug of its own depends on anything but these.
    """
    try:
        return await original(*args, **kwargs)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError) as error:
        logger.warning("input that makes no prompt: %r", error)
        raise VLLMValidationError(
            "the input holds a part that cannot be made into a prompt"
        ) from error


class AliasedModels(OpenAIServingModels):
    """vLLM's served models, and the presets in force."""

    galton: Galton

    def is_base_model(self, model_name: str) -> bool:
        """True for aliases too, and for the name that this request was accepted by.

        vLLM asks again later in a request, when a reload may have removed the alias.
        """
        served = super().is_base_model(model_name) or model_name in self.galton.presets.aliases
        return served or model_name == _asked_for.get()

    def model_name(self, lora_request: Any = None) -> str:
        """The name to answer with."""
        asked_for = None if lora_request is not None else _asked_for.get()
        return asked_for or super().model_name(lora_request)

    def names(self) -> list[str]:
        """Every name that a request may give."""
        bases = [model.name for model in self.base_model_paths]
        return [*bases, *self.lora_requests, *self.galton.presets.aliases]

    async def show_available_models(self) -> ModelList:
        """vLLM's list, and a model for each alias."""
        models = await super().show_available_models()
        cards = {card.id: card for card in models.data}
        for base in self.base_model_paths:
            card = cards[base.name]
            for preset in self.galton.presets.named.values():
                models.data.append(
                    ModelCard(
                        id=f"{base.name}-{preset.name}",
                        owned_by=card.owned_by,
                        root=card.root,
                        parent=card.id,
                        max_model_len=card.max_model_len,
                        permission=card.permission,
                        routing={
                            "preset": preset.name,
                            "policy": preset.shown(),
                            "description": preset.description,
                        },
                    )
                )
        return models


async def _check_model(
    original: Callable[..., Any], self: BaseServing, request: Any
) -> ErrorResponse | None:
    """Remember the name that is accepted; to one that is not, name near ones."""
    error: ErrorResponse | None = await original(self, request)
    _asked_for.set(request.model if error is None else None)
    if error is not None and error.error.code == 404 and isinstance(self.models, AliasedModels):
        guess = near(request.model, self.models.names())
        error.error.message = f"The model `{request.model[:80]}` does not exist.{guess}"
    return error


class RoutedResponses(OpenAIServingResponses):
    """vLLM's handler of responses, which it also streams, stores, and makes in the background."""

    async def responses_full_generator(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Put the echo on the whole response."""
        response = await super().responses_full_generator(request, *args, **kwargs)
        if isinstance(request, RoutedRequest) and isinstance(response, ResponsesResponse):
            response.routing = echo(request)
        return response


class RoutedMessages(AnthropicServingMessages):
    """vLLM's handler of Anthropic's messages, which makes chat completions of them."""

    @classmethod
    def to_chat_completion_request(cls, anthropic_request: Any, **kwargs: Any) -> Any:
        """Hand the policy on to the chat completion."""
        chat = super().to_chat_completion_request(anthropic_request, **kwargs)
        if isinstance(anthropic_request, RoutedMessagesRequest):
            return RoutedChatCompletionRequest.under(anthropic_request, chat)
        return chat
