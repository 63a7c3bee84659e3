"""Bad input on a real server: client errors in OpenAI's shape, and nobody else is harmed."""

from __future__ import annotations

import json
import tomllib
from functools import partial
from typing import Any

import pytest

from models.demo import PRESETS
from tests.shared.bad_bodies import BAD_BODIES
from tests.shared.servers import HTTP, MODEL, Server


@pytest.mark.parametrize(("path", "body"), BAD_BODIES)
def test_a_bad_body_is_a_client_error_in_openais_shape(
    server: Server, path: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    response = HTTP.post(server.url + path, content=body, headers=headers)
    error = response.json()["error"]
    assert 400 <= response.status_code < 500, response.text
    assert error["code"] == response.status_code
    assert error["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_a_client_error(server: Server, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    response = HTTP.post(server.url + "/v1/completions", content=b"{}", headers=headers)
    assert response.status_code == 400
    assert "application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("value", [True, -1, 1e308, "x", None])
def test_a_field_that_only_other_endpoints_have_does_not_reach_the_engine(
    server: Server, value: object
) -> None:
    body = {"input": "The cat", "max_output_tokens": 2, "n": value}
    assert server.post("/v1/responses", body).status_code == 200


@pytest.mark.parametrize(
    "body", [{"prompt": "The cat"}, {"messages": [{"role": "user", "content": "hi"}]}]
)
def test_invocations_follow_the_policy_too(server: Server, body: dict[str, object]) -> None:
    response = server.post("/invocations", {**body, "model": f"{MODEL}-fast", "max_tokens": 2})
    assert response.status_code == 200
    fast = tomllib.loads(PRESETS.read_text())["presets"]["fast"]["routing"]
    assert json.loads(response.headers["x-routing-policy"])["top_k"] == fast["top_k"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]},
        ),
        ("/v1/chat/completions", {"messages": [{"role": 5, "content": 5}]}),
    ],
)
def test_many_errors_are_not_described_one_by_one(
    server: Server, path: str, body: dict[str, list[Any]]
) -> None:
    ((field, (part,)),) = body.items()
    refused = server.post(path, {field: [part] * 5_000})
    assert refused.status_code == 400
    assert "errors, too many to tell which" in refused.json()["error"]["message"]
    assert len(refused.content) < 1000


MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}
MANY = {f"p{i}": {"type": "string"} for i in range(500)}


@pytest.mark.parametrize(
    "asked",
    [
        {"structured_outputs": {"regex": "("}},
        {"structured_outputs": {"grammar": "root ::= nothing"}},
        {"not": {"type": "string"}},
        {"type": "object", "properties": MANY, "minProperties": 250, "maxProperties": 499},
        {"$ref": "#/nowhere"},
    ],
)
def test_structure_that_is_not_supported_is_a_400_and_harms_nobody(
    small_server: Server, asked: dict[str, Any]
) -> None:
    def answer(asked: dict[str, Any]) -> Any:
        if "structured_outputs" not in asked:
            schema = {"name": "x", "schema": asked}
            asked = {"response_format": {"type": "json_schema", "json_schema": schema}}
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, **asked}
        return small_server.post("/v1/chat/completions", chat)

    refused = answer(asked)
    assert refused.status_code == 400, refused.text
    assert answer({"enum": ["yes", "no"]}).json()["choices"][0]["message"]["content"] in (
        '"yes"',
        '"no"',
    )


def test_more_than_may_wait_are_told_to_come_again(small_server: Server) -> None:
    """At most 48 may run and wait on this server."""
    name, reason = "vllm:admission_rejections_total", "max_num_queued_reqs"
    before = small_server.metric(name, reason=reason)
    body = {"prompt": [20, 21], "max_tokens": 4, "ignore_eos": True}
    asks = [partial(small_server.post, "/v1/completions", body)] * 48
    with small_server.crowd(asks) as answers:
        for path, extra in (("/v1/completions", {}), ("/v1/messages", MESSAGES)):
            refused = small_server.post(path, {**body, **extra})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "busy" in refused.json()["error"]["message"]
        unread = HTTP.post(small_server.url + "/v1/chat/completions", content=b"{")
        assert unread.status_code == 503
    assert {answer.result().status_code for answer in answers} == {200}
    assert small_server.metric(name, reason=reason) == before + 3


OUTPUT = {"type": "function_call_output", "id": "", "created_by": None, "status": "completed"}
ANSWER = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}


@pytest.mark.parametrize(
    "item",
    [
        {**OUTPUT, "output": [{"type": "input_file"}]},
        {**ANSWER, "content": [{"type": "refusal", "refusal": "no"}]},
    ],
)
def test_part_that_makes_no_prompt_is_a_client_error(server: Server, item: dict[str, Any]) -> None:
    refused = server.post("/v1/responses", {"input": [item], "max_output_tokens": 2})
    assert refused.status_code == 400
    assert "cannot be made into a prompt" in refused.json()["error"]["message"]


def test_priority_that_the_engine_cannot_be_sent(server: Server) -> None:
    headers = {"X-Vllm-Priority": "9" * 30}
    refused = server.post("/v1/completions", {"prompt": "hi", "stream": True}, headers=headers)
    assert refused.status_code == 400
    assert "X-Vllm-Priority must be from -2^63 to 2^63 - 1" in refused.json()["error"]["message"]


@pytest.mark.parametrize("n", [1, 2])
def test_request_that_the_engine_cannot_be_sent_takes_no_place(
    small_server: Server, n: int
) -> None:
    """vLLM would keep it among the running ones for ever, of which there may be 48."""
    body = {"prompt": [20, 21], "max_tokens": 2, "n": n, "temperature": 1}
    patterns = {"max_pattern_size": 10**30, "min_count": 2}
    for _ in range(50):
        refused = small_server.post("/v1/completions", {**body, "repetition_detection": patterns})
        assert refused.status_code == 400, refused.text
        assert "at most 64 bits" in refused.json()["error"]["message"]
    assert small_server.post("/v1/completions", body).status_code == 200


def test_bad_bodies_leave_concurrent_requests_unharmed(server: Server) -> None:
    prompts: list[tuple[list[int], object]] = [
        (list(range(20, 40)), {"mode": "sample", "seed": 7}),
        (list(range(50, 60)), None),
    ]
    alone = [server.tokens(*prompt, max_tokens=64) for prompt in prompts]
    headers = {"Content-Type": "application/json"}

    def send_bad_bodies() -> None:
        for path, body in BAD_BODIES:
            HTTP.post(server.url + path, content=body, headers=headers)

    # While the good ones wait for the engine, and while it answers them.
    with server.crowd([partial(server.tokens, *p, max_tokens=64) for p in prompts]) as answers:
        send_bad_bodies()
    send_bad_bodies()
    assert [answer.result() for answer in answers] == alone
