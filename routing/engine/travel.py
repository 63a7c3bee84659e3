"""What travels with a request from the API process to the workers, in vLLM's `extra_args`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from vllm.sampling_params import SamplingParams

from routing.policy.compiled import CompiledPolicy
from routing.state import RoutedRequest

REQUEST_KEY: Final = "routing"


@dataclass(frozen=True, slots=True)
class RequestRouting:
    """Made by whoever checked the policy: no JSON makes one, so no client can forge it.

    policy: None for the native one. group: whom its tokens count for, see `routing.counts`.
    choice: the number, in the answer, of the first choice that
    it serves; a list of prompts starts one engine request per prompt. include: what to record of
    its tokens; report: the number of the `Report` for that, see `routing.engine.intake`.
    """

    policy: CompiledPolicy | None
    choice: int = 0
    include: tuple[str, ...] = ()
    report: int | None = None
    group: int = 0


def routing_of(params: SamplingParams | None) -> RequestRouting | None:
    """What travels with a request behind the intake; None for a native one."""
    routing: Any = ((params.extra_args if params else None) or {}).get(REQUEST_KEY)
    if routing is None or isinstance(routing, RequestRouting):
        return routing
    # As msgpack brings it: objects have become dictionaries.
    policy = routing["policy"]
    compiled = None if policy is None else CompiledPolicy(**policy)
    return RequestRouting(**{**routing, "policy": compiled})


def request_of(params: SamplingParams | None, num_prompt_tokens: int) -> RoutedRequest:
    """A request as a worker keeps it."""
    routing = routing_of(params)
    if routing is None:
        return RoutedRequest(None, num_prompt_tokens)
    include = tuple(routing.include)
    return RoutedRequest(routing.policy, num_prompt_tokens, include, group=routing.group)
