"""What Prometheus gets: the experts' load, read from the workers' memory, and requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Final, NamedTuple

from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry, Counter, make_asgi_app
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import StreamingResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from routing.engine.counts import EngineCounts
from routing.spec import RouterSpec
from server import sse
from server.settings import automatic_level

logger = logging.getLogger("vllm.galton")

METRICS_PATH: Final = "/metrics"
SERVING_PATH: Final = "/metrics/serving"


class Name(NamedTuple):
    """A metric as queries name it."""

    name: str
    meaning: str
    labels: tuple[str, ...]


EXPERT_ASSIGNMENTS: Final = Name(
    "galton_expert_assignments_total",
    "(token, expert) assignments computed; padding and zero-weight slots excluded",
    ("model_name", "layer", "expert"),
)
ROUTED_TOKENS: Final = Name(
    "galton_routed_tokens_total",
    "Tokens routed, once per token, by the mode that routed them",
    ("model_name", "mode", "phase"),
)
REQUESTS: Final = Name(
    "galton_requests_total",
    "Requests by the policy that they followed and by their end",
    ("model_name", "mode", "preset", "outcome"),
)
NAMES: Final = (EXPERT_ASSIGNMENTS, ROUTED_TOKENS, REQUESTS)

# Whether the page that is being written leaves the experts' series out: there may be thousands.
_without_experts: ContextVar[bool] = ContextVar("without_experts", default=False)


class ExpertLoad(Collector):
    """Counters of (token, expert) assignments and of routed tokens, as the engine has counted
    them when it is asked.

    expert_metrics: see `Settings`. min_tokens: once so many more were routed; what changes from
    one scrape to the next is never fewer tokens' experts.
    """

    def __init__(
        self,
        spec: RouterSpec,
        counts: EngineCounts,
        model_name: str,
        expert_metrics: str,
        min_tokens: int = 0,
    ) -> None:
        num_series = len(spec.layers) * spec.num_experts
        if expert_metrics == "auto":
            expert_metrics = automatic_level(num_series)
            if expert_metrics == "layer":
                logger.info("%d expert series: exporting sums per layer", num_series)
        self._counts = counts
        self._model_name = model_name
        self._expert_metrics = expert_metrics
        self._min_tokens = min_tokens
        self._assignments, self._tokens = counts.assignments(), counts.routed_tokens()

    def _refresh(self) -> None:
        tokens = self._counts.routed_tokens()
        if sum(tokens.values()) - sum(self._tokens.values()) >= self._min_tokens:
            self._assignments, self._tokens = self._counts.assignments(), tokens

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus-client at every exposition."""
        if _without_experts.get():
            return
        self._refresh()
        assignments = _family(EXPERT_ASSIGNMENTS)
        if self._expert_metrics != "off":
            for layer, row in sorted(self._assignments.items()):
                if self._expert_metrics == "full":
                    for expert, count in enumerate(row.tolist()):
                        assignments.add_metric((self._model_name, str(layer), str(expert)), count)
                else:
                    assignments.add_metric((self._model_name, str(layer), "all"), int(row.sum()))
        yield assignments

        tokens = _family(ROUTED_TOKENS)
        for (mode, phase), count in self._tokens.items():
            tokens.add_metric((self._model_name, mode, phase), count)
        yield tokens


def _family(name: Name) -> CounterMetricFamily:
    return CounterMetricFamily(name.name, name.meaning, labels=name.labels)


class Serving(Collector):
    """All that is registered but the experts' counts: for gateways, which scrape many times a
    second and read a handful of gauges.
    """

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus-client at every exposition."""
        token = _without_experts.set(True)
        try:
            return iter([*REGISTRY.collect()])
        finally:
            _without_experts.reset(token)


def attach_metrics(app: FastAPI, *, has_own_port: bool) -> None:
    """Serve `SERVING_PATH`; has_own_port: nothing of vLLM's /metrics is served here."""
    routes = app.router.routes
    if has_own_port:
        routes[:] = [r for r in routes if getattr(r, "path", None) != METRICS_PATH]
        return
    registry = CollectorRegistry()
    registry.register(Serving())
    # In front of vLLM's, which takes all that begins with /metrics.
    routes.insert(0, Mount(SERVING_PATH, make_asgi_app(registry=registry)))


class RequestCounter:
    """`galton_requests_total`: requests with a valid policy, each once, when it ends.

    outcome: `ok`; `refused`, by a 4xx; `error`; `abort`, left by the client.
    """

    def __init__(self, model_name: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._model_name = model_name
        self._counter = Counter(*REQUESTS, registry=registry)

    def add(self, mode: str, preset: str | None, outcome: str) -> None:
        self._counter.labels(self._model_name, mode, preset or "", outcome).inc()


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
