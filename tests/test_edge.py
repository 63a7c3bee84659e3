"""The HTTP edge: keys, CORS, body sizes, JSON; most of it without an engine."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import HTTPException

from models.demo import PRESETS
from server.reasoning import name_twice, name_twice_in_stream
from server.strict_json import parse_json
from tests.servers import MODEL, Server, running

KEY = "sk-edge-0123456789"
ORIGIN = {"Origin": "https://chat.example"}
LIMIT = 1000


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """vLLM's application as `galton serve` builds it, without an engine behind it."""
    command = [
        *(sys.executable, "-m", "tests.edge_app"),
        *(f"--api-key={KEY}", '--allowed-origins=["*"]', f"--max-body-bytes={LIMIT}"),
    ]
    with running(command, tmp_path_factory.mktemp("edge") / "log") as started:
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
    with httpx.Client(base_url=url, headers=headers) as client:
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
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Api-Key: %b\r\nContent-Length: 99999999999\r\n\r\n" % KEY.encode()
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


BAD_JSON = [
    (b"{", "Expecting property name"),
    (b"", "Expecting value"),
    (b'{"a": NaN}', "NaN is not a number"),
    (b'{"a": [-Infinity]}', "-Infinity is not a number"),
    (b'{"a": 1e999}', "1e999 is too large"),
    (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    (b'{"a": {"b": 1, "b": 2}}', "key 'b' is given twice"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a": "\xff"}', "can't decode byte 0xff"),
    ('{"a": "\u00e9"}'.encode("utf-16"), "can't decode byte"),
    (b'{"a": "\\ud800"}', "half a surrogate pair"),
    (b'{"a\\uDFFF": 1}', "half a surrogate pair"),
    (b'{"a": "\x00"}', "Invalid control character"),
]


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
    name_twice(answer)
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
        return [chunk async for chunk in name_twice_in_stream(chunks())]

    *events, done = asyncio.run(collect())
    assert done == "data: [DONE]\n\n"
    got = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert got == [
        deltas[0],
        {"reasoning": text, "reasoning_content": text},
        deltas[2],
        {"reasoning": "a", "reasoning_content": "a", "content": "b"},
    ]


CHAT = b'"messages":[{"role":"user","content":"hi"}],"max_tokens":2'
BAD_BODIES = [
    *[("/v1/completions", body) for body, _ in BAD_JSON],
    ("/v1/chat/completions", b"null"),
    ("/v1/chat/completions", b"[]"),
    ("/v1/chat/completions", b"{%b}{}" % CHAT),
    ("/v1/chat/completions", b'{%b,"temperature":NaN}' % CHAT),
    ("/v1/chat/completions", b'{%b,"max_tokens":3}' % CHAT),
    ("/v1/chat/completions", b'{%b,"routing":{"mode":"sample","temperature":1e999}}' % CHAT),
    ("/v1/chat/completions", b'{%b,"routing":{"mode":"sample","seed":%b}}' % (CHAT, b"9" * 400)),
    ("/v1/chat/completions", b'{%b,"routing":{"mode":"sample","heat":1}}' % CHAT),
    ("/v1/chat/completions", b'{%b,"routing":{"mode":"sample\\u0000"}}' % CHAT),
    ("/v1/chat/completions", b'{%b,"routing":%b1%b}' % (CHAT, b"[" * 900, b"]" * 900)),
    ("/v1/chat/completions", b'{%b,"model":"\\ud800"}' % CHAT),
    ("/v1/chat/completions", b'{%b,"structured_outputs":[1]}' % CHAT),
    ("/v1/completions", b'{"prompt":"hi","max_tokens":2,"structured_outputs":"x"}'),
    ("/v1/completions", b'{"prompt":[-1],"max_tokens":2}'),
    ("/v1/completions", b'{"prompt":[999999999],"max_tokens":2}'),
    ("/v1/completions", b'{"prompt":"hi","n":1e308}'),
    ("/v1/responses", b'{"input":[{}],"max_output_tokens":2}'),
    ("/v1/chat/completions/batch", b'{%b,"routing":{"mode":"sample","heat":1}}' % CHAT),
    ("/invocations", b'{%b,"routing":{"mode":"sample","heat":1}}' % CHAT),
    ("/invocations", b"1"),
    ("/invocations", b'{%b,"x":%b}' % (CHAT, b"[" * 100_000)),
]


@pytest.mark.parametrize(("path", "body"), BAD_BODIES)
def test_a_bad_body_is_a_client_error_in_openais_shape(
    server: Server, path: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    response = httpx.post(server.url + path, content=body, headers=headers, timeout=300)
    error = response.json()["error"]
    assert 400 <= response.status_code < 500, response.text
    assert error["code"] == response.status_code
    assert error["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_a_client_error(server: Server, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    response = httpx.post(
        server.url + "/v1/completions", content=b"{}", headers=headers, timeout=300
    )
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


def test_bad_bodies_leave_concurrent_requests_unharmed(server: Server) -> None:
    prompts: list[tuple[list[int], object]] = [
        (list(range(20, 40)), {"mode": "sample", "seed": 7}),
        (list(range(50, 60)), None),
    ]
    alone = [server.tokens(*prompt, max_tokens=64) for prompt in prompts]
    headers = {"Content-Type": "application/json"}

    def send_bad_bodies() -> None:
        for path, body in BAD_BODIES:
            httpx.post(server.url + path, content=body, headers=headers, timeout=300)

    # While the good ones wait for the engine, and while it answers them.
    with server.crowd([partial(server.tokens, *p, max_tokens=64) for p in prompts]) as answers:
        send_bad_bodies()
    send_bad_bodies()
    assert [answer.result() for answer in answers] == alone
