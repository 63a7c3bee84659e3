"""The worker's side of the self-test: what the layers did, held against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from routing.backend import Backend, Observed, Recorded, on_host
from routing.policy.compiled import CompiledPolicy
from routing.reference.route import route_token, select_experts
from routing.reference.rule import RouterRule
from routing.state import RoutedRequest, StepState
from routing.trace import Trace


class Observation(NamedTuple):
    """What the layers did with the first of a step's num_tokens tokens. requests: by slot."""

    given: Observed
    chosen: Recorded
    num_tokens: int
    requests: list[RoutedRequest | None]

    @classmethod
    def of(cls, backend: Backend, num_tokens: int) -> Observation:
        """Of the step of so many tokens that the backend is in."""
        given = backend.observed(num_tokens)
        chosen = backend.recorded(np.arange(len(given.router_logits)))
        requests = backend.state.slot_request.copy()
        return cls(given, Recorded(*map(on_host, chosen)), num_tokens, requests)

    def policy_of(self, token: int) -> CompiledPolicy | None:
        """The one that a token followed."""
        slot = self.chosen.slot[token]
        request = self.requests[slot] if slot >= 0 else None
        return request.policy if request is not None else None


def disagreements(
    observations: Sequence[Observation],
    state: StepState,
    layer_indices: Sequence[int],
    policy: CompiledPolicy | None,
    num_requests: int | None,
) -> list[str]:
    """One line per token that a layer did not route as it should.

    layer_indices: of the layers that were asked. policy, num_requests: see
    `RoutingWorker.galton_check`.
    """
    problems = _position_problems(observations) if num_requests == 1 else []
    trace = Trace.decode(policy.trace) if policy is not None and policy.trace else None
    for seen in observations:
        for token, position in enumerate(seen.chosen.position.tolist()):
            followed = seen.policy_of(token)
            # Where a trace does not hold a token, the model's own router chooses.
            expected = None if trace and not trace.experts(position, 0).size else policy
            if policy is not None and followed != expected:
                problems.append(f"position {position} followed {followed}, not {expected}")
            elif followed is not None:
                problems += [
                    f"layer {state.spec.layers[layer_index]}, position {position}: {problem}"
                    for layer_index in layer_indices
                    if (problem := _problem(seen, token, layer_index, state, followed))
                ]
    return problems


def _position_problems(observations: Sequence[Observation]) -> list[str]:
    """Of one request's tokens: they stand where as many have come before."""
    problems, num_before = [], 0
    for seen in observations:
        found = seen.chosen.position.tolist()
        if found != [*range(num_before, num_before + len(found))]:
            problems.append(f"{len(found)} tokens after {num_before} were routed at {found}")
        num_before += seen.num_tokens
    return problems


def _problem(
    seen: Observation, token: int, layer_index: int, state: StepState, policy: CompiledPolicy
) -> str | None:
    return _choice_problem(seen, token, layer_index, state, policy) or _native_problem(
        seen, token, layer_index, state.rules[layer_index]
    )


def _choice_problem(
    seen: Observation, token: int, layer_index: int, state: StepState, policy: CompiledPolicy
) -> str | None:
    """How a token's experts and weights differ from the reference's; None if they agree."""
    weights, ids = route_token(
        policy,
        state.spec,
        state.rules[layer_index],
        seen.given.router_logits[token, layer_index],
        layer_index=layer_index,
        position=int(seen.chosen.position[token]),
    )
    found = seen.chosen.topk_ids[token, layer_index]
    unused = state.spec.max_top_k - ids.size
    if found.tolist() != [*ids.tolist(), *[-1] * unused]:
        return f"{found.tolist()}, not {ids.tolist()}"
    expected = np.pad(weights, (0, unused))
    if not np.allclose(seen.chosen.topk_weights[token, layer_index], expected, rtol=1e-5):
        return "wrong weights"
    return None


def _native_problem(
    seen: Observation, token: int, layer_index: int, rule: RouterRule
) -> str | None:
    """How vLLM's router differs from the rule that was read from it; None if they agree."""
    native = seen.given.native_ids[token, layer_index].tolist()
    logits = seen.given.router_logits[token, layer_index].copy()
    logits[native] += 2**-7  # of experts equal in bfloat16, as scores are, vLLM may choose any
    top_k = len(native)
    weights, ids = select_experts(logits, "top_k", {"top_k": top_k}, rule=rule, native_top_k=top_k)
    if set(native) != set(ids.tolist()):
        return f"vLLM's router chose {native}, its rule {ids.tolist()}"
    # vLLM takes the softmax in the logits' bfloat16: each number on the way, the greatest
    # of them ln(sum(e^z)), is rounded to 8 bits. So is Phi-MoE's decision which experts
    # nearly tie, and a weight may then be any.
    tolerance = 2**-7 * (1 + np.abs(logits).max() + np.log(logits.size))
    own_weights = seen.given.native_weights[token, layer_index].tolist()
    by_expert = dict(zip(native, own_weights, strict=True))
    native_weights = [by_expert[expert] for expert in ids.tolist()]
    if rule.scoring != "sparsemixer" and not np.allclose(native_weights, weights, rtol=tolerance):
        return f"vLLM's router weighs {native_weights}, its rule {weights.tolist()}"
    return None
