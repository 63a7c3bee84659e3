"""Every router family through the real engine: stock's own bits, and policies that hold.

Tiny random checkpoints, bfloat16, on CPU, eager. See `tests.shared.families` for what is covered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from routing.policy.modes import MODES
from tests.shared import warm
from tests.shared.families import FAMILIES
from tests.shared.servers import REPO

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Answer]]:
    """`tests.shared.family_engines`, each family asked once."""
    directory = tmp_path_factory.mktemp("families")
    answers: dict[str, Answer] = {}
    log = (directory / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.shared.family_engines"],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=warm.environment(),
    )

    def answer(family: str) -> Answer:
        if family not in answers:
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{family} {directory / family}\n")
            process.stdin.flush()
            lines = iter(process.stdout.readline, "")
            line = next((line for line in lines if line.startswith("{")), None)
            assert line, (directory / "log").read_text(errors="replace")[-3000:]
            answers[family] = json.loads(line)
        for engine in answers[family].values():
            assert "error" not in engine, engine["error"]
        return answers[family]

    with log, process:
        yield answer
        assert process.stdin
        process.stdin.close()


Ask = Callable[[str], Answer]
every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_without_a_policy_tokens_and_logprobs_are_stocks(family: str, ask: Ask) -> None:
    answer = ask(family)
    assert answer["galton"]["greedy"] == answer["stock"]["greedy"]


@every_family
def test_every_mode_and_steering_route_as_the_reference(family: str, ask: Ask) -> None:
    problems = ask(family)["galton"]["problems"]
    assert problems.keys() == {*MODES, "steered"}
    assert problems == {policy: [] for policy in problems}


@every_family
def test_policies_change_what_the_model_says(family: str, ask: Ask) -> None:
    answer = ask(family)
    own_tokens, _ = answer["stock"]["greedy"][-1]
    tokens, _ = answer["galton"]["answers"]["uniform"]
    assert tokens != own_tokens
