"""The README's commands, as written, against the server they speak of."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.shared import warm
from tests.shared.servers import REPO, Server

README = REPO / "README.md"


def block(language: str, start: str, page: Path = README) -> str:
    """The one fenced block of `language` that begins with `start`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)
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


def test_engine_without_a_server_answers_as_shown(tmp_path: Path) -> None:
    program = tmp_path / "offline.py"  # vLLM's processes import it again
    program.write_text(block("python", "from vllm", REPO / "routing" / "README.md"))
    printed, errors = tmp_path / "printed", tmp_path / "errors"
    with printed.open("wb") as stdout, errors.open("wb") as stderr:
        env = warm.environment()
        run = warm.Popen([str(program)], stdout=stdout, stderr=stderr, env=env, cwd=REPO)
    assert run.wait(600) == 0, errors.read_text()[-2000:]
    # vLLM's log goes to standard output too.
    (answers,) = [line for line in printed.read_text().splitlines() if line.startswith("[")]
    native, sampled = ast.literal_eval(answers)
    assert native
    assert native != sampled
