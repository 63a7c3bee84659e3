"""The alerts on made-up series: none while all is well, each alone where it should, none after."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.monitoring import rules
from deploy.monitoring.rules import ALERTS, FILE, RECORDINGS, RUNBOOK, Alert
from tests.shared.debian import tool

REPO: Final = Path(__file__).parents[3]
CHANGE, BACK, END = 120, 200, 240  # minutes
LABELS: Final = 'instance="a:8000", job="galton"'
MODEL: Final = f'{LABELS}, model_name="m"'


def of_expert(expert: int) -> str:
    return f'galton_expert_assignments_total{{{MODEL}, layer="0", expert="{expert}"}}'


def tokens(mode: str, phase: str) -> str:
    labels = f'{MODEL}, mode="{mode}", preset="", phase="{phase}"'
    return f"galton_routed_tokens_total{{{labels}}}"


def requests(outcome: str) -> str:
    labels = f'{MODEL}, mode="top_k", preset="", outcome="{outcome}"'
    return f"galton_requests_total{{{labels}}}"


ENTROPY: Final = f'galton_router_entropy_nats_sum{{{MODEL}, layer="0"}}'
LAST_STEP: Final = f"galton_last_step_timestamp_seconds{{{MODEL}}}"
UP: Final = f"up{{{LABELS}}}"


def vllm(name: str, more: str = "") -> str:
    return f"vllm:{name}{{{MODEL}{more}}}"


def first_tokens(le: str) -> str:
    return vllm("time_to_first_token_seconds_bucket", f', le="{le}"')


# By series: what a gauge is, or by how much a counter grows, a minute.
WELL: Final[dict[str, float]] = {
    UP: 1,
    **{of_expert(expert): 120 for expert in range(4)},
    f'galton_active_experts_sum{{{MODEL}, layer="0"}}': 240,
    f'galton_active_experts_count{{{MODEL}, layer="0"}}': 60,
    ENTROPY: 240,
    f'galton_router_entropy_nats_count{{{MODEL}, layer="0"}}': 240,
    tokens("top_k", "prefill"): 60,
    tokens("top_k", "decode"): 60,
    tokens("top_k", "recompute"): 0,
    tokens("sample", "decode"): 120,
    tokens("uniform", "decode"): 0,
    f'galton_policy_assignments_total{{{MODEL}, mode="top_k", preset=""}}': 240,
    f'galton_native_assignments_total{{{MODEL}, mode="top_k", preset=""}}': 240,
    f'galton_policy_assignments_total{{{MODEL}, mode="top_k", preset="fast"}}': 60,
    f'galton_native_assignments_total{{{MODEL}, mode="top_k", preset="fast"}}': 240,
    requests("ok"): 60,
    requests("error"): 0,
    requests("abort"): 0,
    requests("refused"): 0,
    LAST_STEP: 60,
    vllm("num_requests_running"): 2,
    vllm("num_requests_waiting"): 0,
    vllm("kv_cache_usage_perc"): 0.5,
    vllm("generation_tokens_total"): 180,
    vllm("request_queue_time_seconds_sum"): 60,
    vllm("request_queue_time_seconds_count"): 60,
    vllm("admission_rejections_total"): 0,
    first_tokens("1"): 60,
    first_tokens("40"): 60,
    first_tokens("+Inf"): 60,
}
GAUGES: Final = ("up{", "vllm:num_requests", "vllm:kv_cache")


@dataclass(frozen=True)
class Case:
    """ill: what is otherwise from CHANGE to BACK. lasts: minutes until the alert fires, at the
    most. value: as the texts give it. labels: beside the severity, of each that fires.
    """

    ill: dict[str, float]
    lasts: int
    value: str = ""
    labels: tuple[dict[str, str], ...] = ({"instance": "a:8000"},)


WHOLE: Final = {"instance": "a:8000", "job": "galton", "model_name": "m"}
LAYER: Final = {"instance": "a:8000", "model_name": "m", "layer": "0"}
CASES: Final = {
    "GaltonTargetDown": Case({UP: 0}, 1, labels=({"instance": "a:8000", "job": "galton"},)),
    "GaltonStepStalled": Case({LAST_STEP: 0}, 3, "2", (WHOLE,)),
    "GaltonAdmissionStalled": Case(
        {vllm("num_requests_running"): 0, vllm("num_requests_waiting"): 3}, 2, "3", (WHOLE,)
    ),
    "GaltonCountsStale": Case(
        {tokens(mode, phase): 0 for mode in ("top_k", "sample") for phase in ("prefill", "decode")},
        11,
        "3",
    ),
    "GaltonErrorRateHigh": Case(
        {requests("error"): 20}, 11, "25%", ({"instance": "a:8000", "outcome": "error"},)
    ),
    "GaltonRefusedHigh": Case(
        {requests("refused"): 90}, 21, "60%", ({"instance": "a:8000", "outcome": "refused"},)
    ),
    "GaltonAbortsHigh": Case(
        {requests("abort"): 60}, 21, "50%", ({"instance": "a:8000", "outcome": "abort"},)
    ),
    "GaltonRejectionsHigh": Case({vllm("admission_rejections_total"): 6}, 16, "10%"),
    "GaltonQueueTimeHigh": Case({vllm("request_queue_time_seconds_sum"): 3600}, 21, "1m 0s"),
    "GaltonFirstTokenSlow": Case({first_tokens("1"): 0}, 16, "39.61s"),
    "GaltonCacheFull": Case({vllm("kv_cache_usage_perc"): 0.95}, 10, "95%", (WHOLE,)),
    "GaltonRecomputeHigh": Case({tokens("top_k", "recompute"): 80}, 16, "25%"),
    "GaltonExpertDead": Case({of_expert(3): 0}, 76, labels=({**LAYER, "expert": "3"},)),
    "GaltonImbalanceHigh": Case(
        {of_expert(0): 1200, **{of_expert(e): 40 for e in (1, 2, 3)}}, 21, "3.636", (LAYER,)
    ),
    "GaltonRouterEntropyCollapsed": Case({ENTROPY: 60}, 36, "250m", (LAYER,)),
    "GaltonModeShareShifted": Case(
        {tokens("sample", "decode"): 0, tokens("uniform", "decode"): 120},
        21,
        "43.26%",
        tuple({"instance": "a:8000", "mode": mode} for mode in ("sample", "uniform")),
    ),
}


def values(series: str, ill: dict[str, float]) -> str:
    """In promtool's notation, a value a minute."""
    well = WELL[series]
    other = ill.get(series, well)
    if series.startswith(GAUGES):
        return f"{well}x{CHANGE - 1} {other}x{BACK - CHANGE - 1} {well}x{END - BACK}"
    first = well * CHANGE
    second = first + other * (BACK - CHANGE)
    if series == LAST_STEP:  # once the engine moves again, it tells the time
        second = 60 * BACK
    return f"0+{well}x{CHANGE - 1} {first}+{other}x{BACK - CHANGE - 1} {second}+{well}x{END - BACK}"


def alert_test(minute: int, name: str, fires: list[dict[str, Any]]) -> dict[str, Any]:
    return {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": fires}


def expected(alert: Alert, labels: dict[str, str]) -> dict[str, Any]:
    """The alert as it fires in its case."""

    def filled(text: str) -> str:
        text = re.sub(r"{{ \$value[^}]*}}", CASES[alert.name].value, text)
        return re.sub(r"{{ \$labels\.(\w+) }}", lambda m: labels[m[1]], text)

    return {
        "exp_labels": {"severity": alert.severity, **labels},
        "exp_annotations": {
            "summary": filled(alert.summary),
            "description": filled(alert.description),
            "runbook_url": f"{RUNBOOK}#{alert.section}",
        },
    }


def scenario(name: str) -> dict[str, Any]:
    """Before, as it begins, while it lasts, and after: which alerts fire."""
    case = CASES[name]
    firing = {name: [expected(a, each) for a in ALERTS if a.name == name for each in case.labels]}
    tests = [
        alert_test(minute, alert.name, firing.get(alert.name, []) if fires else [])
        for minute, fires in (
            (CHANGE - 1, False),
            (CHANGE, False),
            (CHANGE + case.lasts, True),
            (END, False),
        )
        for alert in ALERTS
    ]
    series = [{"series": s, "values": values(s, case.ill)} for s in WELL]
    return {"name": name, "interval": "1m", "input_series": series, "alert_rule_test": tests}


def promtool(folder: Path, tests: list[dict[str, Any]]) -> None:
    file = folder / "tests.yml"
    body = {
        "rule_files": [str(FILE)],
        "evaluation_interval": "1m",
        "group_eval_order": [group["name"] for group in rules.rules()["groups"]],  # else by chance
        "tests": tests,
    }
    file.write_text(yaml.safe_dump(body, sort_keys=False))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_file_is_fresh() -> None:
    assert FILE.read_text() == rules.text(), "run python -m deploy.monitoring.rules"


def test_every_alert_has_its_case() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("name", CASES)
def test_alert_fires_where_it_should_and_alone(tmp_path: Path, name: str) -> None:
    promtool(tmp_path, [scenario(name)])


def test_recordings(tmp_path: Path) -> None:
    expected_values: dict[str, list[float]] = {
        "layer_expert:galton_expert_assignments:rate5m": [2, 2, 2, 2],
        "layer_expert:galton_expert_load:ratio_rate5m": [1, 1, 1, 1],
        "layer:galton_imbalance:ratio_rate5m": [1],
        "layer:galton_router_entropy_nats:mean_rate5m": [1],
        "layer:galton_active_experts:mean_rate5m": [4],
        "mode:galton_routed_tokens:share_rate5m": [0.5, 0.5, 0],
        "policy:galton_experts_saved:ratio_rate5m": [0, 0.75],
        "outcome:galton_requests:share_rate5m": [1, 0, 0, 0],
    }
    assert list(expected_values) == [recording.name for recording in RECORDINGS]
    tests = [
        {
            "expr": f"count({name}) + sum({name}) * 1000",
            "eval_time": f"{CHANGE}m",
            "exp_samples": [{"labels": "{}", "value": len(numbers) + sum(numbers) * 1000}],
        }
        for name, numbers in expected_values.items()
    ]
    series = [{"series": s, "values": values(s, {})} for s in WELL]
    promtool(tmp_path, [{"interval": "1m", "input_series": series, "promql_expr_test": tests}])


def test_every_alert_links_to_a_section_of_the_runbook() -> None:
    page = (REPO / RUNBOOK).read_text()
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert {alert.section for alert in ALERTS} <= anchors
