"""What is measured: the experts' load, read from the workers' memory, and requests."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from routing.counts import PHASES, imbalance, load_entropy
from routing.engine.counts import Totals
from server import sse
from server.load import Load
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
    Name,
)
from server.settings import automatic_level

logger = logging.getLogger("vllm.galton")

SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)


class ExpertLoad:
    """The experts' load, as the engine has counted it when it is asked.

    expert_metrics: see `Settings`.
    """

    def __init__(self, load: Load, model_name: str, expert_metrics: str) -> None:
        num_series = len(load.spec.layers) * load.spec.num_experts
        if expert_metrics == "auto":
            expert_metrics = automatic_level(num_series)
            if expert_metrics == "layer":
                logger.info("%d expert series: exporting sums per layer", num_series)
        self._load = load
        self._model_name = model_name
        self._expert_metrics = expert_metrics

    def read(self) -> tuple[list[Metric], list[int]]:
        """Families, and the assignments, in the order of `labels`: thousands in a large model, they
        are not in the family of theirs, which is the last one.
        """
        totals = self._load.totals()
        recent = self._load.lately(totals)
        families = [*self._policies(totals), self._routers(), self._last_step(totals)]
        if self._expert_metrics == "off":
            return families, []
        families += [*self._layers(totals, recent), family_of(EXPERT_ASSIGNMENTS)]
        counts = totals.assignments
        if self._expert_metrics == "layer":
            counts = counts.sum(1)
        return families, counts.ravel().tolist()

    def labels(self) -> list[tuple[str, ...]]:
        """Of each count of assignments that `read` returns."""
        spec, level = self._load.spec, self._expert_metrics
        experts = {"full": [*map(str, range(spec.num_experts))], "layer": ["all"], "off": []}[level]
        return [(self._model_name, str(i), expert) for i in spec.layers for expert in experts]

    def _layers(self, totals: Totals, recent: Totals) -> Iterator[Metric]:
        summaries = (
            (ACTIVE_EXPERTS, totals.steps, totals.active_experts),
            (ROUTER_ENTROPY, totals.tokens, totals.router_entropy),
        )
        for name, counts, sums in summaries:
            family = family_of(name)
            for layer, count, total in zip(totals.layers, counts, sums, strict=True):
                family.add_metric((self._model_name, str(layer)), int(count), float(total))
            yield family
        gauges = (
            (LAYER_IMBALANCE, imbalance(recent.assignments)),
            (LAYER_LOAD_ENTROPY, load_entropy(recent.assignments)),
        )
        for name, values in gauges:
            family = family_of(name)
            for layer, value in zip(totals.layers, values.tolist(), strict=True):
                if not math.isnan(value):  # a layer without load has neither
                    family.add_metric((self._model_name, str(layer)), value)
            yield family

    def _policies(self, totals: Totals) -> Iterator[Metric]:
        tokens, computed, native = map(
            family_of, (ROUTED_TOKENS, POLICY_ASSIGNMENTS, NATIVE_ASSIGNMENTS)
        )
        for group, pair in enumerate(self._load.groups.pairs()):
            labels, routed = (self._model_name, *pair), totals.routed_tokens[group]
            for phase, count in zip(PHASES, routed.tolist(), strict=True):
                tokens.add_metric((*labels, phase), count)
            computed.add_metric(labels, int(totals.group_assignments[group]))
            native.add_metric(labels, self._load.native_assignments(int(routed.sum())))
        yield from (tokens, computed, native)

    def _last_step(self, totals: Totals) -> Metric:
        family = family_of(LAST_STEP)
        family.add_metric((self._model_name,), totals.last_step)
        return family

    def _routers(self) -> Metric:
        spec, family = self._load.spec, family_of(ROUTERS)
        sizes = (len(spec.layers), spec.num_experts, spec.top_k, spec.max_top_k)
        family.add_metric((self._model_name, *map(str, sizes)), 1)
        return family


_FAMILIES: Final = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "summary": SummaryMetricFamily,
}


def family_of(name: Name) -> Any:
    """A family without samples yet."""
    return _FAMILIES[name.type](name.name, name.meaning, labels=name.labels)


class RequestCounter:
    """Requests with a valid policy, each once, when it ends, and how long the good ones took."""

    def __init__(self, model_name: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._model_name = model_name
        self._counter = Counter(*_parts(REQUESTS), registry=registry)
        self._seconds = Histogram(*_parts(REQUEST_SECONDS), registry=registry, buckets=SECONDS)

    def begin(self, mode: str, preset: str | None) -> Callable[[str], None]:
        """To be called with the request's outcome: `ok`; `refused`, by a 4xx; `error`; `abort`, by
        the client, who left.
        """
        labels, began = (self._model_name, mode, preset or ""), time.monotonic()

        def end(outcome: str) -> None:
            self._counter.labels(*labels, outcome).inc()
            if outcome == "ok":
                self._seconds.labels(*labels).observe(time.monotonic() - began)

        return end


def _parts(name: Name) -> tuple[str, str, tuple[str, ...]]:
    return name.name, name.meaning, name.labels


def outcome_of(status: int) -> str:
    """What an answer with that HTTP status means for its request."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():  # vLLM answers 400 then, to nobody
        return "abort"
    if status < 400:
        return "ok"
    return "refused" if status < 500 else "error"


class CountedStream(StreamingResponse):
    """Server-sent events; `count` gets the outcome once they have ended.

    What ends in an error does not claim to be done.
    """

    def __init__(
        self, events: AsyncIterator[str], count: Callable[[str], None], headers: dict[str, str]
    ) -> None:
        self._count = count
        self._outcome = "abort"
        super().__init__(self._watch(events), media_type=sse.MEDIA_TYPE, headers=headers)

    async def _watch(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        outcome = "ok"
        try:
            async for event in events:
                if sse.is_error(event):
                    outcome = "error"
                elif outcome == "error" and event == sse.DONE:
                    continue  # vLLM sends it all the same
                yield event
        except Exception:
            self._outcome = "error"
            raise
        self._outcome = outcome

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; also a client that left before the first one is counted."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._count(self._outcome)
