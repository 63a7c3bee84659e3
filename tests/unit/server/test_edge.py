"""The HTTP edge: keys, CORS, body sizes, JSON, without an engine behind it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import HTTPException

from server.sse import name_reasoning_twice, with_reasoning_content
from server.strict_json import parse_json
from tests.shared.bad_bodies import BAD_JSON
from tests.shared.servers import Server, running

KEY = "sk-edge-0123456789"
ORIGIN = {"Origin": "https://chat.example"}
LIMIT = 1000


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """vLLM's application as `galton serve` builds it, without an engine behind it."""
    command = [
        *(sys.executable, "-m", "tests.shared.edge_app"),
        *(f"--api-key={KEY}", '--allowed-origins=["*"]', f"--max-body-bytes={LIMIT}"),
    ]
    log = tmp_path_factory.mktemp("edge") / "log"
    with running(command, log, popen=subprocess.Popen) as started:
        yield started


@pytest.fixture
def url(edge: Server) -> str:
    return edge.url


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"api-key": KEY}, {"x-api-key": KEY}, {"API-Key": KEY}],
)
def test_a_key_is_read_from_each_header_that_clients_send(
    url: str, headers: dict[str, str]
) -> None:
    assert (
        httpx.post(f"{url}/v1/completions", headers=headers, json=[], timeout=300).status_code
        == 400
    )
    wrong = {name: value + "x" for name, value in headers.items()}
    assert (
        httpx.post(f"{url}/v1/completions", headers=wrong, json=[], timeout=300).status_code == 401
    )


def test_keys_are_never_logged(edge: Server) -> None:
    for name in ("api-key", "x-api-key"):
        httpx.post(f"{edge.url}/v1/crash", headers={name: KEY}, timeout=300)
    assert "broken on purpose" in edge.log.read_text()
    assert KEY not in edge.log.read_text()


def test_the_authorization_header_wins_over_the_others(url: str) -> None:
    headers = {"Authorization": "Bearer wrong", "api-key": KEY}
    assert (
        httpx.post(f"{url}/v1/completions", headers=headers, json=[], timeout=300).status_code
        == 401
    )


@pytest.mark.parametrize(
    ("status", "method", "path", "headers", "body"),
    [
        (401, "GET", "/v1/models", {}, b""),
        (404, "GET", "/v1/nothing", {"api-key": KEY}, b""),
        (405, "PUT", "/v1/completions", {"api-key": KEY}, b""),
        (400, "POST", "/v1/completions", {"api-key": KEY}, b"{"),
        (413, "POST", "/v1/completions", {"api-key": KEY}, b" " * (LIMIT + 1)),
        (500, "POST", "/v1/crash", {"api-key": KEY}, b""),
    ],
)
def test_a_browser_can_read_every_error(
    url: str, status: int, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    headers = {"Content-Type": "application/json", **ORIGIN, **headers}
    response = httpx.request(method, url + path, headers=headers, content=body, timeout=300)
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["access-control-expose-headers"] == "x-routing-policy"
    if status != 401:  # vLLM's own, a bare string
        error = response.json()["error"]
        assert error["code"] == status
        assert error["message"]


def test_a_preflight_needs_no_key(url: str) -> None:
    asked = {
        **ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-routing-policy",
    }
    response = httpx.options(f"{url}/v1/chat/completions", headers=asked, timeout=300)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"
    assert "x-routing-policy" in response.headers["access-control-allow-headers"]


def _pieces(num_bytes: int, sent: list[int]) -> Iterator[bytes]:
    """A chunked body with no declared length; notes how much was asked for."""
    for _ in range(num_bytes // 100):
        sent[0] += 100
        yield b" " * 100


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/tokenize", "/invocations"])
def test_a_body_over_the_limit_is_a_413_that_names_it(url: str, path: str, chunked: bool) -> None:
    headers = {"Content-Type": "application/json", "api-key": KEY}
    with httpx.Client(base_url=url, headers=headers, timeout=300) as client:
        content: Any = _pieces(10 * LIMIT, [0]) if chunked else b" " * (10 * LIMIT)
        response = client.post(path, content=content)
        assert response.status_code == 413
        error = response.json()["error"]
        assert str(LIMIT) in error["message"]
        assert error["code"] == 413
        # The same connection goes on.
        assert client.post(path, content=b" " * LIMIT).status_code == 400


def test_a_declared_length_over_the_limit_is_refused_before_the_body_is_sent(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=300) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Api-Key: %b\r\nContent-Length: 99999999999\r\n\r\n" % KEY.encode()
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("body", "says"), BAD_JSON)
def test_what_is_not_json_is_a_400_that_says_why(body: bytes, says: str) -> None:
    with pytest.raises(HTTPException, match=says) as refused:
        parse_json(body)
    assert refused.value.status_code == 400


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, "é😀\x00", None]}, {"a": {"b": 1}, "c": {"b": 1}}, 1e308, "\\ud800"]
)
def test_valid_json_is_read_as_python_reads_it(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode()) == value


def test_reasoning_has_its_older_name_too() -> None:
    message = {"role": "assistant", "content": "4", "reasoning": "2+2"}
    answer = {"choices": [{"message": message}, {"message": {"content": "4"}}]}
    name_reasoning_twice(answer)
    assert answer["choices"][0]["message"] == {**message, "reasoning_content": "2+2"}
    assert answer["choices"][1]["message"]["reasoning_content"] is None


def test_reasoning_has_its_older_name_in_streams_too() -> None:
    text = 'say "reasoning":"x" \\ \n é'
    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning": text},
        {"content": f'"reasoning":"{text}"'},
        {"reasoning": "a", "content": "b"},
    ]

    async def chunks() -> AsyncIterator[str]:
        for delta in deltas:
            chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            yield f"data: {json.dumps(chunk, separators=(',', ':'), ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    async def collect() -> list[str]:
        return [chunk async for chunk in with_reasoning_content(chunks())]

    *events, done = asyncio.run(collect())
    assert done == "data: [DONE]\n\n"
    got = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert got == [
        deltas[0],
        {"reasoning": text, "reasoning_content": text},
        deltas[2],
        {"reasoning": "a", "reasoning_content": "a", "content": "b"},
    ]
