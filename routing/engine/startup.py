"""After an engine has started: learn its routers, and see that requests are routed as they ask.

vLLM swallows errors of plugins, and some kernels never ask their router. A policy that
silently does nothing would be the worst of bugs, so no server starts before this passes.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vllm.sampling_params import RequestOutputKind, SamplingParams

from routing.engine import intake
from routing.engine.config import config_of
from routing.engine.counts import EngineCounts
from routing.engine.travel import REQUEST_KEY
from routing.spec import RouterSpec
from routing.trace import UNKNOWN_MODEL

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.engine.protocol import EngineClient


class SelfTestError(RuntimeError):
    """The engine runs, but does not route as it should."""


Prompt = list[int]
_SHORT: Final[Prompt] = [1, 2]


class Attached(NamedTuple):
    """The routers of a running engine, and what it has counted."""

    spec: RouterSpec
    counts: EngineCounts


async def attach(client: EngineClient, fingerprint: str = UNKNOWN_MODEL) -> Attached:
    """Learn the routers of a running engine and self-test them.

    fingerprint: the model's, see `routing.trace`; no worker need know it.
    Raises SelfTestError where the engine does not route as it should.
    """
    described = await client.collective_rpc("galton_describe")
    spec = _learn(client.vllm_config, described, fingerprint)
    try:
        counts = EngineCounts.of(described)
    except OSError as error:
        raise SelfTestError(f"the workers' counts cannot be read: {error}") from None
    if (processor := getattr(client, "input_processor", None)) is not None:
        intake.renew(processor)
    for prompts in _self_test_batches(client.vllm_config):
        await _self_test(client, spec, prompts)
    return Attached(spec, counts)


def _self_test_batches(vllm_config: VllmConfig) -> list[list[Prompt]]:
    """Where CUDA graphs are captured: one prompt that is replayed, one too long for that, and three
    whose tokens are fewer than those of the graph that is replayed for them.
    """
    longest_captured = vllm_config.compilation_config.max_cudagraph_capture_size or 0
    if not longest_captured:
        return [[_SHORT]]
    too_long = min(longest_captured + 1, vllm_config.model_config.max_model_len - 2)
    return [[_SHORT], [[1] * too_long], [_SHORT, _SHORT[:1], _SHORT]]


async def _self_test(client: EngineClient, spec: RouterSpec, prompts: list[Prompt]) -> None:
    """Raises SelfTestError."""
    policy = _self_test_policy(spec)

    async def answer(number: int, prompt: Prompt) -> None:
        request = {"prompt_token_ids": prompt}, _self_test_params(policy), f"galton-test-{number}"
        async for _ in client.generate(*request):
            pass

    await client.collective_rpc("galton_listen")
    await asyncio.gather(*(answer(*numbered) for numbered in enumerate(prompts)))
    _judge(await client.collective_rpc("galton_check", args=(policy, len(prompts))))
    await client.reset_prefix_cache()


def _learn(
    vllm_config: VllmConfig, described: list[dict[str, Any]], fingerprint: str
) -> RouterSpec:
    for worker in described:
        if "problem" in worker:
            raise SelfTestError(worker["problem"])
    try:
        spec = RouterSpec.union([RouterSpec.from_dict(worker["spec"]) for worker in described])
    except ValueError as error:
        raise SelfTestError(str(error)) from None
    config = config_of(vllm_config)
    assert config is not None, "the engine was not started with engine_options()"
    # For `routing.engine.intake`, in this process: workers have their own copy.
    config["router_spec"] = spec = replace(spec, fingerprint=fingerprint)
    intake.install()
    return spec


def _self_test_policy(spec: RouterSpec) -> dict[str, Any]:
    return {
        "mode": "sample",
        "top_k": spec.top_k,
        "temperature": 1.0,
        "seed": 2**63 - 25,
        "scope": "all",
    }


def _self_test_params(policy: dict[str, Any]) -> SamplingParams:
    return SamplingParams(
        max_tokens=2,
        ignore_eos=True,
        temperature=0.0,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={REQUEST_KEY: policy},
    )


def _judge(problems: list[list[str]]) -> None:
    found = [line for worker in problems for line in worker]
    if found:
        shown = "; ".join(found[:3])
        raise SelfTestError(f"routing self-test failed ({len(found)} problems): {shown}")
