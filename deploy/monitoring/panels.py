"""Panels of the kinds that the dashboards have, on grafana-foundation-sdk.

Queries name the variables `$instance` and `$model` through `SELECTED`. Widths are of 24.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, table
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import timeseries as lines_builder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SELECTED: Final = 'instance=~"$instance", model_name=~"$model"'
SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
Steps = Sequence[tuple[float | None, str]]  # from which value on, which color


def lines(
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    unit: str = "short",
    width: int = 12,
    most: float | None = None,
    stacked: bool = False,
) -> Any:
    """Over time. queries: by legend."""
    panel = (
        lines_builder.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(kinds.TooltipDisplayMode.MULTI)
            .sort(kinds.SortOrder.DESCENDING)
        )
        .fill_opacity(30 if stacked else 5)
    )
    if most is not None:
        panel = panel.max(most)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    for legend, query in queries.items():
        panel = panel.with_target(_target(query, legend))
    return panel


def number(
    title: str,
    description: str,
    query: str,
    *,
    unit: str = "short",
    decimals: int | None = None,
    steps: Steps = ((None, "blue"),),
) -> Any:
    """One number, with its course behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .thresholds(_thresholds(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(kinds.BigValueGraphMode.AREA)
        .with_target(_target(query, ""))
    )
    return panel if decimals is None else panel.decimals(decimals)


def bars(
    title: str,
    description: str,
    query: str,
    legend: str,
    *,
    unit: str = "short",
    width: int = 8,
    steps: Steps = ((None, "blue"),),
) -> Any:
    """As it is now, a bar for each series."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .thresholds(_thresholds(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(query, legend, instant=True))
    )


def matrix(
    title: str, description: str, query: str, *, rows: str, columns: str, steps: Steps
) -> Any:
    """As it is now: a table of two labels, cells colored by value.

    Grafana's heatmap has time on its x axis (grafana#60806); a table takes any labels.
    """
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .decimals(2)
        .span(24)
        .height(16)
        .thresholds(_thresholds(steps))
        .with_target(_target(query, "", instant=True).format(PromQueryFormat.TABLE))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="groupingToMatrix",
                options={"rowField": rows, "columnField": columns, "valueField": "Value"},
            )
        )
        .with_transformation(  # so that 10 is not before 2
            model.DataTransformerConfig(
                id_val="convertFieldType",
                options={
                    "conversions": [
                        {"targetField": f"{rows}\\{columns}", "destinationType": "number"}
                    ]
                },
            )
        )
        .with_transformation(
            model.DataTransformerConfig(
                id_val="sortBy", options={"sort": [{"field": f"{rows}\\{columns}"}]}
            )
        )
        .with_override(
            model.MatcherConfig(id_val="byRegexp", options="^[0-9]+$"),
            [
                model.DynamicConfigValue(
                    id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"}
                )
            ],
        )
    )


def listed(
    title: str, description: str, query: str, columns: Sequence[str], *, width: int = 8
) -> Any:
    """As it is now: a table of series. columns: labels, in order."""
    hidden = {"Time": True, "__name__": True}
    order = {column: i for i, column in enumerate([*columns, "Value"])}
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .decimals(2)
        .span(width)
        .height(8)
        .with_target(_target(query, "", instant=True).format(PromQueryFormat.TABLE))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize", options={"excludeByName": hidden, "indexByName": order}
            )
        )
    )


def over_time(title: str, description: str, query: str, legend: str) -> Any:
    """A heatmap: time, series, value."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(24)
        .height(10)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Turbo"))
        .with_target(_target(query, legend).format(PromQueryFormat.TIME_SERIES))
    )


def _target(query: str, legend: str, *, instant: bool = False) -> Any:
    target = prometheus.Dataquery().expr(query).legend_format(legend or "__auto")
    return target.instant() if instant else target.range()


def _thresholds(steps: Steps) -> Any:
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in steps])
    )
