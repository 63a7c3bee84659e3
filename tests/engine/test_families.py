"""Every router family through the real engine: stock's own bits, and policies that hold.

Tiny random checkpoints, bfloat16, on CPU, eager. See `tests.shared.families` for what is covered.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import STDOUT
from typing import Any

import pytest

from routing.policy.modes import MODES
from tests.shared import warm
from tests.shared.families import FAMILIES, build

Answer = dict[str, Any]
WHICH = "stock", "galton"


class Engine:
    """A running `tests.shared.family_engine`."""

    def __init__(self, which: str, model: Path, core: int) -> None:
        self._log = model.with_name(f"{which}.log")
        self._answer = model.with_name(f"{which}.json")
        command = [sys.executable, "-m", "tests.shared.family_engine", which, model, self._answer]
        env = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": str(core)}
        with self._log.open("wb") as log:
            self._process = warm.Popen(
                [*map(str, command)], stdout=log, stderr=STDOUT, env=warm.environment(**env)
            )

    def answer(self) -> Answer:
        assert self._process.wait(600) == 0, self._log.read_text(errors="replace")[-3000:]
        answer: Answer = json.loads(self._answer.read_text())
        return answer


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Answer]]:
    """What stock's and Galton's engine answer, by family; each runs once."""

    @functools.cache
    def answers(family: str) -> dict[str, Answer]:
        model = tmp_path_factory.mktemp(family) / "model"
        build(family, model)
        # Side by side, each on a core of its own.
        engines = {which: Engine(which, model, core) for core, which in enumerate(WHICH)}
        return {which: engine.answer() for which, engine in engines.items()}

    return answers


Ask = Callable[[str], dict[str, Answer]]
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
