"""A real Prometheus scrapes a real Galton under mixed load: what every panel asks has an answer."""

from __future__ import annotations

import math
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from deploy.monitoring import dashboards
from deploy.monitoring.dashboards import Query, queries
from deploy.monitoring.prometheus import Prometheus, filled
from deploy.monitoring.rules import RECORDINGS
from routing.policy.modes import MODES
from server.names import NAMES
from tests.shared.debian import tool
from tests.shared.prometheus import scraping
from tests.shared.servers import MODEL, Server, eventually

NUM_LAYERS, NUM_EXPERTS = 8, 16
# What must not happen for these to have an answer, does not.
MAY_BE_EMPTY: Final = {"Dead experts", "Errors by mode", "Turned away"}
MAY_BE_NEGATIVE: Final = "saved"


class Load(threading.Thread):
    """Requests of all kinds, one after another, until `stop`."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.stop = threading.Event()
        self.start()

    def run(self) -> None:
        for number in range(10**9):
            policies: list[Any] = [
                None,
                {"mode": "top_k", "top_k": 1, "scope": "all"},
                {"mode": "sample", "temperature": 1.5},
                {"mode": "top_p", "top_p": 0.5, "max_experts": 8},
                {"mode": "uniform"},
                {"mode": "head_sample"},
            ]
            for policy in policies:
                if self.stop.is_set():
                    return
                self.server.tokens([20 + number % 7] * 70, policy, max_tokens=8)
            self.server.tokens([20] * 40, model=f"{MODEL}-two", max_tokens=8)
            body = {"prompt": "x", "max_tokens": 10**6}
            assert self.server.post("/v1/completions", body).status_code == 400


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes while requests of all kinds come."""
    load = Load(server)
    try:
        with scraping(server.url, tmp_path_factory.mktemp("prometheus")) as running:
            yield running
    finally:
        load.stop.set()
        load.join()


def wrong_shape(query: Query, found: list[tuple[dict[str, str], float]]) -> str:
    """What a panel could not show; empty where all is well."""
    if not found:
        return "no data"
    labels = re.findall(r"{{(\w+)}}", query.legend)
    sizes = {("layer",): NUM_LAYERS, ("layer", "expert"): 10, ("expert",): NUM_EXPERTS}
    wanted = sizes.get(tuple(labels), len(found) if labels else 1)
    if query.panel == "Load of every expert":
        labels, wanted = ["layer", "expert"], NUM_LAYERS * NUM_EXPERTS
    if query.kind == "table" and query.panel != "Load of every expert":
        wanted = len(found)
    if len(found) != wanted:
        return f"{len(found)} series, not {wanted}"
    for metric, value in found:
        if not set(labels) <= set(metric):
            return f"labels {metric}"
        if not math.isfinite(value):
            return f"{metric}: {value}"
        if value < 0 and MAY_BE_NEGATIVE not in query.panel:
            return f"{metric}: {value} below 0"
        if query.unit == "percentunit" and value > 1 + 1e-9:
            return f"{metric}: {value} above 1"
    values = {metric.get(labels[0]) for metric, _ in found} if labels else set()
    if labels == ["mode"] and not {"top_k", "sample"} <= values <= set(MODES):
        return f"modes {values}"
    if labels == ["preset"] and not {"none", "two"} <= values:
        return f"presets {values}"
    return ""


@pytest.mark.parametrize("query", queries(), ids=lambda q: f"{q.dashboard}: {q.panel} {q.legend}")
def test_every_panel_has_data(prometheus: Prometheus, query: Query) -> None:
    expression, problem = filled(query.expression), ""

    def is_well() -> bool:
        nonlocal problem
        found = prometheus.ask(expression)
        problem = "" if not found and query.panel in MAY_BE_EMPTY else wrong_shape(query, found)
        return not problem

    assert eventually(is_well), f"{problem}: {expression}"


def test_there_are_as_many_queries_as_promised() -> None:
    assert len(queries()) >= 60
    assert all(
        panel["description"] for board in boards() for panel in board["panels"] if is_panel(panel)
    )


def boards() -> list[dict[str, Any]]:
    return list(dashboards.dashboards().values())


def is_panel(panel: dict[str, Any]) -> bool:
    return bool(panel["type"] != "row")


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.name)
def test_every_recording_has_data(prometheus: Prometheus, recording: Any) -> None:
    assert eventually(lambda: bool(prometheus.ask(recording.name)))


def test_prometheus_has_what_the_server_counted(prometheus: Prometheus, server: Server) -> None:
    """Counters go in as they are: at some moment both have the same."""
    name = "galton_expert_assignments_total"

    def is_same() -> bool:
        now = server.metric(name)
        return eventually(lambda: prometheus.ask(f"sum({name})")[0][1] >= now, 30)

    assert is_same()
    shares = prometheus.ask("layer_expert:galton_expert_load:ratio_rate5m")
    assert len(shares) == NUM_LAYERS * NUM_EXPERTS
    for layer in range(NUM_LAYERS):
        of_layer = [value for metric, value in shares if metric["layer"] == str(layer)]
        assert sum(of_layer) / NUM_EXPERTS == pytest.approx(1)


def test_metrics_pass_promtool(server: Server, tmp_path: Path) -> None:
    """Galton's own: vLLM's are vLLM's."""
    server.tokens([20], max_tokens=2)
    ours = [
        line
        for line in server.metrics().splitlines(keepends=True)
        if line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith("galton_")
    ]
    for name in NAMES:
        assert any(line.startswith(name.name.removesuffix("_total")) for line in ours), name.name
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input="".join(ours),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_dashboards_files_are_fresh() -> None:
    for file, content in dashboards.dashboards().items():
        assert dashboards.read(file) == content, "run make dashboards"
