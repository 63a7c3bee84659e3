"""An engine without a server: batches of requests, each with a policy of its own.

vLLM's `LLM`, started as the server starts its engine: in a process of its own, self-tested
before the first request.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from vllm import LLM, EngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind

from routing.engine.executor import prefer_one_process
from routing.engine.request import Request
from routing.engine.startup import attach
from routing.engine.travel import REQUEST_KEY

STOP_SECONDS: Final = 10.0


class OfflineEngine:
    """A running engine, its routers, `spec`, and what they have counted, `counts`."""

    def __init__(self, engine_args: EngineArgs) -> None:
        """Start it. Raises SelfTestError where the engine does not route as it should.

        engine_args: with `routing.engine.engine_options` in them.
        """
        # Not in this process, nor a fork of it: numba is here already, see `register`.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        os.environ["VLLM_WORKER_MULTIPROCESSING_METHOD"] = "spawn"
        prefer_one_process(engine_args)
        # Ctrl-C is for the caller to handle. A blocked signal stays blocked in children.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.llm = LLM.from_engine_args(engine_args)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        self.spec, self.counts = asyncio.run(attach(AwaitableLLM(self.llm)))
        self.tokenizer: Any = self.llm.get_tokenizer()
        self.max_model_len = int(self.llm.model_config.max_model_len)

    def generate(self, requests: Sequence[Request]) -> list[str]:
        """The text that answers each request, all in one batch."""
        params = [_params(request) for request in requests]
        return [output.outputs[0].text for output in self._run(requests, params)]

    def prompt_logprobs(self, requests: Sequence[Request]) -> list[list[float]]:
        """Of each prompt's tokens but the first, the log-probability after those before it."""
        params = [_params(request, max_tokens=1, prompt_logprobs=0) for request in requests]
        return [
            [
                found[token].logprob
                for token, found in zip(
                    request.prompt_token_ids[1:], (output.prompt_logprobs or [])[1:], strict=True
                )
            ]
            for request, output in zip(requests, self._run(requests, params), strict=True)
        ]

    def stop(self) -> None:
        """End the engine's processes."""
        self.llm.llm_engine.engine_core.shutdown(timeout=STOP_SECONDS)

    def _run(self, requests: Sequence[Request], params: Sequence[SamplingParams]) -> list[Any]:
        prompts = [{"prompt_token_ids": list(request.prompt_token_ids)} for request in requests]
        outputs: list[Any] = self.llm.generate(prompts, params, use_tqdm=False)
        return outputs


def _params(request: Request, **changed: Any) -> SamplingParams:
    return SamplingParams(
        **{
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "output_kind": RequestOutputKind.FINAL_ONLY,
            "extra_args": {REQUEST_KEY: dict(request.routing)} if request.routing else None,
            **changed,
        }
    )


class AwaitableLLM:
    """An `LLM` with the asynchronous methods that `attach` wants of an engine."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.vllm_config = llm.llm_engine.vllm_config

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        answers: list[Any] = self.llm.collective_rpc(method, args=args)
        return answers

    async def generate(self, prompt: Any, params: Any, request_id: str) -> AsyncIterator[Any]:
        for output in self.llm.generate(prompt, params, use_tqdm=False):
            yield output

    async def reset_prefix_cache(self) -> None:
        self.llm.reset_prefix_cache()
