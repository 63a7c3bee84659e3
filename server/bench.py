"""Milliseconds that a scrape takes: `python -m server.bench`, for 48 layers of 128 experts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry

from routing.counts import Counts, Groups
from routing.engine.counts import EngineCounts, WorkerCounts
from routing.spec import RouterSpec
from server.exposition import METRICS_PATH, OPENMETRICS, Pages
from server.load import Load
from server.metrics import ExpertLoad
from server.statistics import Marks

SPEC: Final = RouterSpec(tuple(range(48)), num_experts=128, top_k=8, max_top_k=8)
RUNS: Final = 50


def main() -> None:
    """Print a table."""
    size = len(SPEC.layers), SPEC.num_experts
    counts = Counts.on(bytearray(Counts.num_bytes(*size)), *size)
    counts.assignments[:] = 123_456_789
    counts.routed_tokens[0] = 1_000
    load = Load(SPEC, EngineCounts([WorkerCounts(SPEC.layers, counts)]), Groups())
    pages = Pages(ExpertLoad(load, "model", "full"), CollectorRegistry(), kept_seconds=0)
    marks = Marks()
    ways: dict[str, Callable[[], str | bytes]] = {
        "/metrics, text": lambda: pages.read(METRICS_PATH, CONTENT_TYPE_PLAIN_0_0_4)[0],
        "/metrics, OpenMetrics": lambda: pages.read(METRICS_PATH, OPENMETRICS)[0],
        "/v1/routing/stats": lambda: marks.tell(load, None).model_dump_json(),
    }
    print("| page | median ms | slowest | bytes |\n|---|---|---|---|")
    for name, ask in ways.items():
        times = [_milliseconds(ask) for _ in range(RUNS)]
        middle, slowest = statistics.median(times), max(times)
        print(f"| {name} | {middle:.1f} | {slowest:.1f} | {len(ask()):,} |")


def _milliseconds(ask: Callable[[], object]) -> float:
    start = time.perf_counter()
    ask()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
