"""What a soak found: in lines, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib.pyplot as plt
from scipy import stats

from loadtests.soak.watch import MEASURES

# What starts late: caches that fill, threads of pools.
WARM_UP: Final = 0.2
FLAT: Final = 0.01  # of the mean, per hour


def slopes(samples: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Of each measure after the warm-up: its mean, its slope per hour, and 95 % margin of that."""
    kept = samples[int(len(samples) * WARM_UP) :]
    hours = [sample["seconds"] / 3600 for sample in kept]
    found = {}
    for measure in MEASURES:
        values = [sample[measure] for sample in kept]
        line = stats.linregress(hours, values)
        error = 0.0 if len(set(values)) == 1 else line.stderr
        margin = error * stats.t.ppf(0.975, len(kept) - 2)
        found[measure] = (sum(values) / len(values), float(line.slope), float(margin))
    return found


def grows(mean: float, slope: float, margin: float) -> bool:
    """Whether a measure surely grows, by more than is worth mentioning."""
    return slope - margin > FLAT * mean


def table(found: dict[str, tuple[float, float, float]]) -> str:
    """The slopes as Markdown."""
    rows = ["| measure | mean | per hour | 95 % |", "|---|---|---|---|"]
    for measure, (mean, slope, margin) in found.items():
        rows.append(f"| {measure} | {mean:,.1f} | {slope:+,.2f} | ±{margin:,.2f} |")
    return "\n".join(rows)


def plot(samples: Sequence[dict[str, Any]], path: Path) -> None:
    """Every measure over time, as an SVG."""
    figure, axes = plt.subplots(len(MEASURES), 1, sharex=True, figsize=(8, 8))
    minutes = [sample["seconds"] / 60 for sample in samples]
    for axis, measure in zip(axes, MEASURES, strict=True):
        axis.plot(minutes, [sample[measure] for sample in samples], linewidth=1)
        axis.set_ylabel(measure)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
