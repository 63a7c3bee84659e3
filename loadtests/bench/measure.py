"""One run: a job sent to a server, and what the server and its experts did meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests.bench.load import Body, Job, LoadTool
from loadtests.bench.scenario import Load, Scenario, Variant
from loadtests.bench.texts import Question, questions
from loadtests.client import ask
from loadtests.scraper import scraper
from loadtests.servers import Server

PERCENTILES: Final = (50, 95, 99)


@dataclass(frozen=True)
class Experts:
    """What Galton counted, means over the layers: the busiest expert's load over the mean;
    distinct experts in a step; assignments of a token; tokens of the prefix cache are not in it.
    """

    imbalance: float
    active: float
    per_token: float


@dataclass(frozen=True)
class Run:
    """Of one job. Times in milliseconds, at PERCENTILES where there are several.

    goodput: answers a second that met the scenario's goal. cached: share of the prompts' tokens
    that the prefix cache had. cpu_ms_per_token: of all the server's processes, per generated token.
    """

    tokens_per_second: float
    requests_per_second: float
    goodput: float
    ttft_ms: list[float]
    itl_ms: list[float]
    per_token_ms: list[float]
    cpu_ms_per_token: float
    memory_mib: float
    cached: float
    experts: Experts | None = None


def measure(
    tool: LoadTool, server: Server, scenario: Scenario, variant: Variant, load: Load, key: str
) -> Run:
    """One run of a variant. key: makes its texts its own. Raises LoadError, RequestError."""
    asked = questions(scenario, load, key, variant.name)
    model = variant.body.get("model") or _model(server.url)
    sent = bodies(server.url, model, variant, asked, key)
    job = Job(server.url, model, sent, load, seed=random.Random(key).randrange(2**32))
    before = _Server.now(server, variant)
    with _scraped(server.url, variant.scrape_seconds):
        outcome = tool.run(job)
    after = _Server.now(server, variant)
    good = sum(
        ttft * 1000 <= scenario.goal.ttft_ms and token * 1000 <= scenario.goal.per_token_ms
        for ttft, token in zip(outcome.ttft, outcome.per_token, strict=True)
    )
    return Run(
        tokens_per_second=outcome.tokens / outcome.duration,
        requests_per_second=len(sent) / outcome.duration,
        goodput=good / outcome.duration,
        ttft_ms=_percentiles(outcome.ttft),
        itl_ms=_percentiles(outcome.itl),
        per_token_ms=_percentiles(outcome.per_token),
        cpu_ms_per_token=(after.cpu_seconds - before.cpu_seconds) * 1000 / outcome.tokens,
        memory_mib=after.memory_mib,
        cached=(after.cached - before.cached) / max(outcome.prompt_tokens, 1),
        experts=_experts(server.url, before.mark) if before.mark else None,
    )


def _model(url: str) -> str:
    """The first that a server has."""
    name: str = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
    return name


def _percentiles(seconds: Sequence[float]) -> list[float]:
    return [float(p) * 1000 for p in np.percentile(seconds or [0.0], PERCENTILES)]


def bodies(
    url: str, model: str, variant: Variant, asked: Sequence[Question], key: str
) -> list[Body]:
    """Every request draws its policy by weight; `replay` gets the trace of its own answer."""
    rng = random.Random(f"policies {key}")
    shares = rng.choices(variant.policies, [p.share for p in variant.policies], k=len(asked))
    policies: list[dict[str, Any]] = [dict(share.routing) for share in shares]
    to_record = [
        i for i, p in enumerate(policies) if p.get("mode") == "replay" and "trace" not in p
    ]
    recorded = [{"model": model, **_recorded(asked[i])} for i in to_record]
    answers = ask(url, recorded, progress="recording") if recorded else []
    for i, answer in zip(to_record, answers, strict=True):
        assert answer.routing is not None
        policies[i]["trace"] = answer.routing["trace"][0]["data"]
    more = [
        variant.body
        | ({"routing": policy} if policy else {})
        | ({"model": f"{model}-{share.preset}"} if share.preset else {})
        for policy, share in zip(policies, shares, strict=True)
    ]
    return [Body(q.messages, q.output_tokens, m) for q, m in zip(asked, more, strict=True)]


def _recorded(question: Question) -> dict[str, Any]:
    return {
        "messages": question.messages,
        "max_completion_tokens": question.output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "cache_salt": "recording",  # the replay finds no cached prompt
        "routing": {"mode": "sample", "include": ["trace"]},
    }


@contextmanager
def _scraped(url: str, every_seconds: float | None) -> Iterator[None]:
    if every_seconds is None:
        yield
        return
    with scraper(url, "/metrics", 1 / every_seconds) as is_wanted:
        is_wanted.set()
        yield


@dataclass(frozen=True)
class _Server:
    """At one moment. mark: of Galton's statistics."""

    cpu_seconds: float
    memory_mib: float
    cached: float
    mark: str

    @classmethod
    def now(cls, server: Server, variant: Variant) -> _Server:
        parent = psutil.Process(server.process.pid)
        cpu = memory = 0.0
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu += times.user + times.system
                memory += process.memory_full_info().pss / 2**20
        page = httpx.get(f"{server.url}/metrics")
        found = text_string_to_metric_families(page.text) if page.is_success else ()
        cached = sum(
            sample.value
            for family in found
            for sample in family.samples
            if sample.name == "vllm:prefix_cache_hits_total"
        )
        is_galton = variant.server == "galton"
        mark = httpx.get(f"{server.url}/v1/routing/stats").json()["mark"] if is_galton else ""
        return cls(cpu, memory, cached, mark)


def _experts(url: str, mark: str) -> Experts:
    found = httpx.get(f"{url}/v1/routing/stats", params={"since": mark}).json()
    layers = found["layers"]
    tokens = sum(sum(policy["tokens"].values()) for policy in found["policies"])
    assignments = sum(policy["assignments"] for policy in found["policies"])
    return Experts(
        imbalance=float(np.mean([layer["imbalance_ratio"] for layer in layers])),
        active=float(np.mean([layer["active_experts"] for layer in layers])),
        per_token=assignments / len(layers) / tokens,
    )
