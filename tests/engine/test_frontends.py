"""Popular frontends against a real server: `frontends/*.toml` has what each really sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import KEY_OF_TWO
from tests.shared.frontends import PROFILES
from tests.shared.servers import HTTP, MODEL, Server

SEVEN = {"mode": "sample", "top_k": 4, "temperature": 0.7, "seed": 7, "scope": "decode"}
TWO = {"mode": "top_k", "top_k": 2, "scope": "decode"}


def _choices() -> list[Any]:
    """Every POST of every frontend, with each way that it has to choose a policy."""
    return [
        pytest.param(request, way, id=f"{name}-{number}-{way}")
        for name, profile in PROFILES.items()
        for number, request in enumerate(profile["requests"])
        for way in ("model", "key", "header", "body")
        if "body" in request and way in profile["set"]
    ]


def _asked(request: dict[str, Any], way: str, *, stream: bool) -> tuple[dict[str, Any], Any]:
    """Headers and body of a request that chooses the preset `seven` by alias, else `two`."""
    key = KEY_OF_TWO if way == "key" else "sk-unknown"
    headers = {name: value.replace("KEY", key) for name, value in request["headers"].items()}
    model = f"{MODEL}-seven" if way == "model" else MODEL
    body = {**request["body"], "model": model, "stream": stream}
    if not stream:
        body.pop("stream_options", None)
    if way == "header":
        headers["X-Routing-Policy"] = "two"
    if way == "body":
        body["routing"] = "two"
    return headers, body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("request_", "way"), _choices())
def test_each_frontend_is_answered_with_the_policy_it_chose(
    server: Server, request_: dict[str, Any], way: str, stream: bool
) -> None:
    headers, body = _asked(request_, way, stream=stream)
    url = server.url + request_["path"]
    response = HTTP.post(url, headers=headers, json=body)
    assert response.status_code == 200, response.text
    policy = SEVEN if way == "model" else TWO
    assert json.loads(response.headers["x-routing-policy"]) == policy
    if stream:
        assert response.headers["content-type"].startswith("text/event-stream")
        _check_stream(response.text, body, policy)
    else:
        answer = response.json()
        assert answer["model"] == body["model"]
        assert answer["routing"]["policy"] == policy
        assert answer["usage"]


def _check_stream(text: str, body: dict[str, Any], policy: dict[str, Any]) -> None:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if "input" in body:  # the Responses API
        done = json.loads(data[-1])["response"]
        assert (done["model"], done["routing"]["policy"]) == (body["model"], policy)
        return
    *chunks, done = data
    assert done == "[DONE]"
    first, last = json.loads(chunks[0]), json.loads(chunks[-1])
    assert (first["model"], last["routing"]["policy"]) == (body["model"], policy)
    if body.get("stream_options"):
        assert last["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("name", PROFILES)
def test_each_frontend_that_lists_models_finds_the_aliases(server: Server, name: str) -> None:
    for request in PROFILES[name]["requests"]:
        if request.get("method") == "GET":
            headers = {k: v.replace("KEY", "sk-any") for k, v in request["headers"].items()}
            response = HTTP.get(server.url + request["path"], headers=headers)
            names = {model["id"] for model in response.json()["data"]}
            assert {MODEL, f"{MODEL}-seven", f"{MODEL}-fast"} <= names


def test_profiles_say_what_was_read_and_what_can_be_set() -> None:
    assert len(PROFILES) >= 12
    for name, profile in PROFILES.items():
        assert profile.keys() == {"name", "use", "read", "sources", "set", "requests"}, name
        assert {"base_url", "key", "model"} <= profile["set"].keys(), name
        assert profile["sources"], name
