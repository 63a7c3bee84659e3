"""The `routing` field: vLLM's request models with one more field, and its echo."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr, model_validator
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
)
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams, SamplingParams

from routing.engine.intake import invalid, travelling
from routing.engine.travel import REQUEST_KEY
from routing.policy import Policy, PolicyError
from routing.policy.compiled import CompiledPolicy
from routing.policy.presets import Presets
from routing.policy.schema import ROUTING
from routing.policy.seed import derive_seed
from routing.spec import RouterSpec
from routing.trace.report import Report
from server.precedence import HEADER, Asked, settle


class RoutedRequest(BaseModel):
    """Mixin for vLLM's request models."""

    routing: Any = Field(
        default=None,
        description="How this request's tokens are routed to experts.",
        json_schema_extra=ROUTING,
    )
    _policy: Policy = PrivateAttr()
    _compiled: CompiledPolicy | None = PrivateAttr(default=None)
    _preset: str | None = PrivateAttr(default=None)
    _report: Report | None = PrivateAttr(default=None)
    _spec: RouterSpec = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _structured_outputs_is_an_object(cls, data: Any) -> Any:
        """vLLM 0.32 looks into it before it checks that, and ends in a 500."""
        given = data.get("structured_outputs") if isinstance(data, dict) else None
        if given is not None and not isinstance(given, dict):
            raise VLLMValidationError(
                f"structured_outputs must be an object, got {given!r:.80}",
                parameter="structured_outputs",
            )
        return data

    def settle_routing(
        self, asked: Asked, presets: Presets, spec: RouterSpec, *, allow_steering: bool
    ) -> None:
        """Settle the policy. Raises VLLMValidationError, a 400, and UnknownPresetError, a 404."""
        try:
            settled = settle(asked, presets, spec, allow_steering=allow_steering)
        except PolicyError as error:
            raise invalid(error) from error
        if REQUEST_KEY in (getattr(self, "vllm_xargs", None) or {}):
            raise VLLMValidationError(
                f"vllm_xargs must not hold the key '{REQUEST_KEY}': use the field '{REQUEST_KEY}'",
                parameter="vllm_xargs",
            )
        self._policy, self._preset = settled.policy, settled.preset
        self._compiled = settled.compiled
        self._spec = spec
        if settled.include:
            self._report = Report(spec, settled.include)

    def to_sampling_params(self, *args: Any, **kwargs: Any) -> SamplingParams:
        """vLLM calls this once per prompt, in order."""
        plain, num_choices = self, self._choices_per_prompt()
        if self._policy.draws_noise() and num_choices > 1:
            # vLLM refuses n > 1 with greedy token sampling, which makes all choices equal.
            # Routing noise makes them differ.
            plain = self.model_copy(update={"n": 1})
        params: SamplingParams = super(RoutedRequest, plain).to_sampling_params(  # type: ignore[misc]
            *args, **kwargs
        )
        params.n = num_choices
        choice = self._first_choice()
        routing = travelling(self._compiled, choice=choice, report=self._report)
        if routing is not None:
            params.extra_args = {**(params.extra_args or {}), REQUEST_KEY: routing}
        return params

    def _first_choice(self) -> int:
        """Number of the first choice of the prompt whose sampling parameters are being made."""
        return 0

    def to_beam_search_params(self, *args: Any, **kwargs: Any) -> BeamSearchParams:
        """Beams are requests of vLLM's own making and carry no policy: refused, not ignored."""
        if self._report is not None or self._compiled is not None:
            raise VLLMValidationError(
                "routing must be the model's own with beam search, which no other policy reaches",
                parameter="routing",
            )
        params: BeamSearchParams = super().to_beam_search_params(*args, **kwargs)  # type: ignore[misc]
        return params

    def num_choices(self) -> int:
        """Choices in the response."""
        return self._choices_per_prompt()

    def _choices_per_prompt(self) -> int:
        """`n` where the request has that field: elsewhere vLLM keeps it, unchecked, as unknown."""
        return (getattr(self, "n", None) if "n" in type(self).model_fields else None) or 1

    def labels(self) -> tuple[str, str | None]:
        """Mode and preset, for the metrics."""
        return self._policy.mode, self._preset

    def routing_echo(self) -> dict[str, Any]:
        """The `routing` object of the response body.

        choice_seeds: the seed of each choice, where there are several and noise is drawn;
        a request with that seed and n = 1 gets that choice's noise.
        """
        out: dict[str, Any] = {"policy": self._policy.shown()}
        if self._preset is not None:
            out["preset"] = self._preset
        seed, num_choices = self._policy.seed, self.num_choices()
        if self._policy.draws_noise() and seed is not None and num_choices > 1:
            out["choice_seeds"] = [derive_seed(seed, choice) for choice in range(num_choices)]
        if self._report is not None:
            # What a stream has told already is not told again.
            out |= self._report.rest() if getattr(self, "stream", False) else self._report.whole()
        return out

    def routing_news(self) -> dict[str, Any] | None:
        """What a chunk of a stream, but for the last, tells of the routing."""
        return None if self._report is None else self._report.news()

    def routing_headers(self) -> dict[str, str]:
        """The policy as a header that a client may send back."""
        policy = json.dumps(self._policy.shown(), separators=(",", ":"))
        return {HEADER: policy}


class RoutedChatCompletionRequest(RoutedRequest, ChatCompletionRequest):
    """`POST /v1/chat/completions` with the `routing` field."""

    _choice: int = PrivateAttr(default=0)

    @classmethod
    def under(
        cls, owner: RoutedRequest, chat: ChatCompletionRequest, *, choice: int = 0
    ) -> RoutedChatCompletionRequest:
        """`chat`, which vLLM made of the request `owner`, routed as `owner` asked."""
        routed = cls.model_construct(chat.model_fields_set, **dict(chat))
        routed._policy, routed._spec = owner._policy, owner._spec
        routed._compiled = owner._compiled
        routed._report = owner._report
        routed._choice = choice
        return routed

    def _first_choice(self) -> int:
        return self._choice


class RoutedCompletionRequest(RoutedRequest, CompletionRequest):
    """`POST /v1/completions` with the `routing` field; it may hold several prompts."""

    _num_prompts: int = PrivateAttr(default=0)

    def _first_choice(self) -> int:
        self._num_prompts += 1
        return (self._num_prompts - 1) * (self.n or 1)

    def num_choices(self) -> int:
        """`n` for each prompt, once vLLM has taken the prompts in."""
        return self._num_prompts * (self.n or 1)


class RoutedResponsesRequest(RoutedRequest, ResponsesRequest):
    """`POST /v1/responses` with the `routing` field."""


class RoutedResponses(OpenAIServingResponses):
    """vLLM's handler of responses, which it also streams, stores, and makes in the background."""

    async def responses_full_generator(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Put the echo on the whole response."""
        response = await super().responses_full_generator(request, *args, **kwargs)
        if isinstance(request, RoutedRequest) and isinstance(response, ResponsesResponse):
            response.routing = request.routing_echo()
        return response


class RoutedBatchRequest(RoutedRequest, BatchChatCompletionRequest):
    """`POST /v1/chat/completions/batch` with the `routing` field: a choice per conversation."""

    def to_chat_completion_request(self, messages: list[Any]) -> RoutedChatCompletionRequest:
        """vLLM calls this with each of `self.messages`, the very object."""
        choice = next(i for i, own in enumerate(self.messages) if own is messages)
        chat = super().to_chat_completion_request(messages)
        return RoutedChatCompletionRequest.under(self, chat, choice=choice)

    def num_choices(self) -> int:
        """One for each conversation."""
        return len(self.messages)


class RoutedMessagesRequest(RoutedRequest, AnthropicMessagesRequest):
    """`POST /v1/messages` with the `routing` field."""


class RoutedMessages(AnthropicServingMessages):
    """vLLM's handler of Anthropic's messages, which makes chat completions of them."""

    @classmethod
    def to_chat_completion_request(cls, anthropic_request: Any, **kwargs: Any) -> Any:
        """Hand the policy on to the chat completion."""
        chat = super().to_chat_completion_request(anthropic_request, **kwargs)
        if isinstance(anthropic_request, RoutedMessagesRequest):
            return RoutedChatCompletionRequest.under(anthropic_request, chat)
        return chat


def route(handler: Any) -> None:
    """Teach a handler of vLLM's, which the application holds already, to carry policies."""
    for ours in (RoutedResponses, RoutedMessages):
        if type(handler) is ours.__base__:
            handler.__class__ = ours
