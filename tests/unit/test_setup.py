"""`deploy/setup.sh` on a machine that will not do: one line that says what to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.shared.servers import REPO


@pytest.fixture
def python(tmp_path: Path) -> str:
    """One that is a Python 3.11 as far as it is asked."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 3.11\n")
    program.chmod(0o755)
    return str(program)


def test_no_such_device(python: str) -> None:
    assert "no set-up for tpu: cpu or cuda" in said(python, "tpu")


def said(*arguments: str) -> str:
    """The one line with which the set-up gives up."""
    done = subprocess.run(
        ["bash", str(REPO / "deploy" / "setup.sh"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    return line


def test_no_python() -> None:
    assert "no Python found: install Python 3.11" in said()


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_wrong_python(tmp_path: Path, version: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    line = said(str(python))
    assert f"Python 3.11 is needed, {python} is {version}" in line
    assert "make PYTHON=/path/to/python3.11" in line


def test_broken_python(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    assert f"{python} does not run" in said(str(python))
