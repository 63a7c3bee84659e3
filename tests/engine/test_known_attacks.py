"""Published attacks on servers of this kind, in the shape in which they would come here.

Each is named by its CVE, see https://nvd.nist.gov/vuln/detail/CVE-..., and who had it. It must
be refused or come to nothing: no 5xx, and others are answered as before.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from loadtests.raw import address
from tests.conftest import FreshPrompt
from tests.shared.servers import HTTP, MODEL, Server, eventually

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
CANARY: tuple[list[int], dict[str, Any]] = ([20, 21, 22], {"mode": "sample", "seed": 7})


def chat(content: object = "hi", **body: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {
        **CHAT,
        "messages": [{"role": "user", "content": content}],
        **body,
    }


def complete(**body: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"prompt": "hi", "max_tokens": 4, **body}


def schema(schema: object) -> tuple[str, dict[str, Any]]:
    described = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return chat(response_format=described)


def url(kind: str, link: str) -> tuple[str, dict[str, Any]]:
    return chat([{"type": kind, kind: {"url": link}}, {"type": "text", "text": "hi"}])


@pytest.fixture(scope="module")
def expected(server: Server) -> list[int]:
    return server.tokens(*CANARY)


@pytest.fixture(autouse=True)
def others_are_unharmed(server: Server, expected: list[int]) -> Iterator[None]:
    yield
    assert server.tokens(*CANARY) == expected


LOOP = "{% for i in range(10**9) %}{% endfor %}"
BODIES = {
    "CVE-2024-8768 vLLM, an empty prompt ends the engine": complete(prompt=""),
    "CVE-2024-8939 vLLM, best_of without a bound": complete(best_of=10**9),
    "CVE-2025-29770 vLLM, a backend that caches on disk": chat(
        structured_outputs={"regex": "a", "_backend": "outlines"},
        guided_decoding_backend="outlines",
    ),
    "CVE-2025-48942 vLLM, an invalid schema ends the engine": schema({"type": "stsring"}),
    "CVE-2025-48943 vLLM, an invalid regex ends the engine": chat(
        structured_outputs={"regex": "(?<a"}
    ),
    "CVE-2025-61620 vLLM, a template of the client's": chat(chat_template=LOOP),
    "CVE-2025-62426 vLLM, a template in other arguments": chat(
        chat_template_kwargs={"chat_template": LOOP, "tokenize": True}
    ),
    "CVE-2025-62164 vLLM, embeddings read by torch.load": complete(
        prompt_embeds=base64.b64encode(b"PK\x03\x04" * 100).decode()
    ),
    "CVE-2025-62372 vLLM, embeddings of another shape": chat(
        [{"type": "image_embeds", "image_embeds": base64.b64encode(b"x" * 64).decode()}]
    ),
    "CVE-2026-22773 vLLM, an image of one pixel": url(
        "image_url", "data:image/png;base64,iVBORw0K"
    ),
    "CVE-2026-22778 vLLM, a video's frames": url("video_url", "data:video/mp4;base64,AAAA"),
    "CVE-2024-37032 Ollama, a model's name leaves its folder": chat(model="../../../../etc/passwd"),
    "CVE-2026-7304 SGLang, code in the request": chat(
        custom_logit_processor="gASVAA==", logits_processors=["os.system"]
    ),
    "CVE-2026-5760 SGLang, a template in the text": chat("{{ ''.__class__.__mro__ }}"),
    "CVE-2020-10735 Python, digits of a number": complete(max_tokens=int("9" * 4000)),
    "CVE-2025-48887 vLLM, text that a tool parser's regex chokes on": chat(
        "[A(A=" + "\t)A(A=,\t" * 2000, tools=[{"type": "function", "function": {"name": "A"}}]
    ),
}


@pytest.mark.parametrize("path_and_body", BODIES.values(), ids=BODIES)
def test_a_body(server: Server, path_and_body: tuple[str, dict[str, Any]]) -> None:
    path, body = path_and_body
    response = HTTP.post(
        server.url + path,
        content=json.dumps({"model": MODEL, **body}),
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert response.status_code < 500, response.text
    assert "/work" not in response.text
    assert "site-packages" not in response.text


FETCHED = {
    "CVE-2025-6242 vLLM, an image's address": lambda link: url("image_url", link),
    "CVE-2026-0599 text-generation-inference, an image in Markdown": lambda link: chat(
        f"![]({link})"
    ),
    "CVE-2024-6587 LiteLLM, the address of another server": lambda link: chat(
        api_base=link, base_url=link
    ),
}


@pytest.mark.parametrize("ask", FETCHED.values(), ids=FETCHED)
def test_no_address_is_fetched(server: Server, ask: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        path, body = ask(f"http://127.0.0.1:{trap.getsockname()[1]}/x.png")
        assert server.post(path, body).status_code < 500
        with pytest.raises(TimeoutError):
            trap.accept()


FORM = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"a" * 2**20
HEADERS: dict[str, tuple[dict[str, str], bytes]] = {
    "CVE-2024-47874 Starlette, a form's field is kept in memory": (
        {"Content-Type": "multipart/form-data; boundary=x"},
        FORM,
    ),
    "CVE-2025-54121 Starlette, a form's file blocks all": (
        {"Content-Type": "multipart/form-data; boundary=x"},
        FORM.replace(b'"a"', b'"a"; filename="f"'),
    ),
    "CVE-2024-8984 LiteLLM, a boundary that never ends": (
        {"Content-Type": "multipart/form-data; boundary=x"},
        b"--x\r\n" + b"-" * 2**20,
    ),
    "CVE-2024-24762 python-multipart, a type that its regex chokes on": (
        {"Content-Type": 'application/x-www-form-urlencoded; !="' + "\\" * 8000},
        b"a=1",
    ),
    "CVE-2021-32677 FastAPI, JSON as text, which a browser sends unasked": (
        {"Content-Type": "text/plain"},
        json.dumps(CHAT).encode(),
    ),
    "CVE-2024-10188 LiteLLM, nesting in a parameter": (
        {"Content-Type": "application/json", "X-Routing-Policy": "[" * 8000},
        json.dumps(CHAT).encode(),
    ),
}


@pytest.mark.parametrize("headers_and_body", HEADERS.values(), ids=HEADERS)
def test_a_header(server: Server, headers_and_body: tuple[dict[str, str], bytes]) -> None:
    headers, body = headers_and_body
    response = HTTP.post(f"{server.url}/v1/chat/completions", headers=headers, content=body)
    assert 400 <= response.status_code < 500


def raw(server: Server, *sent: bytes) -> bytes:
    """What the server says to these bytes, until it closes or has nothing more to say."""
    answer = b""
    with socket.create_connection(address(server.url), timeout=30) as connection:
        try:
            for piece in sent:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except OSError:
            pass
    return answer


POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
RAW: dict[str, tuple[bytes, ...]] = {
    "CVE-2025-48956 vLLM, a header of many megabytes": (
        b"GET /health HTTP/1.1\r\nX: ",
        *[b"a" * 2**20] * 8,
        b"\r\n\r\n",
    ),
    "CVE-2024-1135 gunicorn, two lengths": (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    ),
    "CVE-2025-43859 h11, the end of a chunk is not looked at": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n" + SMUGGLED,
    ),
    "CVE-2025-43859 the same of httptools": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n" + SMUGGLED,
    ),
    "CVE-2023-25725 HAProxy, a header without a name": (
        POST + b": x\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED,
    ),
}


@pytest.mark.parametrize("sent", RAW.values(), ids=RAW)
def test_raw_bytes(server: Server, sent: tuple[bytes, ...]) -> None:
    answer = raw(server, *sent)
    assert not answer.startswith(b"HTTP/1.1 5")
    assert MODEL.encode() not in answer, "a second request was read out of the first one's body"


def test_many_small_chunks(server: Server) -> None:
    """CVE-2025-23310 Triton: memory for each chunk of a body."""
    head = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = raw(server, head, b"1\r\n \r\n" * 100_000, b"2\r\n{}\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_log_has_no_lines_and_colors_of_a_clients_making(server: Server) -> None:
    """CVE-2020-7694 uvicorn."""
    HTTP.get(f"{server.url}/v1/%0aFORGED%0d%1b[31m")
    log = server.log.read_bytes()
    assert b"\nFORGED" not in log
    assert b"\x1b[31m" not in log


def test_no_header_is_of_a_clients_making(server: Server) -> None:
    """CVE-2020-7695 uvicorn: what is echoed in a header."""
    name = "x\r\nSet-Cookie: a=b"
    for body in ({"routing": name}, {"model": name}, {"routing": {"mode": name}}):
        answer = server.post("/v1/completions", {"prompt": "hi", "max_tokens": 1, **body})
        assert answer.status_code in (400, 404)
        assert "set-cookie" not in answer.headers


def test_a_range_of_ranges(server: Server) -> None:
    """CVE-2025-62727 Starlette: ranges are merged in quadratic time."""
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(1500))
    assert HTTP.get(f"{server.url}/openapi.json", headers={"Range": ranges}).status_code == 200


def test_a_path_does_not_leave_its_folder(server: Server) -> None:
    """CVE-2023-29159 Starlette, CVE-2024-39722 Ollama."""
    for path in ("/static/..%2f..%2f..%2fetc%2fpasswd", "/v1/models/..%2f..%2fetc%2fpasswd"):
        response = httpx.get(server.url + path, timeout=60)
        assert response.status_code == 404
        assert "root:" not in response.text


def test_another_salt_shares_no_cache(server: Server, fresh_prompt: FreshPrompt) -> None:
    """CVE-2025-46570 vLLM: the time of an answer tells what others asked."""
    body: dict[str, Any] = {"prompt": fresh_prompt(100), "max_tokens": 1}

    def cached(**salt: str) -> int:
        usage = server.post("/v1/completions", {**body, **salt}).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert [cached(), cached(), cached(cache_salt="a"), cached(cache_salt="b")] == [0, 96, 0, 0]
    assert cached(cache_salt="a") == 96


def test_nothing_else_listens(server: Server) -> None:
    """CVE-2025-30202, CVE-2025-47277 vLLM: sockets between processes, open to everybody."""
    processes = [psutil.Process(server.process.pid), *server.children()]
    listening = [c for p in processes for c in p.net_connections() if c.status == "LISTEN"]
    port = int(server.url.rpartition(":")[2])
    assert {c.laddr.ip for c in listening if c.laddr.port != port} <= {"127.0.0.1", "::1"}


def test_many_at_once(server: Server) -> None:
    """CVE-2026-9540 vLLM: requests that are given up leave something behind."""
    path, body = chat(max_tokens=200, stream=True)
    assert eventually(lambda: server.load() == 0)

    def give_up() -> None:
        with HTTP.stream("POST", server.url + path, json={"model": MODEL, **body}) as answer:
            next(answer.iter_lines())

    threads = [threading.Thread(target=give_up) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.tokens(*CANARY)
    assert eventually(lambda: server.metric("vllm:num_requests_running") == 0)
