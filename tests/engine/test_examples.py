"""The bundled examples, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadtests.servers import free_port
from tests.shared.servers import REPO, Server

EXAMPLES = REPO / "server" / "examples"
SUBTITLES = """\ufeff1
00:00:01,000 --> 00:00:02,500
The cat sleeps.

2
00:00:03,000 --> 00:00:04,000
The dog eats
the apple.
"""
TRANSLATED = """1
00:00:01,000 --> 00:00:02,500
Die Katze schläft.

2
00:00:03,000 --> 00:00:04,000
Der Hund isst den Apfel.

"""


def command(name: str, url: str, *args: object) -> list[str]:
    script = str(EXAMPLES / f"{name}.py")
    return [sys.executable, script, *map(str, args), f"--base-url={url}/v1"]


def run(name: str, url: str, *args: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(name, url, *args), capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_translation_keeps_numbers_and_timings(server: Server, tmp_path: Path) -> None:
    film = tmp_path / "film.srt"
    film.write_text(SUBTITLES)
    assert "film.german.srt" in run("translate", server.url, film, "--to=German").stdout
    target = tmp_path / "film.german.srt"
    assert target.read_text() == TRANSLATED
    refused = run("translate", server.url, film, "--to=German", status=1)
    assert f"{target} is there already" in refused.stderr
    assert sorted(tmp_path.iterdir()) == [target, film]


def test_interrupted_translation_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    film = tmp_path / "film.srt"
    film.write_text(SUBTITLES)
    part = tmp_path / "film.german.srt.part"
    done = TRANSLATED.split("\n\n")[0].replace("Katze", "Mieze") + "\n\n"
    part.write_text(done + "2\n00:00:03,0")
    run("translate", server.url, film, "--to=German")
    assert (tmp_path / "film.german.srt").read_text() == TRANSLATED.replace("Katze", "Mieze")
    assert not part.exists()


def test_text_is_translated_line_by_line_under_the_policy(server: Server, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The cat sleeps.\nThe dog eats.\n\nThe cat sleeps.\n")
    before = server.metric("galton_routed_tokens_total", mode="head_sample")
    policy = {"mode": "head_sample", "seed": 1, "temperature": 0.1}
    run("translate", server.url, text, "--routing", json.dumps(policy))
    translated = (tmp_path / "text.french.txt").read_text()
    assert translated == "Le chat dort.\nLe chien mange.\n\nLe chat dort.\n\n"
    assert server.metric("galton_routed_tokens_total", mode="head_sample") > before


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    people = "Anna is a baker. Anna lives in Oslo.\n\nPeter likes soup. Peter works on Monday.\n"
    (tmp_path / "people.txt").write_text(people)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "house.md").write_text("The key is on the table. The book is in the box.")
    (tmp_path / "image.png").write_bytes(b"\xff")
    return tmp_path


@pytest.mark.parametrize(
    ("question", "answer", "file"),
    [
        ("Where does Anna live?", "Anna lives in Oslo.", "people.txt"),
        ("When does Peter work?", "Peter works on Monday.", "people.txt"),
        ("Where is the book?", "The book is in the box.", "more/house.md"),
    ],
)
def test_answer_names_its_file(
    server: Server, notes: Path, question: str, answer: str, file: str
) -> None:
    said = run("answer", server.url, notes, question, "--routing=precise").stdout
    assert said == f"{answer}  ({notes / file})\n"


def test_several_passages_are_asked_best_first(server: Server, notes: Path) -> None:
    said = run("answer", server.url, notes, "Where is the book?", "--passages=9").stdout
    assert said.count("\n") == 3
    assert "house.md" in said.splitlines()[0]


def test_errors_are_one_line(server: Server, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    text, empty = tmp_path / "text.txt", tmp_path / "empty"
    text.write_text("The cat sleeps.")
    empty.mkdir()
    cases: list[tuple[str, str, list[object], str]] = [
        ("translate", nowhere, [text], nowhere),
        ("answer", nowhere, [tmp_path, "Who?"], nowhere),
        ("translate", server.url, [tmp_path / "none.srt"], "none.srt"),
        ("answer", server.url, [empty, "Who?"], "no .txt or .md file"),
        ("translate", server.url, [text, "--routing=no-such"], "no-such"),
        ("answer", server.url, [tmp_path, "Who?", '--routing={"top_k": 0}'], "routing.top_k"),
    ]
    with ThreadPoolExecutor(len(cases)) as pool:
        runs = pool.map(lambda case: run(case[0], case[1], *case[2], status=1), cases)
    for (*_, reason), done in zip(cases, runs, strict=True):
        assert reason in done.stderr, done.stderr
        assert done.stderr.strip().count("\n") == 0
    assert "invalid" in run("translate", nowhere, text, "--routing={", status=2).stderr


@pytest.mark.parametrize("name", ["translate", "answer"])
def test_examples_explain_themselves(name: str) -> None:
    assert "--base-url" in run(name, "http://unused", "--help").stdout
