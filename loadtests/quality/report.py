"""What was found, as tables: `python -m loadtests.quality.report`; all of them with --full."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from loadtests.client import IN_FLIGHT
from loadtests.quality.measure import PASSES, Measured, score
from loadtests.quality.results import HERE, Results
from loadtests.quality.usage import Usage
from models.demo.language.data import TASKS
from models.demo.language.scores import DIFFICULTIES

GROUPS: Final = ("translation", "questions")
SHOWN: Final = (
    *("demo top_k", "demo top_k 2", "demo top_k 1", "demo sample 0.5, all", "demo sample 1, all"),
    *("demo sample 1.5, all", "demo uniform, all", "demo tokens at T=1"),
    *("control top_k", "control sample 1.5, all"),
)
HEAD = """\
# The demo model, by policy

{settings}

`, all` means scope `all`, the prompt's tokens too; `, decode` generated tokens only. `top_k 2` and
the like have scope `all`. `control` was trained with plain top-k, as many steps. In brackets: 95 %
intervals (Wilson's).
"""


def summary(measured: Sequence[Measured]) -> str:
    """The ten rows that say most."""
    rows = [
        [
            m.row.key.removeprefix("demo "),
            *(_cell(m, group) for group in (*GROUPS, "all")),
            *_routing(m, measured[0]),
        ]
        for m in measured
        if m.row.key in SHOWN
    ]
    head = ["", *GROUPS, "all tasks", "experts", "own", "busiest", "speed"]
    return _table(head, sorted(rows, key=lambda row: _place(row[0])))


def ten_rows() -> str:
    """`summary` of the results that lie here, for README.md."""
    return summary(list(Results.load(HERE).measured.values()))


def _place(name: str) -> int:
    return [key.removeprefix("demo ") for key in SHOWN].index(name)


def full(settings: dict[str, Any], measured: Sequence[Measured], usages: dict[str, Usage]) -> str:
    """Every row in every table."""
    conditions = (
        f"{settings['per_task']} held-out test questions of each of 13 tasks, greedy tokens, "
        f"through `galton serve` on {settings['machine']}; 16 answers to each of "
        f"{settings['sampled_per_task']} questions of each task where answers vary."
    )
    parts = [
        HEAD.format(settings=conditions),
        "## Summary\n",
        "*Experts*: mean per generated token and layer. *Own*: share of the model's own choice "
        "among them. *Busiest*: load of the busiest expert over the mean, mean of layers. "
        f"*Speed*: generated tokens a second, {IN_FLIGHT} answers at once, over those of the "
        "model's own top_k in the same round, median of rounds, with smallest and largest.\n",
        _summary(measured),
        "## Passes\n",
        "Chance that one of n answers is right, with half its 95 % interval; distinct: different "
        "answers among 16.\n",
        _passes(measured),
        "## Experts\n",
        "*Information*: of kind and expert, bits; 0 is none, in brackets after shuffling. "
        "*Recognized*: questions whose kind is found by the nearest mean load of other ones.\n",
        _usage(usages),
        "## By task\n",
        *(f"**{level}**\n\n{_by_task(measured, level)}" for level in (*DIFFICULTIES, "all")),
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _cell(measured: Measured, task: str, difficulty: str = "all") -> str:
    found = score(measured.scores, task, difficulty)
    if found is None:
        return ""
    low, high = found.interval
    return f"{100 * found.right / found.total:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def _summary(measured: Sequence[Measured]) -> str:
    head = ["", *(f"{g}, easy and medium" for g in GROUPS), *GROUPS, "all tasks",
            "experts", "own", "busiest", "speed"]  # fmt: skip
    rows = [
        [
            m.row.key.removeprefix("demo "),
            *(_cell(m, group, "easy, medium") for group in GROUPS),
            *(_cell(m, group) for group in (*GROUPS, "all")),
            *_routing(m, measured[0]),
        ]
        for m in measured
    ]
    return _table(head, rows)


def _routing(measured: Measured, own: Measured) -> list[str]:
    means = (measured.experts, measured.overlap, measured.busiest)
    return [*(f"{mean:.2f}" for mean in means), _speed(measured, own)]


def _speed(measured: Measured, own: Measured) -> str:
    ratios = [a / b for a, b in zip(measured.rates, own.rates, strict=False)]
    if not ratios or measured is own:
        return f"1 ({statistics.median(own.rates):.0f}/s)" if ratios else ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _passes(measured: Sequence[Measured]) -> str:
    rows = [
        [
            m.row.key.removeprefix("demo "),
            *(f"{100 * s:.1f} ±{100 * h:.1f}" for s, h in zip(p.share, p.half, strict=True)),
            f"{p.distinct:.1f}",
        ]
        for m in measured
        if (p := m.passes)
    ]
    return _table(["", *(f"n = {n}" for n in PASSES), "distinct"], rows)


def _usage(usages: dict[str, Usage]) -> str:
    layers = len(next(iter(usages.values())).bits)
    rows = [
        [
            name,
            *(f"{b:.3f} ({c:.3f})" for b, c in zip(u.bits, u.chance_bits, strict=True)),
            f"{100 * u.recognized / u.classified:.0f} % of {u.classified}, {len(u.kinds)} kinds",
        ]
        for name, u in usages.items()
    ]
    return _table(["", *(f"layer {i}" for i in range(layers)), "recognized"], rows)


def _by_task(measured: Sequence[Measured], level: str) -> str:
    tasks = [t for t in TASKS if t != "fact" and score(measured[0].scores, t, level)]
    rows = [
        [m.row.key.removeprefix("demo "), *(_cell(m, t, level) for t in tasks)] for m in measured
    ]
    return _table(["", *(t.removeprefix("translate_") for t in tasks)], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what results.json holds; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.quality.report", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every row, by task and difficulty too")
    parser.add_argument("--out", type=Path, default=HERE, help="where make quality wrote")
    args = parser.parse_args(argv)
    results = Results.load(args.out)
    measured = list(results.measured.values())
    print(full(results.settings, measured, results.usages) if args.full else summary(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
