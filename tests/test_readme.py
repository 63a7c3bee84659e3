"""The README's commands, as written, against the server they speak of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from server.settings import Settings, variable
from tests.servers import REPO, Server

README = (REPO / "README.md").read_text()


def block(language: str, start: str) -> str:
    """The one fenced block of `language` that begins with `start`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    (found,) = [b for b in blocks if b.startswith(start)]
    return str(found)


def run(command: list[str], server: Server) -> str:
    """A command of the README, sent to the test's server instead of port 8000."""
    command[-1] = command[-1].replace("http://localhost:8000", server.url)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_request_gets_the_answer_shown_and_the_same_one_again(server: Server) -> None:
    shown = json.loads(block("json", "{"))
    curl = block("bash", "curl")
    answers: list[dict[str, Any]] = [
        json.loads(run(["bash", "-c", curl.replace("curl", "curl -s")], server)) for _ in range(2)
    ]
    for answer in answers:
        assert answer["routing"] == shown["routing"]
    # The whole text is one machine's: another processor rounds otherwise.
    texts = [answer["choices"][0]["message"]["content"] for answer in (shown, *answers)]
    assert texts[1] == texts[2]
    assert all(text.startswith("O deep sea, ") for text in texts)


def test_python_example_prints_an_answer_and_its_policy(server: Server) -> None:
    printed = run([sys.executable, "-c", block("python", "from openai")], server)
    assert "14" in printed
    assert "'seed': 7" in printed


def test_make_commands_exist() -> None:
    makefile = (REPO / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    assert "make test" in (REPO / ".ci" / "run").read_text()


def test_every_setting_is_documented() -> None:
    for name in Settings.__dataclass_fields__:
        assert f"`{variable(name)}`" in README
        assert f"`--{name.replace('_', '-')}" in README


def test_links_lead_somewhere() -> None:
    for page in (REPO / "README.md", *REPO.glob("*/README.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / Path(target)).exists(), f"{page}: {target}"


def test_every_test_that_the_docs_name_exists() -> None:
    tests = "".join(file.read_text() for file in (REPO / "tests").glob("*.py"))
    named = re.findall(r"`(test_\w+)`", (REPO / "tests" / "README.md").read_text())
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []
