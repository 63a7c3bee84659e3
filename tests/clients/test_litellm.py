"""LiteLLM, as `openai/...` and as `hosted_vllm/...`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
import pytest

from tests.clients import ALIAS, BAD_POLICY, ECHO, HEADERS, MESSAGES, MODEL, POLICY, QUESTION
from tests.clients.conftest import Routed

PROVIDERS = ("openai", "hosted_vllm")
BODY = {"routing": POLICY}
WAYS: dict[str, dict[str, Any]] = {
    "body": {"extra_body": BODY},
    "header": {"extra_headers": HEADERS},
    "alias": {"model": ALIAS},
}


def asked(base_url: str, provider: str, **settings: Any) -> dict[str, Any]:
    model = f"{provider}/{settings.pop('model', MODEL)}"
    at = {"model": model, "api_base": base_url, "api_key": "unused"}
    return {**at, "messages": MESSAGES, **settings}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_completion(base_url: str, routed: Routed, expected: str, provider: str, way: str) -> None:
    answer, tokens = routed(lambda: litellm.completion(**asked(base_url, provider, **WAYS[way])))
    assert answer.choices[0].message.content == expected
    assert tokens == answer.usage.completion_tokens - 1
    assert answer.routing["policy"] == ECHO
    headers = answer._hidden_params["additional_headers"]
    assert json.loads(headers["llm_provider-x-routing-policy"]) == ECHO


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_stream(base_url: str, routed: Routed, expected: str, provider: str, way: str) -> None:
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    request = asked(base_url, provider, **stream, **WAYS[way])
    chunks, tokens = routed(lambda: list(litellm.completion(**request)))
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == expected
    assert tokens == chunks[-1].usage.completion_tokens - 1


def test_async_completion(base_url: str, expected: str) -> None:
    answer = asyncio.run(litellm.acompletion(**asked(base_url, "openai", extra_body=BODY)))
    assert answer.choices[0].message.content == expected


def test_text_completion(base_url: str) -> None:
    answer = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}",
        api_base=base_url,
        api_key="unused",
        prompt="The cat",
        max_tokens=8,
        extra_body=BODY,
    )
    assert answer.usage.completion_tokens > 0
    assert answer.routing["policy"] == ECHO


def test_responses(base_url: str, routed: Routed, expected: str) -> None:
    answer, tokens = routed(
        lambda: litellm.responses(
            model=f"openai/{MODEL}",
            api_base=base_url,
            api_key="unused",
            input=QUESTION,
            extra_body=BODY,
        )
    )
    assert answer.output[0].content[0].text == expected
    assert tokens == answer.usage.output_tokens - 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_bad_policy_is_a_bad_request_that_names_the_field(
    base_url: str, refusal: str, provider: str
) -> None:
    with pytest.raises(litellm.BadRequestError) as error:
        litellm.completion(**asked(base_url, provider, extra_body={"routing": BAD_POLICY}))
    assert refusal in error.value.message
