"""The dashboards' panels, drawn from a Prometheus without a Grafana:

    python -m deploy.monitoring.drawn http://localhost:9090 --out FOLDER

What they show is the panels' own queries; how they look is matplotlib's way, not Grafana's.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from deploy.monitoring.dashboards import FOLDER, TITLES
from deploy.monitoring.prometheus import VARIABLES, Labels, Prometheus, filled

COLUMNS: Final = 24  # of Grafana's grid
INCHES: Final = (0.62, 0.32)  # of one of its columns, and of one of its rows
MOST_SERIES: Final = 12  # in a legend
UNITS: Final[dict[str, Callable[[float], str]]] = {
    "percentunit": lambda share: f"{100 * share:.3g} %",
    "s": EngFormatter("s").format_data,
    "bytes": EngFormatter("B").format_data,
    "reqps": EngFormatter("/s").format_data,
    "short": EngFormatter().format_data,
}


def draw(board: dict[str, Any], prometheus: Prometheus, seconds: float, path: Path) -> None:
    """Write a picture of all panels of a dashboard over the last seconds."""
    panels = board["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(COLUMNS * INCHES[0], height * INCHES[1]))
    for panel in panels:
        place = panel["gridPos"]
        left, top = place["x"] / COLUMNS, 1 - place["y"] / height
        if panel["type"] == "row":
            figure.text(left + 0.01, top - 0.7 / height, panel["title"], weight="bold", size=12)
            continue
        pad_x, pad_y = 1.6 / COLUMNS, 1.3 / height
        axes = figure.add_axes(
            (
                left + pad_x,
                top - place["h"] / height + pad_y,
                place["w"] / COLUMNS - 1.3 * pad_x,
                place["h"] / height - 2.1 * pad_y,
            )
        )
        axes.set_title(panel["title"].replace("$layer", VARIABLES["$layer"]), size=9)
        axes.tick_params(labelsize=7)
        DRAWN[panel["type"]](axes, panel, prometheus, seconds)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _text(panel: dict[str, Any], value: float, _: object = None) -> str:
    """A value with its unit; also what writes an axis's ticks."""
    return UNITS[panel["fieldConfig"]["defaults"].get("unit", "short")](value)


def _name(legend: str, labels: Labels) -> str:
    return re.sub(r"{{(\w+)}}", lambda m: labels.get(m[1], ""), legend) or "none"


def _lines(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, seconds: float) -> None:
    drawn = 0
    for target in panel["targets"]:
        for series in prometheus.course(filled(target["expr"]), seconds, seconds / 120):
            name = _name(target["legendFormat"], series.labels)
            axes.plot(np.subtract(series.times, series.times[-1]), series.values, lw=1, label=name)
            drawn += 1
    axes.yaxis.set_major_formatter(partial(_text, panel))
    if drawn:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    if 1 < drawn <= MOST_SERIES:
        axes.legend(fontsize=6, ncols=2, loc="upper left", framealpha=0.6)


def _number(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, seconds: float) -> None:
    found = prometheus.ask(filled(panel["targets"][0]["expr"]))
    text = _text(panel, found[0][1]) if found else "no data"
    axes.axis("off")
    axes.text(0.5, 0.4, text, ha="center", va="center", size=17, color="tab:blue")


def _bars(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, seconds: float) -> None:
    (target,) = panel["targets"]
    found = prometheus.ask(filled(target["expr"]))
    names = [_name(target["legendFormat"], labels) for labels, _ in found]
    axes.barh(names, [value for _, value in found])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(partial(_text, panel))


def _table(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, seconds: float) -> None:
    found = prometheus.ask(filled(panel["targets"][0]["expr"]))
    matrix = [t for t in panel["transformations"] if t["id"] == "groupingToMatrix"]
    if matrix and found:
        _matrix(axes, found, matrix[0]["options"])
        return
    axes.axis("off")
    rows = [[*labels.values(), f"{value:g}"] for labels, value in found[:8]]
    if rows:
        axes.table(rows, colLabels=[*found[0][0], ""], loc="center", fontsize=7)
    else:
        axes.text(0.5, 0.5, "none", ha="center")


def _matrix(axes: Axes, found: Sequence[tuple[Labels, float]], options: dict[str, str]) -> None:
    """Of two labels; color by value."""
    rows, columns = (
        sorted({int(labels[options[field]]) for labels, _ in found})
        for field in ("rowField", "columnField")
    )
    values = np.full((len(rows), len(columns)), np.nan)
    for labels, value in found:
        row, column = int(labels[options["rowField"]]), int(labels[options["columnField"]])
        values[rows.index(row), columns.index(column)] = value
    axes.imshow(values, aspect="auto", cmap="turbo", vmin=0, vmax=3)
    axes.set_xticks(range(len(columns)), map(str, columns))
    axes.set_yticks(range(len(rows)), map(str, rows))
    axes.set_xlabel(options["columnField"], size=8)
    axes.set_ylabel(options["rowField"], size=8)
    if values.size <= 256:
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", size=7, color="white")


def _heatmap(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, seconds: float) -> None:
    (target,) = panel["targets"]
    found = prometheus.course(filled(target["expr"]), seconds, seconds / 120)
    found.sort(key=lambda series: int(_name(target["legendFormat"], series.labels)))
    length = min(len(series.values) for series in found)
    values = [series.values[-length:] for series in found]
    axes.imshow(values, aspect="auto", cmap="turbo", extent=(-seconds, 0, len(found), 0))


DRAWN: Final = {
    "timeseries": _lines,
    "stat": _number,
    "bargauge": _bars,
    "table": _table,
    "heatmap": _heatmap,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="Prometheus's, as http://localhost:9090")
    parser.add_argument("--out", type=Path, default=Path("build/dashboards"), help="%(default)s")
    parser.add_argument("--minutes", type=float, default=15, help="of the past; %(default)g")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    with Prometheus(args.url) as prometheus:
        draw_all(prometheus, 60 * args.minutes, args.out)
    return 0


def draw_all(prometheus: Prometheus, seconds: float, folder: Path) -> None:
    """NAME.png for each dashboard."""
    for name in TITLES:
        board = json.loads((FOLDER / f"{name}.json").read_text())
        draw(board, prometheus, seconds, folder / f"{name}.png")
        print(folder / f"{name}.png")


if __name__ == "__main__":
    raise SystemExit(main())
