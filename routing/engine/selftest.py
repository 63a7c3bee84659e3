"""The worker's side of the self-test: what the layers did, held against the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from routing.engine.operator import Observation
from routing.policy.compiled import CompiledPolicy
from routing.reference.route import route_token, select_experts
from routing.reference.rule import RouterRule
from routing.state import StepState


def disagreements(
    observations: Sequence[Observation], state: StepState, policy: CompiledPolicy | None
) -> list[str]:
    """One line per layer that was not asked, and per token that it did not route as it should.

    policy: the one that every token must have followed; None to hold each token to its own
    request's, if it follows one.
    """
    layers = state.spec.layers
    silent = set(range(len(layers))) - {seen.layer_index for seen in observations}
    problems = [f"layer {layers[index]} never asked its router" for index in sorted(silent)]
    for seen in observations:
        for token, position in enumerate(seen.token_position.tolist()):
            if problem := _token_problem(seen, token, state, policy):
                layer = layers[seen.layer_index]
                problems.append(f"layer {layer}, position {position}: {problem}")
    return problems


def _token_problem(
    seen: Observation, token: int, state: StepState, expected: CompiledPolicy | None
) -> str | None:
    slot = seen.token_slot[token]
    policy = seen.requests[slot].policy if slot >= 0 else None
    if expected is not None and policy != expected:
        return f"followed {policy}, not {expected}"
    if policy is None:
        return None
    rule = state.rules[seen.layer_index]
    return _choice_problem(seen, token, state, policy) or _native_problem(seen, token, rule)


def _choice_problem(
    seen: Observation, token: int, state: StepState, policy: CompiledPolicy
) -> str | None:
    """How a token's experts and weights differ from the reference's; None if they agree."""
    weights, ids = route_token(
        policy,
        state.spec,
        state.rules[seen.layer_index],
        seen.router_logits[token],
        layer_index=seen.layer_index,
        position=int(seen.token_position[token]),
    )
    chosen = seen.topk_ids[token, : ids.size].tolist()
    if chosen != ids.tolist():
        return f"{chosen}, not {ids.tolist()}"
    unused = np.zeros(state.spec.max_top_k - ids.size)
    if not np.allclose(seen.topk_weights[token], [*weights, *unused], rtol=1e-5):
        return "wrong weights"
    return None


def _native_problem(seen: Observation, token: int, rule: RouterRule) -> str | None:
    """How vLLM's router differs from the rule that was read from it; None if they agree."""
    native = seen.native_ids[token].tolist()
    logits = seen.router_logits[token].copy()
    logits[native] += 1e-3  # of equal experts vLLM may choose any
    top_k = len(native)
    weights, ids = select_experts(logits, "top_k", {"top_k": top_k}, rule=rule, native_top_k=top_k)
    if set(native) != set(ids.tolist()):
        return f"vLLM's router chose {native}, its rule {ids.tolist()}"
    # vLLM takes the softmax in the logits' bfloat16: each number on the way, the greatest
    # of them ln(sum(e^z)), is rounded to 8 bits. So is Phi-MoE's decision which experts
    # nearly tie, and a weight may then be any.
    tolerance = 2**-7 * (1 + np.abs(logits).max() + np.log(logits.size))
    by_expert = dict(zip(native, seen.native_weights[token].tolist(), strict=True))
    native_weights = [by_expert[expert] for expert in ids.tolist()]
    if rule.scoring != "sparsemixer" and not np.allclose(native_weights, weights, rtol=tolerance):
        return f"vLLM's router weighs {native_weights}, its rule {weights.tolist()}"
    return None
