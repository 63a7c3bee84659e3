"""A server of one checkpoint, and questions to it over HTTP."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from tqdm import tqdm  # type: ignore[import-untyped]

from models.quality.rows import MAX_EXPERTS, Row

MODEL: Final = "galton-demo"
IN_FLIGHT: Final = 32
MAX_TOKENS: Final = 160
START_SECONDS: Final = 300


class QualityError(Exception):
    """A server that did not start, or a question that it refused."""


@dataclass(frozen=True)
class Question:
    """What is asked. number: makes its noise its own. samples: answers to it.

    exact_tokens: length of every answer, whatever the model says; None lets it end.
    """

    messages: Sequence[dict[str, str]]
    number: int
    samples: int = 1
    exact_tokens: int | None = None


@dataclass(frozen=True)
class Answer:
    """texts: of each sample. tokens: generated, all samples together. stats: of the first
    sample's routing, see routing/README.md; None unless asked for.
    """

    texts: list[str]
    tokens: int
    stats: dict[str, Any] | None


@contextmanager
def serving(checkpoint: Path, presets: Path, log: Path) -> Iterator[str]:
    """Start `galton serve` on a free port, give its URL, stop it at the end.

    Raises QualityError, which names the log, if it does not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(str(Path(sys.executable).with_name("galton")), "serve", str(checkpoint)),
        *("--host=127.0.0.1", f"--port={port}", f"--served-model-name={MODEL}"),
        *("--enforce-eager", f"--kv-cache-memory-bytes={2**30}", f"--presets={presets}"),
        f"--max-experts-per-token={MAX_EXPERTS}",
    ]
    with log.open("wb") as output:
        # A session of its own: Ctrl-C here ends it below, in order.
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise QualityError(f"the server did not start: see {log}")


def ask(url: str, row: Row, questions: Sequence[Question], *, stats: bool = False) -> list[Answer]:
    """Ask all, 32 at a time, with a progress bar; answers in the order of the questions.

    Raises QualityError at the first one that is refused.
    """
    try:
        return asyncio.run(_ask(url, row, questions, stats))
    except* (QualityError, httpx.HTTPError) as group:
        first = group.exceptions[0]
        raise QualityError(f"{row.key}: {str(first) or type(first).__name__}") from None


async def _ask(url: str, row: Row, questions: Sequence[Question], stats: bool) -> list[Answer]:
    turn = asyncio.Semaphore(IN_FLIGHT)
    limits = httpx.Limits(max_connections=IN_FLIGHT)
    with tqdm(total=len(questions), desc=row.key, leave=False, mininterval=1) as bar:
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

            async def one(question: Question) -> Answer:
                async with turn:
                    body = _body(row, question, stats)
                    response = await client.post("/v1/chat/completions", json=body)
                if response.status_code != 200:
                    raise QualityError(f"{response.status_code}, {response.text[:300]}")
                bar.update()
                return _answer(response.json())

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(question)) for question in questions]
    return [task.result() for task in tasks]


def _body(row: Row, question: Question, stats: bool) -> dict[str, Any]:
    noise = random.Random(f"quality {question.number}")
    policy = {} if row.preset else row.routing
    routing: dict[str, Any] = {**policy, "seed": noise.randrange(2**63)}
    if stats:
        routing["include"] = ["stats"]
    body = {
        "model": f"{MODEL}-{row.preset}" if row.preset else MODEL,
        "messages": list(question.messages),
        "temperature": row.token_temperature,
        "seed": noise.randrange(2**31),
        "n": question.samples,
        "max_tokens": question.exact_tokens or MAX_TOKENS,
        "routing": routing,
    }
    return {**body, "ignore_eos": True} if question.exact_tokens else body


def _answer(response: dict[str, Any]) -> Answer:
    choices = sorted(response["choices"], key=lambda choice: choice["index"])
    texts = [(choice["message"]["content"] or "").strip() for choice in choices]
    stats = response["routing"].get("stats")
    return Answer(texts, response["usage"]["completion_tokens"], stats[0] if stats else None)
