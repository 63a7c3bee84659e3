"""The server under test, started from `.venv`; the clients live in `.venv-clients`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients import BAD_POLICY, MESSAGES, POLICY, PRESETS
from tests.shared.servers import REPO, TOOL_ENVIRONMENT, TOOL_FLAGS, Server, running

# Before any client is imported: nothing is fetched and nobody is told.
os.environ.update(
    DO_NOT_TRACK="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    LANGSMITH_TRACING="false",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    LITELLM_TELEMETRY="False",
)
GALTON = os.environ.get("GALTON", str(REPO / ".venv" / "bin" / "galton"))

Routed = Callable[[Callable[[], Any]], tuple[Any, float]]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    presets = log.with_name("presets.toml")
    presets.write_text(PRESETS)
    command = [GALTON, "serve", f"--presets={presets}", *TOOL_FLAGS]
    with running(command, log, TOOL_ENVIRONMENT, subprocess.Popen) as started:
        yield started


@pytest.fixture(scope="session")
def base_url(server: Server) -> str:
    return f"{server.url}/v1"


@pytest.fixture(scope="session")
def routed(server: Server) -> Routed:
    """`routed(call)`: what `call` returned, and how many tokens the engine sampled experts for."""

    def count(call: Callable[[], Any]) -> tuple[Any, float]:
        before = server.metric("galton_routed_tokens_total", mode=POLICY["mode"])
        answer = call()
        return answer, server.metric("galton_routed_tokens_total", mode=POLICY["mode"]) - before

    return count


@pytest.fixture(scope="session")
def expected(server: Server) -> str:
    """The answer to MESSAGES under POLICY, over plain HTTP; without the policy it is another."""

    def ask(**body: object) -> str:
        answer = server.post("/v1/chat/completions", {"messages": MESSAGES, **body}).json()
        return str(answer["choices"][0]["message"]["content"])

    text = ask(routing=POLICY)
    assert text
    assert text != ask()
    return text


@pytest.fixture(scope="session")
def refusal(server: Server) -> str:
    """What the server says to BAD_POLICY."""
    body = {"messages": MESSAGES, "routing": BAD_POLICY}
    response = server.post("/v1/chat/completions", body)
    assert response.status_code == 400
    return str(response.json()["error"]["message"])
