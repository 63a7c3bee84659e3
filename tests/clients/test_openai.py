"""OpenAI's own client: every endpoint, sync and async, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.clients import ALIAS, BAD_POLICY, ECHO, HEADERS, MESSAGES, MODEL, POLICY, QUESTION
from tests.clients.conftest import Routed

BODY = {"routing": POLICY}
WAYS: dict[str, dict[str, Any]] = {
    "body": {"model": MODEL, "extra_body": BODY},
    "header": {"model": MODEL, "extra_headers": HEADERS},
    "alias": {"model": ALIAS},
}


@pytest.fixture(scope="module")
def client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key="unused")


@pytest.mark.parametrize("way", WAYS)
def test_chat(client: openai.OpenAI, routed: Routed, expected: str, way: str) -> None:
    create = client.chat.completions.with_raw_response.create
    raw, tokens = routed(lambda: create(messages=MESSAGES, **WAYS[way]))
    answer = raw.parse()
    assert answer.choices[0].message.content == expected
    assert answer.model == WAYS[way]["model"]
    # The last token is never routed: nothing is computed from it.
    assert tokens == answer.usage.completion_tokens - 1
    assert answer.model_extra["routing"]["policy"] == ECHO
    assert json.loads(raw.headers["x-routing-policy"]) == ECHO


@pytest.mark.parametrize("way", WAYS)
def test_streamed_chat(client: openai.OpenAI, routed: Routed, expected: str, way: str) -> None:
    def stream() -> list[Any]:
        answer = client.chat.completions.create(
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            **WAYS[way],
        )
        return list(answer)

    chunks, tokens = routed(stream)
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == expected
    assert tokens == chunks[-1].usage.completion_tokens - 1
    assert chunks[-1].routing["policy"] == ECHO


def test_async_crowd_keeps_each_requests_policy(client: openai.OpenAI, base_url: str) -> None:
    seeds = range(8)

    def asked(seed: int) -> dict[str, Any]:
        body = {"routing": {**POLICY, "seed": seed}}
        return {"model": MODEL, "messages": MESSAGES, "extra_body": body}

    async def crowd() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="unused") as crowded:
            return await asyncio.gather(
                *(crowded.chat.completions.create(**asked(seed)) for seed in seeds)
            )

    answers = asyncio.run(crowd())
    assert [a.model_extra["routing"]["policy"]["seed"] for a in answers] == list(seeds)
    alone = [client.chat.completions.create(**asked(seed)) for seed in seeds]
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts == [answer.choices[0].message.content for answer in alone]
    assert len(set(texts)) > 1


def test_async_stream(base_url: str, expected: str) -> None:
    async def stream() -> str:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="unused") as client:
            chunks = await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, stream=True, extra_body=BODY
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    assert asyncio.run(stream()) == expected


@pytest.mark.parametrize("way", WAYS)
def test_completions(client: openai.OpenAI, routed: Routed, way: str) -> None:
    asked: dict[str, Any] = {"prompt": "The cat", "max_tokens": 8, **WAYS[way]}
    answer, tokens = routed(lambda: client.completions.create(**asked))
    assert tokens == answer.usage.completion_tokens - 1
    assert answer.model_extra["routing"]["policy"] == ECHO
    streamed = client.completions.create(stream=True, **asked)
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text


@pytest.mark.parametrize("way", WAYS)
def test_responses(client: openai.OpenAI, routed: Routed, expected: str, way: str) -> None:
    answer, tokens = routed(lambda: client.responses.create(input=QUESTION, **WAYS[way]))
    assert answer.output_text == expected
    assert tokens == answer.usage.output_tokens - 1
    assert answer.model_extra["routing"]["policy"] == ECHO


def test_streamed_responses(client: openai.OpenAI, expected: str) -> None:
    with client.responses.stream(model=MODEL, input=QUESTION, extra_body=BODY) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == expected
    assert final.model_extra["routing"]["policy"] == ECHO


def test_choices_tell_their_seeds(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, n=3, extra_body=BODY)
    assert len({choice.message.content for choice in answer.choices}) > 1
    seed = answer.model_extra["routing"]["choice_seeds"][2]
    again = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, extra_body={"routing": {**POLICY, "seed": seed}}
    )
    assert again.choices[0].message.content == answer.choices[2].message.content


def test_parsed_structured_output(client: openai.OpenAI) -> None:
    class Weather(BaseModel):
        cold: bool

    answer = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Weather, extra_body=BODY
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_bad_policy_is_a_bad_request_that_names_the_field(
    client: openai.OpenAI, refusal: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(
                model=MODEL, messages=MESSAGES, stream=stream, extra_body={"routing": BAD_POLICY}
            )
        assert error.value.param == "routing.temperature"
        assert refusal in error.value.message


def test_unknown_preset_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=ALIAS):
        client.chat.completions.create(model=f"{ALIAS}x", messages=MESSAGES)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert {MODEL, ALIAS} <= {model.id for model in client.models.list()}
