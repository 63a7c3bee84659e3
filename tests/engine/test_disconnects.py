"""Clients that leave: what their requests held is free again, and each is counted once."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import pytest

from loadtests import raw
from tests.shared.servers import MODEL, Server, eventually

CLIENTS = 40
LONG = {"max_tokens": 1900, "ignore_eos": True}
MESSAGES = [{"role": "user", "content": "Write a poem about the sea."}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": list(range(20, 80)), **LONG},
    "/v1/chat/completions": {"messages": MESSAGES, **LONG},
    "/v1/chat/completions/batch": {"messages": [MESSAGES] * 3, "max_tokens": 1900},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 1900},
    "/v1/responses": {"input": "Write a poem about the sea.", "max_output_tokens": 1900},
}


def ask(server: Server, path: str, **more: Any) -> socket.socket:
    """The connection on which a request was sent."""
    connection = socket.create_connection(raw.address(server.url), timeout=300)
    body = {"model": MODEL, "routing": {"mode": "sample"}, **BODIES[path], **more}
    connection.sendall(raw.post(path, body))
    return connection


def aborts(server: Server) -> float:
    return server.metric("galton_requests_total", outcome="abort")


def is_idle(server: Server) -> bool:
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    return not any(server.metric(f"vllm:{name}") for name in names)


@pytest.mark.parametrize("path", BODIES)
def test_clients_that_leave_before_the_first_token(server: Server, path: str) -> None:
    assert eventually(lambda: server.load() == 0)
    before = aborts(server)
    with server.engine_held(), ExitStack() as connections:
        for _ in range(CLIENTS):
            connections.enter_context(ask(server, path))
        assert eventually(lambda: server.load() == CLIENTS)
        connections.close()
        # Without the engine's help.
        assert eventually(lambda: aborts(server) == before + CLIENTS)
    assert eventually(lambda: is_idle(server))


@pytest.mark.parametrize("path", list(BODIES)[:2])  # whose answers are long on every machine
def test_clients_that_leave_in_a_stream(server: Server, path: str) -> None:
    assert eventually(lambda: server.load() == 0)
    before = aborts(server)
    with ExitStack() as stack:
        connections = [stack.enter_context(ask(server, path, stream=True)) for _ in range(CLIENTS)]
        for connection in connections:
            assert b"200 OK" in connection.recv(1000)
    assert eventually(lambda: aborts(server) == before + CLIENTS)
    assert eventually(lambda: is_idle(server))
    assert server.tokens([20, 21])
