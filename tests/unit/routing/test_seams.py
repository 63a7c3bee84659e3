"""The table of places where Galton touches vLLM is complete, and true of the installed vLLM."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import routing.engine
from routing.engine import config
from routing.engine.seams import SEAMS

MODULES = sorted(Path(routing.engine.__file__).parent.glob("*.py"))


def _wrapped(tree: ast.AST) -> set[str]:
    """The names that calls of `wrap(owner, name, hook)` replace."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "wrap"]
    return {ast.literal_eval(call.args[1]) for call in named}


def test_every_wrapped_function_is_listed() -> None:
    listed = {
        (seam.how.removeprefix("wrapped by ").partition(",")[0], seam.target.rpartition(".")[2])
        for seam in SEAMS
        if seam.how.startswith("wrapped")
    }
    wrapped = {(m.stem, name) for m in MODULES for name in _wrapped(ast.parse(m.read_text()))}
    assert wrapped == listed


def test_every_target_exists() -> None:
    """In a process of its own: there nothing is imported before vLLM."""
    looked_up = subprocess.run(
        [sys.executable, "-c", LOOK_UP], capture_output=True, text=True, timeout=600, check=True
    )
    assert looked_up.stdout.split() == [seam.target for seam in SEAMS]


LOOK_UP = """
from pkgutil import resolve_name
from routing.engine.seams import SEAMS
for seam in SEAMS:
    resolve_name(seam.target)
    print(seam.target)
"""


def test_another_version_of_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm

    options: dict[str, Any] = config.engine_options(8)
    assert options["additional_config"]["galton"]["max_experts_per_token"] == 8
    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    with pytest.raises(config.UnsupportedVersionError, match=r"vLLM 0\.32\.0, and 0\.33\.0 is"):
        config.engine_options(8)
