"""`galton chat` and `galton top`, run as a user runs them beside a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

from loadtests.servers import free_port, galton
from tests.shared.servers import Server, eventually

NUM_LAYERS, NUM_EXPERTS = 8, 16
READ_STDIN = "0 0x0 "  # the system call read, of file 0, as Linux shows it on x86-64
SAMPLE: Final = {"mode": "sample", "temperature": 2.0, "seed": 11}


def run(*args: str, status: int = 0, typed: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        galton(*args),
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def answers(server: Server, *lines: str) -> list[str]:
    """What follows each prompt."""
    typed = "".join(f"{line}\n" for line in lines)
    before, *said = run("chat", server.url, typed=typed).stdout.split("> ")
    assert before == ""
    return said


def asked(server: Server, messages: list[dict[str, str]], **body: Any) -> str:
    reply = server.post("/v1/chat/completions", {"messages": messages, **body}).json()
    return str(reply["choices"][0]["message"]["content"])


def test_chat_streams_remembers_and_switches_the_policy(server: Server) -> None:
    before = server.metric("galton_routed_tokens_total", mode="sample")
    lines = ["Hello", f"/policy {json.dumps(SAMPLE)}", "What is 2 plus 3?"]
    lines += ["/policy no-such-preset", "Hello", "/policy {", "/policy", "Thank you"]
    said = answers(server, *lines)
    assert said[0] == "Hello! How can I help you?\n"
    assert server.metric("galton_routed_tokens_total", mode="sample") > before
    assert "no-such-preset" in said[4]
    assert said[5].startswith("refused: ")
    history: list[dict[str, str]] = []
    for question, number in (("Hello", 0), ("What is 2 plus 3?", 2), ("Thank you", 7)):
        history.append({"role": "user", "content": question})
        reply = asked(server, history, **({"routing": SAMPLE} if number == 2 else {}))
        assert said[number] == reply + "\n"
        history.append({"role": "assistant", "content": reply})


def test_chat_forgets_when_told(server: Server) -> None:
    said = answers(server, "What is 2 plus 3?", "/new", "Hello", "/trace 99", "/nothing")
    assert said[2] == asked(server, [{"role": "user", "content": "Hello"}]) + "\n"
    assert said[3].startswith("refused: N must be 0 to ")
    assert said[4].startswith("refused: there is no /nothing")


def test_chat_shows_tokens_and_their_experts(server: Server) -> None:
    said = answers(server, "/trace", "Hello", "/trace", "/trace 0")
    assert said[0].startswith("refused: nothing was answered yet")
    # All tokens but the last one were routed, by the model's own experts.
    rows = [line for line in said[2].splitlines() if "%" in line]
    assert len(rows) > 3
    assert all("100%" in row for row in rows)
    layers = [line for line in said[3].splitlines() if ": 0." in line or ": 1." in line]
    assert len(layers) == NUM_LAYERS


def test_chat_sets_two_answers_side_by_side(server: Server) -> None:
    question = {"role": "user", "content": "Write a poem about the sea."}
    said = answers(server, question["content"], f"/compare {json.dumps(SAMPLE)}")
    other = asked(server, [question], routing=SAMPLE)
    assert '"sample"' in said[1].replace("\n", "")
    assert other.split()[-1] in said[1]


def test_interrupt_at_the_prompt_leaves_the_chat(server: Server) -> None:
    # Tests may run in the background of a shell that ignores the signal, and tells its children.
    with subprocess.Popen(
        ["env", "--default-signal=INT", *galton("chat", server.url)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == "> "
        # A signal that comes before it waits for input is seen only after it.
        call = Path(f"/proc/{process.pid}/syscall")
        assert eventually(lambda: call.read_text().startswith(READ_STDIN))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_errors_are_one_line(server: Server) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for command in ("chat", "top"):
        said = run(command, nowhere, status=1).stderr
        assert nowhere in said
        assert said.count("\n") == 1
    assert "invalid" in run("chat", nowhere, "--policy={", status=2).stderr
    assert "above 0" in run("top", nowhere, "--interval=0", status=2).stderr
    assert "--once" in run("top", nowhere, "--json", status=2).stderr


def top(server: Server, *args: str) -> str:
    """What it shows of an interval in which a request was answered."""
    with subprocess.Popen(
        galton("top", server.url, "--once", *args),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    ) as process:
        while process.poll() is None:
            server.tokens([20, 21, 22], {**SAMPLE, "scope": "all"}, max_tokens=8)
        assert process.stdout is not None
        assert process.returncode == 0
        return process.stdout.read()


def test_top_tells_scripts_what_the_experts_do(server: Server) -> None:
    seen = json.loads(top(server, "--json"))
    assert seen["experts"] == NUM_LAYERS * NUM_EXPERTS
    assert set(seen["imbalance"]) == {str(layer) for layer in range(NUM_LAYERS)}
    (policy,) = [row for row in seen["policies"] if row["mode"] == "sample"]
    assert policy["tokens_per_second"] > 0
    # A step that runs is counted in some layers, and not yet in others.
    assert abs(policy["experts_saved"]) < 0.2
    assert seen["hottest"][0]["ratio"] >= max(seen["imbalance"].values())
    assert seen["tokens_per_second"]["answer"] > 0


def test_top_fits_eighty_columns(server: Server) -> None:
    shown = top(server)
    assert "Hottest experts" in shown
    assert "sample" in shown
    assert max(map(len, shown.splitlines())) <= 80
