"""Policies on vLLM's model runner V2, a GPU's, on a CPU: token for token those of V1.

Each engine is a program of its own, see `tests.shared.v2_engine`: vLLM asks Triton once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routing.trace import Trace
from tests.shared.v2_engine import Case

V1 = Case(runner="v1")
CASES = {
    "V1, a model's drafts": Case(runner="v1", num_drafts=2, draft_model=True),
    "a model's drafts, a step ahead": Case(is_async=True, num_drafts=2, draft_model=True),
    "drafts, a step ahead": Case(is_async=True, num_drafts=2),
    "preempted, a step ahead": Case(is_async=True, num_blocks=6),
    "dummies between": Case(with_dummies=True),
    "Triton": Case(backend="gpu", is_async=True, num_drafts=2, num_requests=6),
}


def answer_of(case: Case, folder: Path) -> dict[str, Any]:
    asked, answered = folder / "case.json", folder / "answer.json"
    asked.write_text(json.dumps(asdict(case)))
    program = [sys.executable, "-m", "tests.shared.v2_engine", str(asked), str(answered)]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GALTON_", "VLLM_"))}
    run = subprocess.run(program, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    answer: dict[str, Any] = json.loads(answered.read_text())
    return answer


@pytest.fixture(scope="module")
def on_v1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return answer_of(V1, tmp_path_factory.mktemp("v1"))


@pytest.mark.parametrize("name", CASES)
def test_requests_are_answered_as_on_v1(name: str, on_v1: dict[str, Any], tmp_path: Path) -> None:
    case = CASES[name]
    answer = answer_of(case, tmp_path)
    assert not on_v1["is_v2"]
    assert answer["is_v2"] == (case.runner == "v2")
    assert answer["is_async"] == case.is_async
    assert (answer["accepted"] > 0) == (case.num_drafts > 0)
    assert (answer["preempted"] > 0) == (case.num_blocks is not None)
    # As many columns as a request wants; a dummy run as many as any might.
    assert answer["widths"][-1] == (8 if case.with_dummies else 6)
    assert answer["tokens"] == on_v1["tokens"][: case.num_requests]
    for report, expected in zip(answer["reports"], on_v1["reports"], strict=False):
        assert_same_report(report, expected)
    if not (case.is_async or case.num_drafts):  # else some are computed in vain, and counted
        assert answer["assignments"] == on_v1["assignments"]
        assert answer["routed_tokens"] == on_v1["routed_tokens"]


def assert_same_report(report: dict[str, Any] | None, expected: dict[str, Any] | None) -> None:
    """The same tokens chose the same experts, of those that were computed."""
    if report is None or expected is None:
        assert report is expected
        return
    ours, theirs = (Trace.decode(r["trace"][0]["data"]) for r in (report, expected))
    assert len(ours.native) == len(theirs.native)
    both = ours.computed & theirs.computed
    assert both[-15:].all()
    assert np.array_equal(ours.topk_ids[both], theirs.topk_ids[both])
    assert np.array_equal(ours.native[both], theirs.native[both])
    assert ours.topk_weights is not None
    assert theirs.topk_weights is not None
    np.testing.assert_allclose(ours.topk_weights[both], theirs.topk_weights[both], rtol=1e-5)
