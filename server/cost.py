"""What one request may cost: judged where it comes in, before anything of that size is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from vllm.entrypoints.generate.base.serving import PRIORITY_HEADER
from vllm.exceptions import VLLMValidationError


def field(request: BaseModel, *names: str) -> Any:
    """The value of the first of these fields that has one; None if none has.

    Fields of vLLM's model alone: vLLM keeps others that a client sends, of any type.
    """
    declared = type(request).model_fields
    values = (getattr(request, name) for name in names if name in declared)
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a request may ask for.

    max_choices: answers, of all its prompts together. max_logprobs: log-probabilities, of all
    tokens of all choices and prompts. max_model_len: tokens of prompt and answer; vocab_size:
    what -1, all log-probabilities, means.
    """

    max_choices: int
    max_logprobs: int
    max_model_len: int
    vocab_size: int

    def check(self, request: BaseModel, num_prompts: int, num_bytes: int) -> None:
        """Refuse a request of that many prompts and a body of that size, which has more bytes than
        its prompts have tokens. Raises VLLMValidationError.
        """
        num_choices = num_prompts * max(field(request, "n") or 1, 1)
        if num_choices > self.max_choices:
            raise VLLMValidationError(
                f"n x prompts must be at most {self.max_choices:,} choices in one request "
                f"(--max-choices), got {num_choices:,}",
                parameter="n",
            )
        asked = field(request, "max_completion_tokens", "max_tokens", "max_output_tokens")
        length = self.max_model_len if asked is None else min(asked, self.max_model_len)
        prompts = min(num_prompts * self.max_model_len, num_bytes)
        of_answer = self._per_token(request, "logprobs", "top_logprobs")
        of_prompt = self._per_token(request, "prompt_logprobs")
        if field(request, "echo"):  # the prompt is part of the answer
            of_prompt = max(of_prompt, of_answer)
        num_logprobs = num_choices * length * of_answer + prompts * of_prompt
        if num_logprobs > self.max_logprobs:
            raise VLLMValidationError(
                "tokens x log-probabilities per token, of all choices and prompts, must be at most "
                f"{self.max_logprobs:,} in one request (--max-logprobs-per-request), got up to "
                f"{num_logprobs:,}: ask for fewer, or set max_tokens",
                parameter="logprobs",
            )

    def _per_token(self, request: BaseModel, *names: str) -> int:
        """Log-probabilities of each token: the best, and its own."""
        asked = [int(field(request, name) or 0) for name in names]
        most = self.vocab_size if -1 in asked else max(asked)
        return most + 1 if most else 0


def check_priority(headers: Mapping[str, str]) -> None:
    """Refuse a header that vLLM takes for a priority and cannot send to its engine.

    Raises VLLMValidationError.
    """
    try:
        priority = int(headers.get(PRIORITY_HEADER, 0))
    except ValueError:  # vLLM ignores that
        return
    if not -(2**63) <= priority < 2**63:
        raise VLLMValidationError(
            f"header {PRIORITY_HEADER} must be from -2^63 to 2^63 - 1, got {priority!s:.80}",
            parameter=PRIORITY_HEADER,
        )


def num_prompts(prompt: object) -> int:
    """Prompts in a completion's field: a text, a list of token ids, or a list of such."""
    if not isinstance(prompt, Sequence) or isinstance(prompt, str | bytes):
        return 1
    return len(prompt) if prompt and not isinstance(prompt[0], int) else 1
