"""The pages that Prometheus and gateways read, in Prometheus' text format or OpenMetrics.

prometheus-client takes 8 µs for a line, on the thread that sends everybody's tokens. So a page is
kept for a while, however often it is asked for; and the experts' lines, thousands in a large
model, are written here, where only their numbers change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, Final, NamedTuple
from wsgiref.types import StartResponse, WSGIEnvironment

from fastapi import APIRouter, FastAPI, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as TEXT
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.responses import Response

from server.metrics import ExpertLoad, family_of
from server.names import EXPERT_ASSIGNMENTS

METRICS_PATH: Final = "/metrics"
SERVING_PATH: Final = "/metrics/serving"
OPENMETRICS: Final = openmetrics.CONTENT_TYPE_LATEST
_ENCODERS: Final[dict[str, Callable[[Any], bytes]]] = {
    TEXT: generate_latest,
    # By default prometheus-client 0.26 makes vllm:x vllm_x in samples: no panel would find it.
    OPENMETRICS: partial(openmetrics.generate_latest, escaping=openmetrics.ALLOWUTF8),
}
_EOF: Final = b"# EOF\n"  # ends a page in OpenMetrics

api = APIRouter(include_in_schema=False)


class Pages:
    """`METRICS_PATH` has everything; `SERVING_PATH`, for gateways, leaves the experts out.

    kept_seconds: for how long a page is the answer to whoever asks again.
    """

    def __init__(
        self,
        experts: ExpertLoad,
        registry: CollectorRegistry,
        kept_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._experts = experts
        self._lines = _starts_of_lines(experts)
        self._registry = registry
        self._kept_seconds = kept_seconds
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, bytes]] = {}
        self._lock = Lock()  # a port of its own has a thread per connection

    def read(self, path: str, accept: str | None) -> tuple[bytes, str]:
        """A page and its content type. accept: the request's header of that name."""
        content_type = OPENMETRICS if "application/openmetrics-text" in (accept or "") else TEXT
        with self._lock:
            key, now = (path, content_type), self._clock()
            made, page = self._kept.get(key, (-math.inf, b""))
            if now - made >= self._kept_seconds:
                page = self._written(path, _ENCODERS[content_type])
                self._kept[key] = now, page
        return page, content_type

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The application of a port of its own: whatever is no page is the whole one."""
        path = SERVING_PATH if environ["PATH_INFO"] == SERVING_PATH else METRICS_PATH
        page, content_type = self.read(path, environ.get("HTTP_ACCEPT"))
        start_response("200 OK", [("Content-Type", content_type)])
        return [page]

    def _written(self, path: str, encode: Callable[[Any], bytes]) -> bytes:
        families, counts = [*self._registry.collect()], list[int]()
        if path == METRICS_PATH:
            experts, counts = self._experts.read()
            families += experts  # the last one is without samples: their lines end the page
        page = encode(_Collected(families))
        lines = "".join(map("{} {}\n".format, self._lines, counts)).encode()
        return page.removesuffix(_EOF) + lines + (_EOF if page.endswith(_EOF) else b"")


class _Collected(NamedTuple):
    families: list[Metric]

    def collect(self) -> list[Metric]:
        return self.families


def _starts_of_lines(experts: ExpertLoad) -> list[str]:
    """Names and labels of the experts' samples, in the order of their counts."""
    family = family_of(EXPERT_ASSIGNMENTS)
    for labels in experts.labels():
        family.add_metric(labels, 0)
    lines = generate_latest(_Collected([family])).decode().split("\n")
    return [line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")]


@api.get(METRICS_PATH)
async def metrics(request: Request) -> Response:
    """Prometheus' page."""
    return _answer(request, METRICS_PATH)


@api.get(SERVING_PATH)
async def serving(request: Request) -> Response:
    """Gateways' page."""
    return _answer(request, SERVING_PATH)


def _answer(request: Request, path: str) -> Response:
    pages: Pages = request.app.state.galton.pages
    content, content_type = pages.read(path, request.headers.get("accept"))
    return Response(content, media_type=content_type)


def attach_metrics(app: FastAPI, *, has_own_port: bool) -> None:
    """Serve the pages instead of vLLM's. has_own_port: they are served elsewhere."""
    routes = app.router.routes
    routes[:] = [route for route in routes if getattr(route, "path", None) != METRICS_PATH]
    if not has_own_port:
        app.include_router(api)


@contextmanager
def own_port(pages: Pages, host: str, port: int | None) -> Iterator[None]:
    """Serve the pages on a port of their own, where there is one."""
    if port is None:
        yield
        return
    server, thread = start_http_server(port, host)
    server.set_app(pages.wsgi)
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
