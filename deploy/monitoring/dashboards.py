"""Grafana's dashboards: `python -m deploy.monitoring.dashboards` writes `grafana/dashboards/`.

Names of Galton's metrics come from `server.names`, thresholds from `rules`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from deploy.monitoring.panels import (
    SELECTED,
    SOURCE,
    bars,
    lines,
    listed,
    matrix,
    number,
    over_time,
)
from deploy.monitoring.rules import T
from server.names import (
    ACTIVE_EXPERTS,
    EXPERT_ASSIGNMENTS,
    LAST_STEP,
    LAYER_IMBALANCE,
    LAYER_LOAD_ENTROPY,
    NATIVE_ASSIGNMENTS,
    POLICY_ASSIGNMENTS,
    REQUEST_SECONDS,
    REQUESTS,
    ROUTED_TOKENS,
    ROUTER_ENTROPY,
    ROUTERS,
)

FOLDER: Final = Path(__file__).with_name("grafana") / "dashboards"
TAG: Final = "galton"
FAIR: Final = ((None, "blue"), (0.5, "green"), (1.5, "orange"), (T.imbalance, "red"))
GOOD_LOW: Final = ((None, "green"), (2.0, "orange"), (T.imbalance, "red"))

Rows = Sequence[tuple[str, Sequence[Any]]]


def per_second(metric: str, by: str = "", more: str = "") -> str:
    """The sum of a counter's rates."""
    labels = SELECTED + (f", {more}" if more else "")
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{labels}}}[$__rate_interval]))"


def gauge(metric: str) -> str:
    return f"{metric}{{{SELECTED}}}"


def mean(metric: str, by: str = "") -> str:
    """Of a summary or a histogram; nothing, not NaN, where nothing was observed."""
    return f"({per_second(f'{metric}_sum', by)} / {per_second(f'{metric}_count', by)}) >= 0"


def quantile(q: float, metric: str, by: str = "le") -> str:
    """Of a histogram; nothing, not NaN, where nothing was observed."""
    return f"histogram_quantile({q}, {per_second(f'{metric}_bucket', by)}) >= 0"


def by_preset(expression: str) -> dict[str, str]:
    """By legend; to Prometheus an empty label is none, which a legend cannot show."""
    return {"{{preset}}": f'label_replace({expression}, "preset", "none", "preset", "")'}


def across(quantiles: Sequence[float], of_layers: str) -> dict[str, str]:
    """Over layers, by legend."""
    return {f"p{100 * q:g}": f"quantile({q}, {of_layers})" for q in quantiles}


# --- experts --------------------------------------------------------------------------------------

_IN_RANGE = f"sum by (layer, expert) (increase({gauge(EXPERT_ASSIGNMENTS.name)}[$__range]))"
_RATIO = f"{_IN_RANGE} / on (layer) group_left avg by (layer) ({_IN_RANGE})"
_LOADS = per_second(EXPERT_ASSIGNMENTS.name, "layer, expert")
_IMBALANCE = f"max by (layer) ({_LOADS}) / avg by (layer) ({_LOADS})"
_SHARE = f"({_LOADS} / on (layer) group_left sum by (layer) ({_LOADS}))"
_LOAD_ENTROPY = f"-sum by (layer) ({_SHARE} * ln({_SHARE} > 0)) / ln(count by (layer) ({_LOADS}))"
_HEADROOM = f"1 - avg by (layer) ({_LOADS}) / max by (layer) ({_LOADS})"
_ENTROPY = mean(ROUTER_ENTROPY.name, "layer")
_ACTIVE = mean(ACTIVE_EXPERTS.name, "layer")
_ONE_LAYER = per_second(EXPERT_ASSIGNMENTS.name, "expert", 'layer="$layer"')

EXPERTS: Final[Rows] = (
    (
        "At a glance",
        (
            number(
                "Greatest imbalance",
                "The busiest expert's load over the mean of its layer, in the worst layer.",
                f"max({_IMBALANCE})",
                decimals=2,
                steps=GOOD_LOW,
            ),
            number(
                "Dead experts",
                "Experts that no token used in the dashboard's range.",
                f"count({_IN_RANGE} == 0) or vector(0)",
                steps=((None, "green"), (1.0, "orange")),
            ),
            number(
                "Headroom if balanced",
                "How much less the busiest experts would have to do if all had the same load; mean "
                "over layers.",
                f"avg({_HEADROOM})",
                unit="percentunit",
            ),
            number(
                "Router entropy",
                "Mean entropy of P(expert | token), in nats: 0 is certain, ln(experts) is uniform.",
                mean(ROUTER_ENTROPY.name),
                decimals=2,
            ),
            number(
                "Active experts per step",
                "Distinct experts of a layer that a step reads from memory; mean over layers.",
                mean(ACTIVE_EXPERTS.name),
                decimals=1,
            ),
            number(
                "Tokens routed",
                "Per second, prompt and answer.",
                per_second(ROUTED_TOKENS.name),
                unit="short",
                decimals=1,
            ),
        ),
    ),
    (
        "Which experts",
        (
            matrix(
                "Load of every expert",
                "Ratio to the fair share of its layer in the dashboard's range: 1 is fair, 0 dead. "
                "Rows are experts, columns layers.",
                _RATIO,
                rows="expert",
                columns="layer",
                steps=FAIR,
            ),
            bars(
                "Hottest experts",
                "The ten with the greatest ratio to their fair share.",
                f"topk(10, {_RATIO})",
                "layer {{layer}}, expert {{expert}}",
                steps=FAIR,
            ),
            bars(
                "Coldest experts",
                "The ten with the smallest ratio to their fair share.",
                f"bottomk(10, {_RATIO})",
                "layer {{layer}}, expert {{expert}}",
                steps=FAIR,
            ),
            listed(
                "Dead experts",
                "Not used by any token in the dashboard's range. Empty is good.",
                f"{_IN_RANGE} == 0",
                ("layer", "expert"),
            ),
        ),
    ),
    (
        "How they are balanced",
        (
            lines(
                "Imbalance across layers",
                "Busiest expert over the mean, its quantiles over layers.",
                {**across((0.5, 0.95), _IMBALANCE), "worst": f"max({_IMBALANCE})"},
            ),
            lines(
                "Imbalance in the last minute, by layer",
                "As the server itself sees it between scrapes.",
                {"layer {{layer}}": gauge(LAYER_IMBALANCE.name)},
            ),
            lines(
                "Entropy of the load across layers",
                "1: all experts are as busy. 0: one has all.",
                across((0.05, 0.5), _LOAD_ENTROPY),
                most=1,
            ),
            lines(
                "Entropy of the load in the last minute, by layer",
                "As the server itself sees it between scrapes.",
                {"layer {{layer}}": gauge(LAYER_LOAD_ENTROPY.name)},
                most=1,
            ),
            lines(
                "Assignments per expert",
                "Per second: of the busiest and the idlest expert of all layers, and how they "
                "scatter.",
                {
                    "most": f"max({_LOADS})",
                    "mean": f"avg({_LOADS})",
                    "least": f"min({_LOADS})",
                    "standard deviation": f"stddev({_LOADS})",
                },
            ),
            bars(
                "Headroom if balanced, by layer",
                "How much less the busiest expert would have to do.",
                _HEADROOM,
                "layer {{layer}}",
                unit="percentunit",
                width=12,
            ),
        ),
    ),
    (
        "How the router decides",
        (
            lines(
                "Router entropy across layers",
                "Of P(expert | token), nats, its quantiles over layers.",
                {**across((0.05, 0.5, 0.95), _ENTROPY)},
            ),
            bars(
                "Router entropy, by layer",
                "Of P(expert | token), nats. A layer far below the others is certain: noise "
                "changes little there.",
                _ENTROPY,
                "layer {{layer}}",
                width=12,
            ),
            lines(
                "Active experts per step across layers",
                "Distinct experts that a step reads from memory: the more, the slower a step that "
                "is bound by memory.",
                {**across((0.5, 0.95), _ACTIVE), "most": f"max({_ACTIVE})"},
            ),
            bars(
                "Active experts per step, by layer",
                "Mean of distinct experts.",
                _ACTIVE,
                "layer {{layer}}",
                width=12,
            ),
            over_time(
                "Experts of layer $layer",
                "Assignments per second of each expert of one layer.",
                _ONE_LAYER,
                "{{expert}}",
            ),
        ),
    ),
    (
        "Who it was",
        (
            lines(
                "Load by mode",
                "Assignments per second.",
                {"{{mode}}": per_second(POLICY_ASSIGNMENTS.name, "mode")},
                stacked=True,
            ),
            lines(
                "Load by preset",
                "Assignments per second; none: without a preset.",
                by_preset(per_second(POLICY_ASSIGNMENTS.name, "preset")),
                stacked=True,
            ),
            listed(
                "The model's routers",
                "MoE layers, experts in each, the model's own top-k, the most a request may use.",
                gauge(ROUTERS.name),
                ("model_name", "layers", "experts", "top_k", "max_experts_per_token"),
                width=24,
            ),
        ),
    ),
)

# --- policies -------------------------------------------------------------------------------------

_ERRORS: Final = 'outcome="error"'
_NATIVE: Final = 'mode="top_k"'
_LAYERS: Final = f"scalar(count(count by (layer) ({gauge(EXPERT_ASSIGNMENTS.name)})))"


def saved(by: str) -> str:
    computed = per_second(POLICY_ASSIGNMENTS.name, by)
    return f"1 - {computed} / ({per_second(NATIVE_ASSIGNMENTS.name, by)} > 0)"


POLICIES: Final[Rows] = (
    (
        "At a glance",
        (
            number("Requests", "That ended, per second.", per_second(REQUESTS.name), unit="reqps"),
            number(
                "Errors",
                "Share of requests that ended in the server's own error.",
                f"({per_second(REQUESTS.name, more=_ERRORS)} or vector(0)) / "
                f"{per_second(REQUESTS.name)}",
                unit="percentunit",
                steps=((None, "green"), (T.error_ratio, "red")),
            ),
            number(
                "Stochastic tokens",
                "Share of tokens that a policy other than the model's own top-k routed.",
                f"1 - ({per_second(ROUTED_TOKENS.name, more=_NATIVE)} or vector(0)) / "
                f"{per_second(ROUTED_TOKENS.name)}",
                unit="percentunit",
            ),
            number(
                "Experts saved",
                "Of what the model's own top-k would have computed. Below zero: more was computed.",
                saved(""),
                unit="percentunit",
            ),
            number(
                "Presets in use",
                "That ended a request in the dashboard's range.",
                f"count(sum by (preset) (increase({REQUESTS.name}{{{SELECTED}, "
                'preset!=""}[$__range])) > 0) or vector(0)',
            ),
            number(
                "Duration",
                "Median time of requests that end well.",
                quantile(0.5, REQUEST_SECONDS.name),
                unit="s",
            ),
        ),
    ),
    (
        "Requests",
        (
            lines(
                "By mode",
                "Requests per second.",
                {"{{mode}}": per_second(REQUESTS.name, "mode")},
                unit="reqps",
                stacked=True,
            ),
            lines(
                "By preset",
                "Requests per second; none: without a preset.",
                by_preset(per_second(REQUESTS.name, "preset")),
                unit="reqps",
                stacked=True,
            ),
            lines(
                "By end",
                "Requests per second: ok; refused, the client's error; error, the server's; abort, "
                "left by the client.",
                {"{{outcome}}": per_second(REQUESTS.name, "outcome")},
                unit="reqps",
                stacked=True,
            ),
            lines(
                "Errors by mode",
                "Share of a mode's requests that ended in an error.",
                {
                    "{{mode}}": f"{per_second(REQUESTS.name, 'mode', _ERRORS)} / on (mode) "
                    f"{per_second(REQUESTS.name, 'mode')}"
                },
                unit="percentunit",
            ),
        ),
    ),
    (
        "Time",
        (
            lines(
                "Median duration by mode",
                "Of requests that end well, whatever their length.",
                {"{{mode}}": quantile(0.5, REQUEST_SECONDS.name, "mode, le")},
                unit="s",
            ),
            lines(
                "95th percentile by mode",
                "Of requests that end well, whatever their length.",
                {"{{mode}}": quantile(0.95, REQUEST_SECONDS.name, "mode, le")},
                unit="s",
            ),
            lines(
                "Mean duration by preset",
                "Of requests that end well, whatever their length.",
                by_preset(mean(REQUEST_SECONDS.name, "preset")),
                unit="s",
                width=24,
            ),
        ),
    ),
    (
        "Tokens",
        (
            lines(
                "By mode",
                "Routed, per second. Prompts under scope decode count as top_k.",
                {"{{mode}}": per_second(ROUTED_TOKENS.name, "mode")},
                stacked=True,
            ),
            lines(
                "By preset",
                "Routed, per second; none: without a preset.",
                by_preset(per_second(ROUTED_TOKENS.name, "preset")),
                stacked=True,
            ),
            lines(
                "By phase",
                "Prompts, answers, and what is computed again after a preemption.",
                {"{{phase}}": per_second(ROUTED_TOKENS.name, "phase")},
                stacked=True,
            ),
            lines(
                "Share of modes",
                "Of tokens routed.",
                {
                    "{{mode}}": f"{per_second(ROUTED_TOKENS.name, 'mode')} / on () group_left "
                    f"{per_second(ROUTED_TOKENS.name)}"
                },
                unit="percentunit",
                most=1,
            ),
        ),
    ),
    (
        "What it costs, what it saves",
        (
            lines(
                "Experts saved by mode",
                "Of what the model's own top-k would have computed.",
                {"{{mode}}": saved("mode")},
                unit="percentunit",
            ),
            lines(
                "Experts saved by preset",
                "Of what the model's own top-k would have computed.",
                by_preset(saved("preset")),
                unit="percentunit",
            ),
            lines(
                "Assignments",
                "(token, expert) pairs per second: computed, and as the model's own top-k would.",
                {
                    "computed": per_second(POLICY_ASSIGNMENTS.name),
                    "the model's own": per_second(NATIVE_ASSIGNMENTS.name),
                },
            ),
            bars(
                "Experts per token and layer, by mode",
                "Mean of what was computed.",
                f"{per_second(POLICY_ASSIGNMENTS.name, 'mode')} / on (mode) "
                f"({per_second(ROUTED_TOKENS.name, 'mode')} > 0) / {_LAYERS}",
                "{{mode}}",
                width=12,
            ),
        ),
    ),
)

# --- serving --------------------------------------------------------------------------------------


def vllm(name: str) -> str:
    return f"vllm:{name}"


def latencies(name: str) -> dict[str, str]:
    """Quantiles of one of vLLM's histograms, by legend."""
    return {f"p{100 * q:g}": quantile(q, vllm(name)) for q in (0.5, 0.95, 0.99)}


SERVING: Final[Rows] = (
    (
        "At a glance",
        (
            number(
                "Up",
                "Servers that Prometheus reaches.",
                'sum(up{instance=~"$instance"})',
                steps=((None, "red"), (1.0, "green")),
            ),
            number(
                "Running",
                "Requests in the engine's batch.",
                f"sum({gauge(vllm('num_requests_running'))})",
            ),
            number(
                "Waiting",
                "Requests that the engine has not begun.",
                f"sum({gauge(vllm('num_requests_waiting'))})",
                steps=((None, "green"), (1.0, "orange")),
            ),
            number(
                "Cache",
                "Of the key-value cache, in use.",
                f"max({gauge(vllm('kv_cache_usage_perc'))})",
                unit="percentunit",
                steps=((None, "green"), (T.cache_usage, "red")),
            ),
            number(
                "Answer tokens",
                "Generated, per second.",
                per_second(vllm("generation_tokens_total")),
                decimals=1,
            ),
            number(
                "Last step",
                "How long ago the engine's last step began.",
                f"time() - max({gauge(LAST_STEP.name)} > 0)",
                unit="s",
            ),
        ),
    ),
    (
        "Latency",
        (
            lines(
                "First token",
                "From a request's arrival.",
                latencies("time_to_first_token_seconds"),
                unit="s",
            ),
            lines(
                "Between tokens",
                "From one token of an answer to the next.",
                latencies("inter_token_latency_seconds"),
                unit="s",
            ),
            lines(
                "Whole requests",
                "From arrival to the last token.",
                latencies("e2e_request_latency_seconds"),
                unit="s",
            ),
            lines(
                "Where the time goes",
                "Mean of each part of a request.",
                {
                    "queue": mean(vllm("request_queue_time_seconds")),
                    "prefill": mean(vllm("request_prefill_time_seconds")),
                    "decode": mean(vllm("request_decode_time_seconds")),
                },
                unit="s",
                stacked=True,
            ),
        ),
    ),
    (
        "Throughput",
        (
            lines(
                "Tokens",
                "Per second.",
                {
                    "prompt": per_second(vllm("prompt_tokens_total")),
                    "answer": per_second(vllm("generation_tokens_total")),
                },
            ),
            lines(
                "Requests by how they finish",
                "Per second.",
                {
                    "{{finished_reason}}": per_second(
                        vllm("request_success_total"), "finished_reason"
                    )
                },
                unit="reqps",
                stacked=True,
            ),
            lines(
                "Tokens per step",
                "What the engine computes at once.",
                {"mean": mean(vllm("iteration_tokens_total"))},
            ),
            lines(
                "Lengths",
                "Mean tokens of prompts and answers.",
                {
                    "prompt": mean(vllm("request_prompt_tokens")),
                    "answer": mean(vllm("request_generation_tokens")),
                },
            ),
        ),
    ),
    (
        "Queue and cache",
        (
            lines(
                "Requests in the engine",
                "Running, and waiting.",
                {
                    "running": f"sum({gauge(vllm('num_requests_running'))})",
                    "waiting": f"sum({gauge(vllm('num_requests_waiting'))})",
                },
            ),
            lines(
                "Turned away",
                "Requests per second that found no place in the queue, by reason.",
                {"{{reason}}": per_second(vllm("admission_rejections_total"), "reason")},
                unit="reqps",
            ),
            lines(
                "Key-value cache",
                "In use.",
                {"{{instance}}": gauge(vllm("kv_cache_usage_perc"))},
                unit="percentunit",
                most=1,
            ),
            lines(
                "Prefix cache",
                "Share of prompt tokens that were there already.",
                {
                    "hits": f"{per_second(vllm('prefix_cache_hits_total'))} / "
                    f"{per_second(vllm('prefix_cache_queries_total'))}"
                },
                unit="percentunit",
                most=1,
            ),
            lines(
                "Preemptions",
                "Per second.",
                {"preemptions": per_second(vllm("num_preemptions_total"))},
            ),
            lines(
                "The API's process",
                "CPU seconds per second.",
                {
                    "{{instance}}": 'rate(process_cpu_seconds_total{instance=~"$instance"}'
                    "[$__rate_interval])"
                },
            ),
            lines(
                "The API's memory",
                "Resident.",
                {"{{instance}}": 'process_resident_memory_bytes{instance=~"$instance"}'},
                unit="bytes",
            ),
            lines(
                "Open files",
                "Of the API's process; each client holds one.",
                {"{{instance}}": 'process_open_fds{instance=~"$instance"}'},
            ),
        ),
    ),
)

TITLES: Final = {"experts": EXPERTS, "policies": POLICIES, "serving": SERVING}


def dashboards() -> dict[str, dict[str, Any]]:
    """By file name: Grafana's JSON."""
    return {f"{name}.json": _dashboard(name, rows) for name, rows in TITLES.items()}


def _dashboard(name: str, rows: Rows) -> dict[str, Any]:
    link = (
        build.DashboardLink("Galton")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )
    board = (
        build.Dashboard(f"Galton: {name.capitalize()}")
        .uid(f"galton-{name}")
        .tags([TAG])
        .refresh("10s")
        .time("now-15m", "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(link)
        .with_variable(
            build.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(_labels("model", "Model", "model_name"))
        .with_variable(_labels("instance", "Server", "instance"))
    )
    if name == "experts":
        board = board.with_variable(
            build.QueryVariable("layer")
            .label("Layer")
            .query(f"label_values({EXPERT_ASSIGNMENTS.name}, layer)")
            .datasource(SOURCE)
            .refresh(model.VariableRefresh.ON_DASHBOARD_LOAD)
            .sort(model.VariableSort.NUMERICAL_ASC)
        )
    for title, panels in rows:
        board = board.with_row(build.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    content: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    return content


def _labels(name: str, label: str, metric_label: str) -> Any:
    return (
        build.QueryVariable(name)
        .label(label)
        .query(f"label_values({ROUTED_TOKENS.name}, {metric_label})")
        .datasource(SOURCE)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def read(file: str) -> dict[str, Any]:
    """As it is committed."""
    content: dict[str, Any] = json.loads((FOLDER / file).read_text())
    return content


class Query(NamedTuple):
    """What a panel asks. unit: of its values. legend: with the labels that tell series apart."""

    dashboard: str
    panel: str
    kind: str
    unit: str
    legend: str
    expression: str


def queries() -> list[Query]:
    """Of all panels."""
    return [
        Query(
            name.removesuffix(".json"),
            panel["title"],
            panel["type"],
            panel["fieldConfig"]["defaults"].get("unit", ""),
            target["legendFormat"],
            target["expr"],
        )
        for name, content in dashboards().items()
        for panel in content["panels"]
        for target in panel.get("targets", ())
    ]


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, content in dashboards().items():
        (FOLDER / file).write_text(json.dumps(content, indent=1) + "\n")
