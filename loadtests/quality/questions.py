"""The server of a checkpoint, and questions to it as a row wants them asked."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtests import client, servers
from loadtests.client import Answer, RequestError
from loadtests.quality.rows import MAX_EXPERTS, Row

MODEL: Final = "galton-demo"
MAX_TOKENS: Final = 160


@dataclass(frozen=True)
class Question:
    """What is asked. number: makes its noise its own. samples: answers to it.

    exact_tokens: length of every answer, whatever the model says; None lets it end.
    """

    messages: Sequence[dict[str, str]]
    number: int
    samples: int = 1
    exact_tokens: int | None = None


@contextmanager
def serving(checkpoint: Path, presets: Path, log: Path) -> Iterator[str]:
    """`galton serve` of a checkpoint; its URL. Raises ServerError."""
    command = servers.galton(
        "serve",
        str(checkpoint),
        f"--served-model-name={MODEL}",
        "--enforce-eager",
        f"--kv-cache-memory-bytes={2**30}",
        f"--presets={presets}",
        f"--max-experts-per-token={MAX_EXPERTS}",
    )
    with servers.running(command, log) as server:
        yield server.url


def ask(url: str, row: Row, questions: Sequence[Question], *, stats: bool = False) -> list[Answer]:
    """Ask all, with a progress bar; answers in the order of the questions.

    stats: have the routing of each counted. Raises RequestError at the first that is refused.
    """
    bodies = [_body(row, question, stats) for question in questions]
    try:
        return client.ask(url, bodies, progress=row.key)
    except RequestError as error:
        raise RequestError(f"{row.key}: {error}") from error


def stats_of(answer: Answer) -> dict[str, Any]:
    """The statistics of its first choice's routing, see routing/README.md."""
    assert answer.routing is not None, "statistics were not asked for"
    stats: dict[str, Any] = answer.routing["stats"][0]
    return stats


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
