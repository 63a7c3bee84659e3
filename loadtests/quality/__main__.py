"""Measure the demo model by policy through the real server: `make quality`.

Results are kept row by row: the same command goes on from them, also after a kill.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests import machine
from loadtests.client import RequestError
from loadtests.quality import plots
from loadtests.quality.measure import measure, rate
from loadtests.quality.questions import serving
from loadtests.quality.results import HERE, Results
from loadtests.quality.rows import CONTROL, DEMO, OWN, Row, all_rows
from loadtests.quality.usage import usage
from loadtests.servers import ServerError
from models.arguments import at_least_one
from models.demo import CHECKPOINT, PRESETS
from models.demo.language.scores import held_out
from routing.policy.presets import PresetError


class QualityError(Exception):
    """A checkpoint that cannot be read."""


def measure_rows(url: str, rows: Sequence[Row], results: Results) -> None:
    """Measure what is not in `results` yet, a line for each row."""
    settings = results.settings
    for row in rows:
        if row.key in results.measured:
            continue
        measured, loads = measure(url, row, settings["per_task"], settings["sampled_per_task"])
        results.measured[row.key] = measured
        if row.name == OWN:
            examples = held_out("test", settings["per_task"])
            results.usages[row.checkpoint] = usage(examples, loads)
        results.save()
        last = measured.scores[-1]
        print(f"{row.key}: {last.right} of {last.total} right, {measured.experts:.2f} experts")


def time_rows(url: str, rows: Sequence[Row], results: Results) -> None:
    """Rounds over all rows in turn, so that what else the machine does hits all alike."""
    rounds = results.settings["rounds"]
    if all(len(results.measured[row.key].rates) == rounds for row in rows):
        return
    found: dict[str, list[float]] = {row.key: [] for row in rows}
    rate(url, rows[0])  # the first is slower
    for number in range(rounds):
        for row in rows:
            found[row.key].append(rate(url, row))
        print(f"speed, round {number + 1} of {rounds}: done")
    for key, rates in found.items():
        results.measured[key] = dataclasses.replace(results.measured[key], rates=rates)
    results.save()


def run(args: argparse.Namespace) -> None:
    """All of it. Raises QualityError."""
    checkpoints = {DEMO: args.checkpoint} | ({CONTROL: args.control} if args.control else {})
    settings = {
        "per_task": args.per_task,
        "sampled_per_task": args.sampled_per_task,
        "rounds": args.rounds,
        "machine": _machine(),
        "weights": {n: _digest(path / "model.safetensors") for n, path in checkpoints.items()},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    rows = all_rows(args.presets, control=CONTROL in checkpoints)
    results = Results.at(args.out, settings, rows)
    rows = [row for row in rows if args.only in row.name or row.name == OWN]
    for name, checkpoint in checkpoints.items():
        own_rows = [row for row in rows if row.checkpoint == name]
        print(f"{name}: {len(own_rows)} rows")
        with serving(checkpoint, args.presets, args.out / f"{name}.log") as url:
            measure_rows(url, own_rows, results)
            if name == DEMO:
                time_rows(url, own_rows, results)
    measured = [results.measured[row.key] for row in rows]
    plots.draw(args.out, measured, results.usages)
    print(f"written: {args.out}; `make docs` puts ten rows into the page")


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise QualityError(f"{path}: {error.strerror}") from None


def _machine() -> str:
    return f"{machine.cores()} cores of {machine.cpu().get('model name', 'an unknown CPU')}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.quality", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, default=CHECKPOINT, help="default: the demo")
    add("--presets", type=Path, default=PRESETS, help="default: the demo's")
    add("--control", type=Path, help="a checkpoint trained with --routing top_k, to compare")
    add("--out", type=Path, default=HERE, help="results.json and pictures")
    add("--only", default="", help="rows whose name holds this, beside top_k; give --out, too")
    add("--per-task", type=at_least_one, default=100, help="questions of each task (100)")
    add(
        "--sampled-per-task",
        type=at_least_one,
        default=20,
        help="of each task, answered 16 times (20)",
    )
    add("--rounds", type=int, default=5, help="of timing (5)")
    try:
        run(parser.parse_args(argv))
    except (PresetError, QualityError, RequestError, ServerError) as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quality: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
