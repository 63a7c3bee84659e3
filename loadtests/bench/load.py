"""The load tool: vLLM's own benchmark client, `vllm.benchmarks.serve`, in a process of its own.

It sends each request its own body, which guidellm does not, needs no package that vLLM does not
need, and tells the client's own queue apart. AIPerf sends bodies per row too, with 139 packages of
its own. The process is kept: importing vLLM takes ten seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from loadtests.bench.scenario import Load
from loadtests.client import CHAT
from loadtests.processes import SPAWN, beside


class LoadError(Exception):
    """A request that was refused, or that did not reach its end."""


@dataclass(frozen=True)
class Body:
    """A request's: messages, length of the answer, and what else is in it."""

    messages: list[dict[str, str]]
    output_tokens: int
    more: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What to send where, and how it arrives."""

    url: str
    model: str
    bodies: Sequence[Body]
    load: Load
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Of N answers, in seconds; ttft from the moment at which the request was due (open loop) or
    was sent (closed loop). itl: between the chunks of all answers.
    """

    duration: float
    tokens: int
    prompt_tokens: int
    ttft: list[float]
    itl: list[float]
    per_token: list[float]


class LoadTool:
    """Runs jobs, one after the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, job: Job) -> Outcome:
        """Send it all and wait. Raises LoadError where an answer is missing."""
        self._connection.send(job)
        try:
            outcome: Outcome | str = self._connection.recv()
        except EOFError:
            raise LoadError("the load tool's process died") from None
        if isinstance(outcome, str):
            raise LoadError(outcome)
        return outcome


@contextmanager
def load_tool() -> Iterator[LoadTool]:
    """Its process, started."""
    ours, theirs = SPAWN.Pipe()
    with beside(_work, theirs):
        theirs.close()  # so that its death is noticed
        yield LoadTool(ours)


def _work(connection: Connection) -> None:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        while True:
            try:
                job = connection.recv()
            except (EOFError, KeyboardInterrupt):
                return
            connection.send(_run(job))


def _run(job: Job) -> Outcome | str:
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.serve import TaskType, benchmark

    np.random.seed(job.seed)  # the arrivals'
    requests = [
        SampleRequest(
            prompt="",
            prompt_len=0,
            expected_output_len=body.output_tokens,
            chat_messages=body.messages,
            # Older servers know the older name only.
            request_overrides={"max_tokens": body.output_tokens, **body.more},
        )
        for body in job.bodies
    ]
    found = asyncio.run(
        benchmark(
            task_type=TaskType.GENERATION,
            endpoint_type="openai-chat",
            api_url=job.url + CHAT,
            base_url=job.url,
            model_id=job.model,
            model_name=job.model,
            tokenizer=None,
            input_requests=requests,
            logprobs=None,
            request_rate=job.load.requests_per_second or float("inf"),
            burstiness=job.load.burstiness,
            disable_tqdm=True,
            num_warmups=0,  # they would repeat the first request
            ready_check_timeout_sec=0,  # so would this
            profile=False,
            selected_percentile_metrics=[],
            selected_percentiles=[],
            ignore_eos=False,  # said by those whose server knows it
            goodput_config_dict={},
            max_concurrency=job.load.in_flight,
            lora_modules=None,
            extra_headers={"Connection": "close"},  # some servers close kept ones as they like
            extra_body={"temperature": 0},
        )
    )
    if errors := [error for error in found["errors"] if error]:
        return f"{len(errors)} of {len(requests)} requests failed, the first: {errors[0][-300:]}"
    lengths = [
        # 1 stands also for a server that does not say; all are asked to ignore an end.
        told if told > 1 else body.output_tokens
        for told, body in zip(found["output_lens"], job.bodies, strict=True)
    ]
    is_open = job.load.requests_per_second is not None
    waits = found["queue_times"] if is_open else [0.0] * len(requests)
    return Outcome(
        duration=found["duration"],
        tokens=sum(lengths),
        prompt_tokens=found["total_input_tokens"],
        ttft=[wait + ttft for wait, ttft in zip(waits, found["ttfts"], strict=True)],
        # The first chunk of a chat has the role, and comes with the first token.
        itl=[gap for gaps in found["itls"] for gap in gaps[1:]],
        per_token=[
            (latency - ttft) / max(tokens - 1, 1)
            for latency, ttft, tokens in zip(
                found["latencies"], found["ttfts"], lengths, strict=True
            )
        ],
    )
