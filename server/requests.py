"""vLLM's request models with one more field, `routing`, and the way of its policy to the engine."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion.protocol import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
)
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams, SamplingParams

from routing.engine.intake import travelling
from routing.engine.travel import REQUEST_KEY
from routing.policy.schema import ROUTING
from routing.policy.seed import derive_seed
from server import cost
from server.cost import field
from server.settle import Settled

MAX_ERRORS: Final = 1000
_QUESTION: Final = "Translate into French: the cat sleeps in the garden."
_ASKED: Final = [{"role": "user", "content": _QUESTION}]


def _example(**fields: Any) -> ConfigDict:
    """What /docs shows of a request, ready to be sent."""
    fields["routing"] = {"mode": "sample", "temperature": 0.7, "seed": 7}
    return ConfigDict(json_schema_extra={"examples": [fields]})


class RoutedRequest(BaseModel):
    """Mixin for vLLM's request models."""

    routing: Any = Field(
        default=None,
        description="How this request's tokens are routed to experts.",
        json_schema_extra=ROUTING,
    )
    _settled: Settled = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _structured_outputs_is_an_object(cls, data: Any) -> Any:
        """vLLM 0.32 looks into it before it checks that, and ends in a 500."""
        outputs = data.get("structured_outputs") if isinstance(data, dict) else None
        if outputs is not None and not isinstance(outputs, dict):
            raise VLLMValidationError(
                f"structured_outputs must be an object, got {outputs!r:.80}",
                parameter="structured_outputs",
            )
        return data

    @model_validator(mode="wrap")
    @classmethod
    def _errors_are_few(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """FastAPI describes every error, with what was given: a thousand times a body's size."""
        try:
            return validate(data)
        except ValidationError as error:
            if error.error_count() <= MAX_ERRORS:
                raise
            raise VLLMValidationError(
                f"the body has {error.error_count():,} errors, too many to tell which"
            ) from None

    @property
    def settled(self) -> Settled:
        """The policy, once `follow` has been called."""
        return self._settled

    def follow(self, settled: Settled) -> None:
        """Take that policy on the way to the engine. Raises VLLMValidationError, a 400."""
        if REQUEST_KEY in (getattr(self, "vllm_xargs", None) or {}):
            raise VLLMValidationError(
                f"vllm_xargs must not hold the key '{REQUEST_KEY}': use the field '{REQUEST_KEY}'",
                parameter="vllm_xargs",
            )
        self._settled = settled

    def to_sampling_params(self, *args: Any, **kwargs: Any) -> SamplingParams:
        """vLLM calls this once per prompt, in order."""
        plain, num_choices = self, self._choices_per_prompt()
        settled = self._settled
        if settled.policy.draws_noise() and num_choices > 1:
            # vLLM refuses n > 1 with greedy token sampling, which makes all choices equal.
            # Routing noise makes them differ.
            plain = self.model_copy(update={"n": 1})
        params: SamplingParams = super(RoutedRequest, plain).to_sampling_params(  # type: ignore[misc]
            *args, **kwargs
        )
        params.n = num_choices  # which `server.cost` has judged
        routing = travelling(
            settled.compiled,
            group=settled.group,
            choice=self._first_choice(),
            report=settled.report,
        )
        if routing is not None:
            params.extra_args = {**(params.extra_args or {}), REQUEST_KEY: routing}
        return params

    def _first_choice(self) -> int:
        """Number of the first choice of the prompt whose sampling parameters are being made."""
        return 0

    def to_beam_search_params(self, *args: Any, **kwargs: Any) -> BeamSearchParams:
        """Beams are requests of vLLM's own making and carry no policy: refused, not ignored."""
        if self._settled.report is not None or self._settled.compiled is not None:
            raise VLLMValidationError(
                "routing must be the model's own with beam search, which no other policy reaches",
                parameter="routing",
            )
        params: BeamSearchParams = super().to_beam_search_params(*args, **kwargs)  # type: ignore[misc]
        return params

    def num_prompts(self) -> int:
        """Prompts, each of which gets `n` choices."""
        return 1

    def num_choices(self) -> int:
        """Choices in the response."""
        return self.num_prompts() * self._choices_per_prompt()

    def choice_seeds(self, seed: int) -> list[int]:
        """The seed of each choice in the response: the same choices for each prompt."""
        return [
            derive_seed(seed, i) for i in range(self._choices_per_prompt())
        ] * self.num_prompts()

    def _choices_per_prompt(self) -> int:
        return field(self, "n") or 1


class RoutedChatCompletionRequest(RoutedRequest, ChatCompletionRequest):
    """`POST /v1/chat/completions` with the `routing` field."""

    model_config = _example(messages=_ASKED)
    _choice: int = PrivateAttr(default=0)

    @classmethod
    def under(
        cls, owner: RoutedRequest, chat: ChatCompletionRequest, *, choice: int = 0
    ) -> RoutedChatCompletionRequest:
        """`chat`, which vLLM made of the request `owner`, routed as `owner` asked."""
        routed = cls.model_construct(chat.model_fields_set, **dict(chat))
        routed._settled, routed._choice = owner._settled, choice
        return routed

    def _first_choice(self) -> int:
        return self._choice


class RoutedCompletionRequest(RoutedRequest, CompletionRequest):
    """`POST /v1/completions` with the `routing` field; it may hold several prompts."""

    model_config = _example(prompt="The old man", max_tokens=16)
    _started: int = PrivateAttr(default=0)

    def _first_choice(self) -> int:
        self._started += 1
        return (self._started - 1) * self._choices_per_prompt()

    def num_prompts(self) -> int:
        """Texts or lists of token ids, and embeddings."""
        given = [prompts for prompts in (self.prompt, self.prompt_embeds) if prompts is not None]
        return sum(map(cost.num_prompts, given))


class RoutedResponsesRequest(RoutedRequest, ResponsesRequest):
    """`POST /v1/responses` with the `routing` field."""

    model_config = _example(input=_QUESTION)

    @model_validator(mode="before")
    @classmethod
    def _answers_have_content(cls, data: Any) -> Any:
        """vLLM 0.32 takes the first part of each earlier answer, and ends in a 500."""
        items = data.get("input") if isinstance(data, dict) else None
        for i, item in enumerate(items if isinstance(items, list) else ()):
            is_answer = isinstance(item, dict) and item.get("role") == "assistant"
            if is_answer and item.get("content") == []:
                raise VLLMValidationError(
                    f"input[{i}].content must have at least one part, got []",
                    parameter=f"input[{i}].content",
                )
        return data


class RoutedBatchRequest(RoutedRequest, BatchChatCompletionRequest):
    """`POST /v1/chat/completions/batch` with the `routing` field: a choice per conversation."""

    model_config = _example(messages=[_ASKED, _ASKED])

    def to_chat_completion_request(self, messages: list[Any]) -> RoutedChatCompletionRequest:
        """vLLM calls this with each of `self.messages`, the very object."""
        choice = next(i for i, own in enumerate(self.messages) if own is messages)
        chat = super().to_chat_completion_request(messages)
        return RoutedChatCompletionRequest.under(self, chat, choice=choice)

    def num_prompts(self) -> int:
        """Conversations."""
        return len(self.messages)


class RoutedMessagesRequest(RoutedRequest, AnthropicMessagesRequest):
    """`POST /v1/messages` with the `routing` field."""

    model_config = _example(model="galton-demo", max_tokens=64, messages=_ASKED)
