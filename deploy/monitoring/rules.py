"""Recording and alerting rules: `python -m deploy.monitoring.rules` writes `rules.yml`.

Every threshold stands in `Thresholds`, every metric of Galton's comes from `server.names`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from server.names import (
    ACTIVE_EXPERTS,
    EXPERT_ASSIGNMENTS,
    LAST_STEP,
    NATIVE_ASSIGNMENTS,
    POLICY_ASSIGNMENTS,
    REQUESTS,
    ROUTED_TOKENS,
    ROUTER_ENTROPY,
)

FILE: Final = Path(__file__).with_name("rules.yml")
RUNBOOK: Final = "deploy/runbook/README.md"  # in this repository


@dataclass(frozen=True)
class Thresholds:
    """What is too much or too little. Back-tested ones: see README.md beside this file."""

    step_seconds: int = 60
    queue_seconds: int = 30
    first_token_seconds: int = 30
    cache_usage: float = 0.9
    error_ratio: float = 0.05
    abort_ratio: float = 0.3
    refused_ratio: float = 0.5
    rejected_ratio: float = 0.05
    recompute_ratio: float = 0.1
    dead_expert_tokens: int = 50  # assignments per expert, on the average of its layer, in an hour
    imbalance: float = 3.0
    entropy_fall: float = 0.5  # of the mean of a day
    mode_shift: float = 0.3  # of all tokens


T: Final = Thresholds()


class Recording(NamedTuple):
    """name: level:metric:operations, as Prometheus's handbook has it."""

    name: str
    expression: str


class Alert(NamedTuple):
    """lasts: how long it must be so. summary, description: may name `$labels` and `$value`.

    section: of the runbook, as its heading's anchor.
    """

    name: str
    expression: str
    lasts: str
    severity: str
    summary: str
    description: str
    section: str


_PER_EXPERT = f"sum by (instance, model_name, layer, expert) (rate({EXPERT_ASSIGNMENTS.name}[5m]))"
_PER_LAYER = "by (instance, model_name, layer)"
_TOKENS = f"rate({ROUTED_TOKENS.name}[5m])"
_ENDED = f"sum by (instance) (rate({REQUESTS.name}[5m]))"

RECORDINGS: Final = (
    Recording("layer_expert:galton_expert_assignments:rate5m", _PER_EXPERT),
    Recording(
        "layer_expert:galton_expert_load:ratio_rate5m",
        "layer_expert:galton_expert_assignments:rate5m / on (instance, model_name, layer) "
        f"group_left avg {_PER_LAYER} (layer_expert:galton_expert_assignments:rate5m)",
    ),
    Recording(
        "layer:galton_imbalance:ratio_rate5m",
        f"max {_PER_LAYER} (layer_expert:galton_expert_load:ratio_rate5m)",
    ),
    Recording(
        "layer:galton_router_entropy_nats:mean_rate5m",
        f"sum {_PER_LAYER} (rate({ROUTER_ENTROPY.name}_sum[5m])) / "
        f"sum {_PER_LAYER} (rate({ROUTER_ENTROPY.name}_count[5m]))",
    ),
    Recording(
        "layer:galton_active_experts:mean_rate5m",
        f"sum {_PER_LAYER} (rate({ACTIVE_EXPERTS.name}_sum[5m])) / "
        f"sum {_PER_LAYER} (rate({ACTIVE_EXPERTS.name}_count[5m]))",
    ),
    Recording(
        "mode:galton_routed_tokens:share_rate5m",
        f"sum by (instance, mode) ({_TOKENS}) / on (instance) group_left "
        f"sum by (instance) ({_TOKENS})",
    ),
    Recording(
        "policy:galton_experts_saved:ratio_rate5m",
        f"1 - sum by (instance, mode, preset) (rate({POLICY_ASSIGNMENTS.name}[5m])) / "
        f"(sum by (instance, mode, preset) (rate({NATIVE_ASSIGNMENTS.name}[5m])) > 0)",
    ),
    Recording(
        "outcome:galton_requests:share_rate5m",
        f"sum by (instance, outcome) (rate({REQUESTS.name}[5m])) / "
        f"on (instance) group_left {_ENDED}",
    ),
)

_OUTCOME = "outcome:galton_requests:share_rate5m"
_PERCENT = "{{ $value | humanizePercentage }}"
ALERTS: Final = (
    Alert(
        "GaltonTargetDown",
        'up{job="galton"} == 0',
        "1m",
        "critical",
        "{{ $labels.instance }} cannot be scraped",
        "Prometheus has not reached /metrics for a minute: the server is down, or the network is.",
        "the-engine-dies",
    ),
    Alert(
        "GaltonStepStalled",
        "vllm:num_requests_running > 0 and on (instance) "
        f"time() - {LAST_STEP.name} > {T.step_seconds}",
        "1m",
        "critical",
        "{{ $labels.instance }} has requests and makes no step",
        "{{ $value }} requests run, and the engine has begun no step for "
        f"{T.step_seconds} seconds.",
        "the-engine-hangs",
    ),
    Alert(
        "GaltonAdmissionStalled",
        "vllm:num_requests_waiting > 0 and on (instance) vllm:num_requests_running == 0",
        "2m",
        "critical",
        "{{ $labels.instance }} lets requests wait and runs none",
        "{{ $value }} requests wait and none has run for two minutes.",
        "the-engine-hangs",
    ),
    Alert(
        "GaltonCountsStale",
        "sum by (instance) (rate(vllm:generation_tokens_total[5m])) > 0 unless on (instance) "
        f"sum by (instance) ({_TOKENS}) > 0",
        "5m",
        "warning",
        "{{ $labels.instance }} generates tokens and counts none",
        "vLLM generates {{ $value | humanize }} tokens per second, and none is counted: counts are "
        "held back by --metrics-min-tokens, or broken.",
        "experts-are-not-counted",
    ),
    Alert(
        "GaltonErrorRateHigh",
        f'{_OUTCOME}{{outcome="error"}} > {T.error_ratio}',
        "5m",
        "critical",
        f"{_PERCENT} of requests to {{{{ $labels.instance }}}} end in an error",
        "Errors are the server's own, 5xx; a client's mistakes are counted as refused.",
        "the-engine-dies",
    ),
    Alert(
        "GaltonRefusedHigh",
        f'{_OUTCOME}{{outcome="refused"}} > {T.refused_ratio}',
        "15m",
        "info",
        f"{_PERCENT} of requests to {{{{ $labels.instance }}}} are refused",
        "A client sends what is wrong or too large: the 400s say which field.",
        "a-request-that-costs-too-much-or-is-wrong",
    ),
    Alert(
        "GaltonAbortsHigh",
        f'{_OUTCOME}{{outcome="abort"}} > {T.abort_ratio}',
        "15m",
        "info",
        f"{_PERCENT} of clients of {{{{ $labels.instance }}}} leave before their answer",
        "Clients that give up mostly wait too long: look at the queue and at the first token.",
        "clients-that-leave-or-are-slow",
    ),
    Alert(
        "GaltonRejectionsHigh",
        "sum by (instance) (rate(vllm:admission_rejections_total[5m])) / on (instance) "
        f"({_ENDED}) > {T.rejected_ratio}",
        "10m",
        "warning",
        f"{_PERCENT} of requests to {{{{ $labels.instance }}}} find no place in the queue",
        "The server is asked for more than it can do: it answers 503 with Retry-After.",
        "too-many-requests",
    ),
    Alert(
        "GaltonQueueTimeHigh",
        "sum by (instance) (rate(vllm:request_queue_time_seconds_sum[5m])) / "
        "sum by (instance) (rate(vllm:request_queue_time_seconds_count[5m])) > "
        f"{T.queue_seconds}",
        "15m",
        "warning",
        "Requests to {{ $labels.instance }} wait {{ $value | humanizeDuration }} on average",
        f"More than {T.queue_seconds} seconds in the queue, for a quarter of an hour.",
        "too-many-requests",
    ),
    Alert(
        "GaltonFirstTokenSlow",
        "histogram_quantile(0.99, sum by (instance, le) "
        f"(rate(vllm:time_to_first_token_seconds_bucket[5m]))) > {T.first_token_seconds}",
        "10m",
        "warning",
        "The slowest hundredth of first tokens of {{ $labels.instance }} take "
        "{{ $value | humanizeDuration }}",
        f"More than {T.first_token_seconds} seconds, for ten minutes.",
        "too-many-requests",
    ),
    Alert(
        "GaltonCacheFull",
        f"vllm:kv_cache_usage_perc > {T.cache_usage}",
        "10m",
        "warning",
        f"The key-value cache of {{{{ $labels.instance }}}} is {_PERCENT} full",
        "Requests that find no room are preempted, and computed again.",
        "the-cache-is-full",
    ),
    Alert(
        "GaltonRecomputeHigh",
        f'sum by (instance) (rate({ROUTED_TOKENS.name}{{phase="recompute"}}[5m])) / '
        f"sum by (instance) ({_TOKENS}) > {T.recompute_ratio}",
        "10m",
        "warning",
        f"{_PERCENT} of the tokens of {{{{ $labels.instance }}}} are computed a second time",
        "Requests are preempted because the key-value cache is too small for those that run.",
        "the-cache-is-full",
    ),
    Alert(
        "GaltonExpertDead",
        "sum by (instance, model_name, layer, expert) "
        f"(increase({EXPERT_ASSIGNMENTS.name}[1h])) == 0 "
        f"and on (instance, model_name, layer) avg {_PER_LAYER} "
        f"(increase({EXPERT_ASSIGNMENTS.name}[1h])) > {T.dead_expert_tokens}",
        "15m",
        "info",
        "{{ $labels.model_name }} does not use expert {{ $labels.expert }} of layer "
        "{{ $labels.layer }}",
        "No token in an hour, while the others of its layer had more than "
        f"{T.dead_expert_tokens} each on average.",
        "an-expert-is-dead-or-a-layer-unbalanced",
    ),
    Alert(
        "GaltonImbalanceHigh",
        f"layer:galton_imbalance:ratio_rate5m > {T.imbalance:g}",
        "15m",
        "info",
        "Layer {{ $labels.layer }} of {{ $labels.model_name }} is unbalanced",
        "Its busiest expert has {{ $value | humanize }} times the mean load.",
        "an-expert-is-dead-or-a-layer-unbalanced",
    ),
    Alert(
        "GaltonRouterEntropyCollapsed",
        "layer:galton_router_entropy_nats:mean_rate5m < "
        f"{T.entropy_fall} * avg_over_time(layer:galton_router_entropy_nats:mean_rate5m[1d])",
        "30m",
        "warning",
        "The router of layer {{ $labels.layer }} of {{ $labels.model_name }} has become certain",
        "The mean entropy of P(expert | token) is {{ $value | humanize }} nats, less than half of "
        "its mean of a day: other texts, another model, or broken weights.",
        "the-router-has-become-certain",
    ),
    Alert(
        "GaltonModeShareShifted",
        "abs(mode:galton_routed_tokens:share_rate5m - "
        f"avg_over_time(mode:galton_routed_tokens:share_rate5m[1d])) > {T.mode_shift}",
        "15m",
        "info",
        "The share of {{ $labels.mode }} on {{ $labels.instance }} has changed",
        f"It differs from its mean of a day by {_PERCENT} of all tokens: a client, a preset or a "
        "default has changed.",
        "other-policies-than-yesterday",
    ),
)


def rules() -> dict[str, Any]:
    """The file's content."""
    recordings = [{"record": r.name, "expr": r.expression} for r in RECORDINGS]
    alerts = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.lasts,
            "labels": {"severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "description": alert.description,
                "runbook_url": f"{RUNBOOK}#{alert.section}",
            },
        }
        for alert in ALERTS
    ]
    groups = [
        {"name": "galton-recordings", "interval": "15s", "rules": recordings},
        {"name": "galton-alerts", "interval": "15s", "rules": alerts},
    ]
    return {"groups": groups}


def text() -> str:
    """The file."""
    head = "# Made by `python -m deploy.monitoring.rules`: change rules.py, not this.\n"
    return head + str(yaml.safe_dump(rules(), sort_keys=False, width=100))


if __name__ == "__main__":
    FILE.write_text(text())
