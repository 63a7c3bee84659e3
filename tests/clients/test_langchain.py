"""LangChain's OpenAI models; a policy goes into `extra_body` or `default_headers`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

from tests.clients import ALIAS, BAD_POLICY, ECHO, HEADERS, MODEL, POLICY, QUESTION
from tests.clients.conftest import Routed

BODY = {"routing": POLICY}
WAYS: dict[str, dict[str, Any]] = {
    "body": {"extra_body": BODY},
    "header": {"default_headers": HEADERS},
    "alias": {"model": ALIAS},
}


def chat(base_url: str, **settings: Any) -> ChatOpenAI:
    at = {"model": MODEL, "base_url": base_url, "api_key": "unused"}
    return ChatOpenAI(**{**at, **settings})


@pytest.mark.parametrize("way", WAYS)
def test_invoke(base_url: str, routed: Routed, expected: str, way: str) -> None:
    model = chat(base_url, include_response_headers=True, **WAYS[way])
    answer, tokens = routed(lambda: model.invoke(QUESTION))
    assert answer.content == expected
    assert tokens == answer.usage_metadata["output_tokens"] - 1
    assert json.loads(answer.response_metadata["headers"]["x-routing-policy"]) == ECHO


@pytest.mark.parametrize("way", WAYS)
def test_stream(base_url: str, routed: Routed, expected: str, way: str) -> None:
    model = chat(base_url, stream_usage=True, **WAYS[way])
    chunks, tokens = routed(lambda: list(model.stream(QUESTION)))
    assert "".join(chunk.content for chunk in chunks) == expected
    (usage,) = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert tokens == usage["output_tokens"] - 1


def test_policy_of_one_call_wins_over_the_models(base_url: str, expected: str) -> None:
    model = chat(base_url, extra_body={"routing": {"mode": "top_k"}})
    assert model.bind(extra_body=BODY).invoke(QUESTION).content == expected


def test_async_and_batch(base_url: str, expected: str) -> None:
    model = chat(base_url, extra_body=BODY)
    assert asyncio.run(model.ainvoke(QUESTION)).content == expected
    assert [answer.content for answer in model.batch([QUESTION] * 4)] == [expected] * 4


def test_responses_api(base_url: str, routed: Routed, expected: str) -> None:
    model = chat(base_url, extra_body=BODY, use_responses_api=True)
    answer, tokens = routed(lambda: model.invoke(QUESTION))
    assert answer.text == expected
    assert tokens == answer.usage_metadata["output_tokens"] - 1


def test_structured_output(base_url: str) -> None:
    class Weather(BaseModel):
        cold: bool

    for method in ("json_schema", "function_calling"):
        model = chat(base_url, extra_body=BODY).with_structured_output(Weather, method=method)
        assert isinstance(model.invoke(QUESTION), Weather)


def test_completion_model(base_url: str, routed: Routed) -> None:
    model = OpenAI(
        model=MODEL,
        base_url=base_url,
        api_key="unused",
        max_tokens=8,
        temperature=0,  # its own default is 0.7, without a seed
        extra_body=BODY,
    )
    text, tokens = routed(lambda: model.invoke("The cat"))
    assert text == "".join(model.stream("The cat"))
    assert tokens > 0


def test_bad_policy_is_a_bad_request_that_names_the_field(base_url: str, refusal: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        chat(base_url, extra_body={"routing": BAD_POLICY}).invoke(QUESTION)
    assert refusal in error.value.message
