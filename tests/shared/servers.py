"""Real servers for tests: `galton serve`, or stock vLLM, and what tests ask of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from loadtests import servers
from tests.shared import warm

REPO = Path(__file__).parents[2]
DEMO = REPO / "models" / "demo" / "checkpoint"
MODEL = "galton-demo"
# Tools for a model that was never taught any: the grammar is the arguments' schema, and leaves no
# room for blanks, with which so small a model would fill its context.
TOOL_FLAGS = (
    "--enable-auto-tool-choice",
    "--tool-call-parser=hermes",
    '--structured-outputs-config={"backend": "xgrammar", "disable_any_whitespace": true}',
)
TOOL_ENVIRONMENT = {"VLLM_ENFORCE_STRICT_TOOL_CALLING": "0"}
# A connection per request. Made once: making a client takes longer than most requests.
HTTP = httpx.Client(timeout=300, limits=httpx.Limits(max_keepalive_connections=0))


class Server(servers.Server):
    """A running server; the methods speak plain HTTP."""

    def post(self, path: str, body: dict[str, Any], **kwargs: Any) -> httpx.Response:
        return HTTP.post(self.url + path, json={"model": MODEL, **body}, **kwargs)

    def complete(self, prompt: list[int], routing: object = None, **body: Any) -> dict[str, Any]:
        """One greedy completion of token ids that runs to `max_tokens`; the parsed answer."""
        body = {"max_tokens": 32, "ignore_eos": True, "return_token_ids": True, **body}
        body = {"temperature": 0, "prompt": prompt, **body}
        if routing is not None:
            body["routing"] = routing
        response = self.post("/v1/completions", body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def tokens(self, prompt: list[int], routing: object = None, **body: Any) -> list[int]:
        """The generated token ids of `complete`."""
        ids: list[int] = self.complete(prompt, routing, **body)["choices"][0]["token_ids"]
        return ids

    @contextmanager
    def engine_held(self) -> Iterator[None]:
        """The engine stands still: requests gather before it, and none is answered."""
        with stopped(self.child("EngineCore")):
            yield

    def load(self, **kwargs: Any) -> int:
        """How many requests are being answered."""
        answering: int = HTTP.get(f"{self.url}/load", **kwargs).json()["server_load"]
        return answering

    @contextmanager
    def crowd(self, asks: Sequence[Callable[[], Any]]) -> Iterator[list[Future[Any]]]:
        """Requests that are all with the server, none answered, until the block ends.

        asks: each sends one request. The futures have results some time after the block.
        """
        assert eventually(lambda: self.load() == 0)
        pool = ThreadPoolExecutor(len(asks))
        with self.engine_held():
            answers = [pool.submit(ask) for ask in asks]
            assert eventually(lambda: self.load() == len(asks))
            yield answers
        pool.shutdown(wait=False)

    def together(
        self, requests: Sequence[tuple[list[int], object]], **body: Any
    ) -> list[list[int]]:
        """`tokens` of all requests, which begin at once: they share the engine's batch."""
        asks = [partial(self.tokens, *request, **body) for request in requests]
        with self.crowd(asks) as answers:
            pass
        return [answer.result() for answer in answers]

    def metrics(self) -> str:
        """The page /metrics."""
        return HTTP.get(self.url + "/metrics").text

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry `labels`."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = self.metrics().splitlines()
        samples = [line.rpartition(" ") for line in lines if line.startswith(name + "{")]
        return sum(float(v) for sample, _, v in samples if all(w in sample for w in wanted))

    def all_samples(self, name: str) -> list[Sample]:
        """Those of a metric."""
        return [
            sample
            for family in text_string_to_metric_families(self.metrics())
            for sample in family.samples
            if sample.name == name
        ]

    def samples(self, name: str) -> dict[tuple[str, str], float]:
        """A metric's samples by the labels `layer` and `expert`."""
        return {(s.labels["layer"], s.labels["expert"]): s.value for s in self.all_samples(name)}

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, name: str) -> psutil.Process:
        """The first of them whose name has that part."""
        return next(child for child in self.children() if name in child.name())


class Stream(threading.Thread):
    """A client that reads a stream of completions; `lines` holds what it has read."""

    def __init__(self, server: Server, **body: Any) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._url = f"{server.url}/v1/completions"
        self._body = {
            "model": MODEL,
            "prompt": [20, 21],
            "ignore_eos": True,
            "stream": True,
            **body,
        }
        self.start()

    def run(self) -> None:
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.stream("POST", self._url, json=self._body, timeout=300) as answer,
        ):
            self.lines += filter(None, answer.iter_lines())

    def end(self) -> list[str]:
        """The lines, all of them."""
        self.join(120)
        assert not self.is_alive()
        return self.lines


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """It stands still during the block."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def eventually(condition: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether it comes true; the time limit is only for what never does."""
    deadline = time.monotonic() + seconds
    while not (is_true := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_true


def stock(*args: str) -> list[str]:
    """The command line of vLLM's own server, serving the demo as `galton serve` does."""
    load = "--enable-server-load-tracking"  # for `Server.crowd`
    return servers.stock(f"--model={DEMO}", f"--served-model-name={MODEL}", load, *args)


@contextmanager
def running(
    command: list[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    popen: Callable[..., servers.Process] = warm.Popen,
    port: int | None = None,
) -> Iterator[Server]:
    """`loadtests.servers.running` in a clean environment and `env`, with vLLM imported already."""
    environment = warm.environment(**(env or {}))
    with servers.running(command, log, environment, popen, port) as started:
        yield Server(started.url, started.log, started.process)
