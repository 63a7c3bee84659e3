"""LlamaIndex's OpenAI-like model; a policy goes into `additional_kwargs` or `default_headers`."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from tests.clients import ALIAS, BAD_POLICY, ECHO, HEADERS, MODEL, POLICY, QUESTION
from tests.clients.conftest import Routed

BODY = {"extra_body": {"routing": POLICY}}
WAYS: dict[str, dict[str, Any]] = {
    "body": {"additional_kwargs": BODY},
    "header": {"default_headers": HEADERS},
    "alias": {"model": ALIAS},
}


def model(base_url: str, **settings: Any) -> OpenAILike:
    at = {"model": MODEL, "api_base": base_url, "api_key": "unused", "temperature": 0}
    return OpenAILike(**{**at, "is_chat_model": True, "context_window": 2048, **settings})


@pytest.mark.parametrize("way", WAYS)
def test_chat(base_url: str, routed: Routed, expected: str, way: str) -> None:
    chat = model(base_url, **WAYS[way]).chat
    answer, tokens = routed(lambda: chat([ChatMessage(role="user", content=QUESTION)]))
    assert answer.message.content == expected
    assert tokens == answer.raw.usage.completion_tokens - 1
    assert answer.raw.routing["policy"] == ECHO


@pytest.mark.parametrize("way", WAYS)
def test_stream(base_url: str, routed: Routed, expected: str, way: str) -> None:
    stream = model(base_url, **WAYS[way]).stream_complete
    usage = {"stream_options": {"include_usage": True}}
    parts, tokens = routed(lambda: list(stream(QUESTION, **usage)))
    assert parts[-1].text == "".join(part.delta or "" for part in parts) == expected
    assert tokens == parts[-1].raw.usage.completion_tokens - 1
    assert parts[-1].raw.routing["policy"] == ECHO


def test_async_complete(base_url: str, expected: str) -> None:
    answer = asyncio.run(model(base_url, additional_kwargs=BODY).acomplete(QUESTION))
    assert answer.text == expected


def test_completion_model(base_url: str, routed: Routed) -> None:
    complete = model(base_url, is_chat_model=False, max_tokens=8, additional_kwargs=BODY).complete
    answer, tokens = routed(lambda: complete("The cat"))
    assert tokens == answer.raw.usage.completion_tokens - 1
    assert answer.raw.routing["policy"] == ECHO


def test_bad_policy_is_a_bad_request_that_names_the_field(base_url: str, refusal: str) -> None:
    bad = {"extra_body": {"routing": BAD_POLICY}}
    with pytest.raises(openai.BadRequestError) as error:
        model(base_url, additional_kwargs=bad).complete(QUESTION)
    assert refusal in error.value.message
