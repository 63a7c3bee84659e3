"""Hooks in the process that accepts requests: check a policy once, give children seeds.

A request carries its policy as `SamplingParams.extra_args["routing"]`, from whichever
endpoint it came. Past this module it is resolved, valid, and absent for stock routing.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.parallel_sampling import ParentRequest

from routing.engine import REQUEST_KEY, config_of, policy_of, wrap
from routing.policy import Policy, PolicyError, parse_policy
from routing.spec import RouterSpec


def install() -> None:
    """Wrap request intake and parallel sampling. Idempotent."""
    wrap(InputProcessor, "process_inputs", _process_inputs)
    wrap(ParentRequest, "_get_child_sampling_params", _child_sampling_params)


class Checked(dict[str, Any]):
    """A policy as it travels to the workers, checked by whoever made it.

    JSON makes no such object, so no client can pass anything off as checked.
    """


def travelling(policy: Policy, spec: RouterSpec, *, choice: int = 0) -> Checked | None:
    """The form in which a policy travels to the workers; None for stock routing.

    choice: number of the first choice that this policy serves. A list of prompts starts
    one engine request per prompt; see `derive_seed`.
    """
    return None if policy.is_stock(spec) else Checked(policy.as_dict(), choice=choice)


def invalid(error: PolicyError) -> VLLMValidationError:
    """The same error in vLLM's terms, which its HTTP layer answers with a 400."""
    return VLLMValidationError(str(error), parameter=error.field)


def _process_inputs(
    original: Callable[..., Any],
    self: InputProcessor,
    request_id: str,
    prompt: Any,
    params: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    config = config_of(self.vllm_config)
    asked = policy_of(params) if isinstance(params, SamplingParams) else None
    if config is None or asked is None:
        return original(self, request_id, prompt, params, *args, **kwargs)
    policy = asked if isinstance(asked, Checked) else _check(asked, config)
    request = original(self, request_id, prompt, params, *args, **kwargs)
    # A new dictionary: the caller's sampling parameters may serve other requests too.
    extra_args = {k: v for k, v in params.extra_args.items() if k != REQUEST_KEY}
    if policy is not None:
        extra_args[REQUEST_KEY] = dict(policy)
    request.sampling_params.extra_args = extra_args
    return request


def _check(asked: object, config: dict[str, Any]) -> Checked | None:
    """A policy from an endpoint or a caller that has not checked it."""
    spec = RouterSpec.from_dict(config["router_spec"])
    try:
        choice = 0
        if isinstance(asked, dict):
            asked = dict(asked)
            choice = asked.pop("choice", 0)
        if type(choice) is not int or choice < 0:
            raise PolicyError("routing.choice", choice, "an integer from 0")
        allowed = config["allow_request_steering"]
        policy = parse_policy(asked, spec, allow_steering=allowed)
    except PolicyError as error:
        raise invalid(error) from error
    return travelling(policy, spec, choice=choice)


def _child_sampling_params(
    original: Callable[..., SamplingParams], self: ParentRequest, index: int
) -> SamplingParams:
    params = original(self, index)
    policy = policy_of(self.sampling_params)
    if policy is None:
        return params
    # vLLM gives all children one object unless they have token-sampling seeds.
    params = copy(params)
    child = {**policy, "choice": policy["choice"] + index}
    params.extra_args = {**(params.extra_args or {}), REQUEST_KEY: child}
    return params
