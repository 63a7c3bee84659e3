"""The HTTP edge: keys, CORS, body sizes, JSON, without an engine behind it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import HTTPException

from server.sse import name_reasoning_twice, with_reasoning_content
from server.strict_json import MAX_PARTS, parse_json
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
    error = response.json()["error"]
    assert error["code"] == status
    assert error["message"]


def test_every_path_but_the_probes_needs_a_key(url: str) -> None:
    """Of all that the application answers, as it says in its own description, and more."""
    page = httpx.get(f"{url}/openapi.json", headers={"api-key": KEY}, timeout=300).json()
    operations = {(m.upper(), p) for p, path in page["paths"].items() for m in path}
    assert len(operations) > 25
    operations |= {
        ("GET", p) for p in ("/docs", "/redoc", "/openapi.json", "/nothing", "/metricsx")
    }
    operations |= {("POST", p) for p in ("/v1/crash", "//invocations", "/v1//completions")}
    is_open = set[str]()
    for method, path in sorted(operations):
        status = httpx.request(method, url + path.replace("{", "").replace("}", "")).status_code
        if status != 401:
            is_open.add(path)
    assert is_open <= {"/health", "/metrics", "/metrics/serving", "/ping", "/ready"}


def test_a_missing_and_a_wrong_key_are_told_apart(url: str) -> None:
    for headers, says in (({}, "the API key is missing"), ({"api-key": "x"}, "is not one of this")):
        refused = httpx.post(f"{url}/v1/completions", headers=headers, json={})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert says in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("status", "error_type", "method", "path", "headers", "body"),
    [
        (401, "authentication_error", "POST", "/v1/messages", {}, b"{}"),
        (404, "not_found_error", "GET", "/v1/messages/nothing", {"api-key": KEY}, b""),
        (405, "invalid_request_error", "PUT", "/v1/messages", {"api-key": KEY}, b""),
        (400, "invalid_request_error", "POST", "/v1/messages", {"api-key": KEY}, b"{"),
        (400, "invalid_request_error", "POST", "//v1/messages", {"api-key": KEY}, b"{}"),
        (413, "request_too_large", "POST", "/v1/messages", {"api-key": KEY}, b" " * (LIMIT + 1)),
    ],
)
def test_anthropics_endpoint_has_anthropics_errors(
    url: str,
    status: int,
    error_type: str,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    headers = {"Content-Type": "application/json", **headers}
    response = httpx.request(method, url + path, headers=headers, content=body, timeout=300)
    error = response.json()
    assert (response.status_code, error["type"], error["error"]["type"]) == (
        status,
        "error",
        error_type,
    )
    assert error["error"]["message"]


def test_a_wrong_method_is_told_the_right_one(url: str) -> None:
    response = httpx.delete(f"{url}/v1/chat/completions", headers={"api-key": KEY}, timeout=300)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_what_is_clear_is_not_refused(url: str) -> None:
    assert httpx.get(f"{url}/ready", timeout=300).status_code == 503  # there is no engine
    head = httpx.head(f"{url}/health", timeout=300)
    assert (head.status_code, head.content) == (200, b"")
    slashes = httpx.post(f"{url}//v1///completions", headers={"api-key": KEY}, json=[], timeout=300)
    assert slashes.status_code == 400


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_an_offer_of_http_2_is_declined_and_the_request_answered(
    url: str, chunked: bool, apart: bool
) -> None:
    """As Java's HTTP client makes it; body and head in one segment, or in two."""
    host, port = url.removeprefix("http://").split(":")
    body = b'{"prompt": NaN}'
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Api-Key: %b\r\n%b\r\n\r\n" % (KEY.encode(), length)
    )
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with socket.create_connection((host, int(port)), timeout=300) as connection:
        for _ in range(2):  # the connection goes on
            connection.sendall(head if apart else head + body)
            if apart:
                time.sleep(0.1)
                connection.sendall(body)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 400
            assert b"expected value at line 1 column 12" in answer.read()


def test_an_idle_connection_outlives_those_of_proxies(url: str) -> None:
    with httpx.Client(limits=httpx.Limits(keepalive_expiry=None), timeout=300) as client:
        client.get(f"{url}/health")
        time.sleep(6)  # uvicorn would have closed it after five
        assert client.get(f"{url}/health").status_code == 200


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
        if path != "/v1/messages":  # Anthropic's errors have a type instead, seen above
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


def test_a_body_has_a_greatest_number_of_parts() -> None:
    many: list[object] = [{}] * MAX_PARTS
    with pytest.raises(HTTPException, match="at most 32,768 objects and lists"):
        parse_json(json.dumps(many).encode())
    numbers = {"ids": list(range(100_000)), "embedding": [0.5] * 100_000}
    assert parse_json(json.dumps(numbers).encode()) == numbers


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
