"""README.md of this folder: what was found, as tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from loadtests.client import IN_FLIGHT
from loadtests.quality.measure import PASSES, Measured, score
from loadtests.quality.usage import Usage
from models.demo.language.data import TASKS
from models.demo.language.scores import DIFFICULTIES

HEAD = """\
# The demo model, by policy

Written by `make quality`; do not edit. What follows from it is in
[models/README.md](../../models/README.md#what-routing-does-to-it).

{settings}

`, all` means scope `all`, the prompt's tokens too; `, decode` generated tokens only. `top_k 2` and
the like have scope `all`. `control` was trained with plain top-k, as many steps. In brackets: 95 %
intervals (Wilson's).

![accuracy by policy](accuracy.svg)
"""


def render(settings: dict[str, Any], measured: Sequence[Measured], usages: dict[str, Usage]) -> str:
    """The whole file."""
    said = (
        f"{settings['per_task']} held-out test questions of each of 13 tasks, greedy tokens, "
        f"through `galton serve` on {settings['machine']}; 16 answers to each of "
        f"{settings['sampled_per_task']} questions of each task where answers vary."
    )
    parts = [
        HEAD.format(settings=said),
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
        "![passes](passes.svg)\n",
        "## Experts\n",
        "Share of a layer's assignments that an expert gets, by kind of question, under the "
        "model's own routing.\n",
        "![experts by kind of question](usage.png)\n",
        "*Information*: of kind and expert, bits; 0 is none, in brackets after shuffling. *Told*: "
        "questions whose kind is told by the nearest mean load of other questions.\n",
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
    groups = ("translation", "questions")
    head = ["", *(f"{g}, easy and medium" for g in groups), *groups, "all tasks",
            "experts", "own", "busiest", "speed"]  # fmt: skip
    rows = [
        [
            m.row.key.removeprefix("demo "),
            *(_cell(m, group, "easy, medium") for group in groups),
            *(_cell(m, group) for group in (*groups, "all")),
            f"{m.experts:.2f}",
            f"{m.overlap:.2f}",
            f"{m.busiest:.2f}",
            _speed(m, measured[0]),
        ]
        for m in measured
    ]
    return _table(head, rows)


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
            f"{100 * u.told / u.told_total:.0f} % of {u.told_total}, {len(u.kinds)} kinds",
        ]
        for name, u in usages.items()
    ]
    return _table(["", *(f"layer {i}" for i in range(layers)), "told"], rows)


def _by_task(measured: Sequence[Measured], level: str) -> str:
    tasks = [t for t in TASKS if t != "fact" and score(measured[0].scores, t, level)]
    rows = [
        [m.row.key.removeprefix("demo "), *(_cell(m, t, level) for t in tasks)] for m in measured
    ]
    return _table(["", *(t.removeprefix("translate_") for t in tasks)], rows)
