"""What was found: a page that stands alone, a table for a terminal, rows for README."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loadtests.bench.results import Ratio, Results

HERE: Final = Path(__file__).parent
# Heading, measure of `Run`, format.
COLUMNS: Final = (
    ("TTFT ms", "ttft_ms", "{:.0f}"),
    ("inter-token ms", "itl_ms", "{:.1f}"),
)
Row = dict[str, str]


def rows(results: Results) -> list[Row]:
    """A row for each variant at each load; of a list of percentiles, "median / p95 / p99"."""
    return [
        _row(results, load.label, variant.name)
        for load in results.scenario.loads
        for variant in results.scenario.variants
        if results.values(variant.name, load.label, "tokens_per_second")
    ]


def _row(results: Results, load: str, variant: str) -> Row:
    def of(measure: str) -> list[float]:
        return results.values(variant, load, measure)

    speeds = of("tokens_per_second")
    row = {
        "load": load,
        "variant": variant,
        "tokens/s": f"{median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})",
        "ratio": _ratio(results.ratio(variant, load, "tokens_per_second")),
        "p99 ratio": _ratio(results.ratio(variant, load, "itl_ms.2")),
    }
    for heading, measure, form in COLUMNS:
        found = [median(of(f"{measure}.{place}")) for place in range(3)]
        row[heading] = " / ".join(map(form.format, found))
    row["goodput"] = f"{median(of('goodput')):.1f}"
    row["CPU ms/token"] = f"{median(of('cpu_ms_per_token')):.2f}"
    row["MiB"] = f"{median(of('memory_mib')):,.0f}"
    row["cached"] = f"{median(of('cached')):.0%}"
    counted = [run.experts for run in results.of(variant, load) if run.experts]
    for heading, name in (
        ("per token", "per_token"),
        ("active", "active"),
        ("busiest", "imbalance"),
    ):
        found = [getattr(each, name) for each in counted]
        row[heading] = f"{median(found):.2f}" if found else ""
    return row


def _ratio(ratio: Ratio | None) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "1"


def text(results: Results) -> str:
    """What fits a terminal."""
    return table(
        rows(results), ("load", "variant", "tokens/s", "ratio", "inter-token ms", "p99 ratio")
    )


def table(found: Sequence[Row], headings: Sequence[str]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row[h] for h in headings)} |" for row in found)])


def write(results: Results, path: Path) -> None:
    """The page: conditions, table, pictures; nothing is loaded from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja")
    path.write_text(
        page.render(
            results=results, rows=rows(results), ratios=_ratios(results), spread=_spread(results)
        )
    )


def _ratios(results: Results) -> str:
    """Every variant's tokens a second over the baseline's, with intervals."""
    points = [
        (_name(results, variant.name, load.label), ratio)
        for load in results.scenario.loads
        for variant in results.scenario.variants
        if (ratio := results.ratio(variant.name, load.label, "tokens_per_second"))
    ]
    if not points:
        return ""
    figure, axes = _axes(len(points))
    for place, (_, ratio) in enumerate(points):
        error = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        axes.errorbar(ratio.median, place, xerr=error, fmt="o", capsize=3, color="C0")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(points)), [name for name, _ in points])
    axes.set_xlabel(f"tokens a second over {results.scenario.variants[0].name}")
    return _svg(figure)


def _spread(results: Results) -> str:
    """Every run's tokens a second, so that nothing hides in a median."""
    points = [
        (_name(results, row["variant"], row["load"]), values)
        for row in rows(results)
        if (values := results.values(row["variant"], row["load"], "tokens_per_second"))
    ]
    figure, axes = _axes(len(points))
    for place, (_, values) in enumerate(points):
        axes.plot(values, [place] * len(values), "o", alpha=0.5, color="C0")
    axes.set_yticks(range(len(points)), [name for name, _ in points])
    axes.set_xlabel("tokens a second, each run")
    axes.set_xlim(left=0)
    return _svg(figure)


def _name(results: Results, variant: str, load: str) -> str:
    """On an axis; the load only where there are several."""
    return f"{variant}\n{load}" if len(results.scenario.loads) > 1 else variant


def _axes(count: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.4 * count), layout="constrained")
    axes.invert_yaxis()
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import pyplot

    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    found = written.getvalue()
    return found[found.index("<svg") :]
