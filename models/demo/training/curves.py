"""Draw training runs: `python -m models.demo.training.curves RUN [RUN ...] --out training.svg`."""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

from models.demo.training.log import CURVES, SCORES

Points = list[tuple[int, float]]


def read(path: Path, column: str) -> Points:
    """(step, value) of a column of curves.csv."""
    with path.open(newline="") as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file)]


def held_out(path: Path) -> Points:
    """(step, share of right held-out answers, all tasks together) of scores.csv."""
    right: dict[int, int] = defaultdict(int)
    questions: dict[int, int] = defaultdict(int)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            right[int(row["step"])] += int(row["right"])
            questions[int(row["step"])] += int(row["questions"])
    return [(step, right[step] / total) for step, total in questions.items()]


def draw(runs: list[Path], out: Path) -> None:
    """Loss, load of the busiest expert, and held-out answers of each run, by step."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "galton"
    from matplotlib import pyplot

    figure, (loss, busiest, answers) = pyplot.subplots(
        1, 3, figsize=(12, 3.4), layout="constrained"
    )
    for run in runs:
        _line(loss, read(run / CURVES, "loss"), run.name)
        _line(busiest, read(run / CURVES, "busiest"), run.name)
        _line(answers, held_out(run / SCORES), run.name)
    loss.set(xlabel="step", ylabel="loss of answers, nats per token", yscale="log")
    busiest.set(xlabel="step", ylabel="busiest expert's load over the mean")
    answers.set(xlabel="step", ylabel="right held-out answers", ylim=(0, 1.02))
    answers.legend()
    figure.savefig(out, metadata={"Date": None})


def _line(axes: Any, points: Points, label: str) -> None:
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, label=label, linewidth=1)


def main() -> None:
    """Parse the command line, draw."""
    parser = argparse.ArgumentParser(description="Draw the curves of training runs.")
    parser.add_argument("runs", type=Path, nargs="+", help="what `galton train --out` wrote")
    parser.add_argument("--out", type=Path, required=True, help="an SVG or PNG file")
    args = parser.parse_args()
    draw(args.runs, args.out)


if __name__ == "__main__":
    main()
