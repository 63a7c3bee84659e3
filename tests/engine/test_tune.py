"""`galton tune` on the demo: a real run, killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from loadtests.servers import galton
from models.demo.language.data import examples as demo_examples
from routing.policy.presets import Presets
from tests.shared import warm
from tests.shared.servers import eventually


def demo_data(path: Path, split: Any) -> Path:
    stream = demo_examples(split, 0, ("calendar",))
    chosen = {e.user: e for e, _ in zip(stream, range(60), strict=False)}
    rows = [{"messages": e.messages(), "reference": e.assistant} for e in chosen.values()]
    path.write_text("\n".join(map(json.dumps, rows[:8])))
    return path


# `exact_match` of a user. On 8 examples, its 84th call scores the second update of the bias, after
# the model's own answers, two trials of two searches and their baselines, and the first update.
# There the first run stands still.
HOLDING_METRIC = """
import time
from pathlib import Path

calls = 0


def exact(answers, references):
    global calls
    calls += 1
    if calls == 84 and not Path("held").exists():
        Path("held").touch()
        time.sleep(600)
    return float(answers[0].strip() in references)
"""


@contextmanager
def tuning(path: Path, *args: str) -> Iterator[tuple[warm.Popen, Iterator[str]]]:
    """`galton tune` as a process in the directory `path`, and the lines it prints."""
    read, write = os.pipe()
    with os.fdopen(read) as lines:
        with os.fdopen(write, "w") as stderr, open(os.devnull, "w") as stdout:
            command = galton("tune", *args)
            env = warm.environment()
            process = warm.Popen(command, stdout=stdout, stderr=stderr, env=env, cwd=path)
        try:
            yield process, map(shown, lines)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def shown(line: str) -> str:
    print(line, end="")
    return line


def test_real_run_goes_on_after_kill_and_ctrl_c_writes_the_best(tmp_path: Path) -> None:
    out, held = tmp_path / "tuned.toml", tmp_path / "held"
    (tmp_path / "holding.py").write_text(HOLDING_METRIC)
    args = (
        "--metric=holding:exact",
        f"--data={demo_data(tmp_path / 'valid.jsonl', 'valid')}",
        f"--test={demo_data(tmp_path / 'test.jsonl', 'test')}",
        *(f"--out={out}", "--search=all", "--max-tokens=12", "--population=2", "--minibatch=4"),
    )
    with tuning(tmp_path, *args, "--trials=2") as (process, lines):
        assert any(line.startswith("bias 1/2") for line in lines)
        assert eventually(held.exists)
        engine = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(engine, timeout=60)
    assert engine
    assert not alive, "the engine outlives its killed parent"
    assert not out.exists()

    # More trials than any machine makes before the signal comes.
    with tuning(tmp_path, *args, "--trials=100000") as (process, lines):
        first = next(line for line in lines if line.startswith("temperature"))
        assert first.startswith("temperature 2/100000")
        next(lines)
        process.send_signal(signal.SIGINT)
        rest = list(lines)
        assert process.wait(300) == 0
    presets = Presets.read(out)
    assert list(presets.named) == ["tuned-temperature", "tuned-top_k", "tuned-bias"]
    assert 3 <= presets.named["tuned-temperature"].results["trials"] < 100_000
    assert all(preset.results["test"]["examples"] == 8 for preset in presets.named.values())
    assert any(line.startswith("tuned-bias: Tuned for holding:exact (bias): ") for line in rest)
