"""Anthropic's client, on /v1/messages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest

from tests.clients import ALIAS, BAD_POLICY, ECHO, HEADERS, MESSAGES, MODEL, POLICY
from tests.clients.conftest import Routed
from tests.shared.servers import Server

ASKED: dict[str, Any] = {"max_tokens": 64, "messages": MESSAGES}
WAYS: dict[str, dict[str, Any]] = {
    "body": {"model": MODEL, "extra_body": {"routing": POLICY}},
    "header": {"model": MODEL, "extra_headers": HEADERS},
    "alias": {"model": ALIAS},
}


@pytest.fixture(scope="module")
def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="unused")


@pytest.mark.parametrize("way", WAYS)
def test_messages(client: anthropic.Anthropic, routed: Routed, expected: str, way: str) -> None:
    create = client.messages.with_raw_response.create
    raw, tokens = routed(lambda: create(**ASKED, **WAYS[way]))
    answer = raw.parse()
    assert answer.content[0].text == expected
    assert answer.model == WAYS[way]["model"]
    assert tokens == answer.usage.output_tokens - 1
    assert answer.model_extra["routing"]["policy"] == ECHO
    assert json.loads(raw.headers["x-routing-policy"]) == ECHO


@pytest.mark.parametrize("way", WAYS)
def test_stream(client: anthropic.Anthropic, routed: Routed, expected: str, way: str) -> None:
    def read() -> tuple[str, Any]:
        with client.messages.stream(**ASKED, **WAYS[way]) as stream:
            return "".join(stream.text_stream), stream.get_final_message()

    (text, final), tokens = routed(read)
    assert text == final.content[0].text == expected
    assert final.stop_reason == "end_turn"
    assert tokens == final.usage.output_tokens - 1


def test_async_messages(server: Server, expected: str) -> None:
    async def ask() -> Any:
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key="unused") as client:
            return await client.messages.create(**ASKED, **WAYS["body"])

    assert asyncio.run(ask()).content[0].text == expected


def test_count_tokens(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**ASKED, **WAYS["alias"])
    counted = client.messages.count_tokens(model=ALIAS, messages=MESSAGES)
    assert counted.input_tokens == answer.usage.input_tokens


def test_bad_policy_is_a_bad_request_that_names_the_field(
    client: anthropic.Anthropic, refusal: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as error:
        client.messages.create(model=MODEL, **ASKED, extra_body={"routing": BAD_POLICY})
    assert refusal in str(error.value)


def test_unknown_preset_is_not_found(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match=ALIAS):
        client.messages.create(model=f"{ALIAS}x", **ASKED)
