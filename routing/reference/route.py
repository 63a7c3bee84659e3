"""The whole way of one token through one layer's router, slow and obvious: the oracle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routing.policy.compiled import CompiledPolicy
from routing.policy.keys import WEIGHTS, Parameters
from routing.reference.choice import Token
from routing.reference.modes import CHOOSE
from routing.reference.noise import gumbel
from routing.reference.rule import (
    Floats,
    Ids,
    RouterRule,
    clamp,
    model_weights,
    open_experts,
    share,
)
from routing.spec import RouterSpec
from routing.trace import Trace


def select_experts(
    router_logits: npt.NDArray[np.floating],
    mode: str,
    parameters: Parameters,
    *,
    rule: RouterRule,
    native_top_k: int,
    seed: int = 0,
    layer: int = 0,
    position: int = 0,
    steering: Floats | None = None,
    weights: str = "model",
    replayed: Ids | None = None,
) -> tuple[Floats, Ids]:
    """Choose and weigh the experts of one token.

    router_logits: [E], clean. parameters: this layer's value of each parameter of the mode.
    layer: decoder layer index; position: absolute, from 0.
    steering: [E] added to the logits of the choice; -inf bans, +inf forces. None for none.
    weights: `model`, the model's own rule on the chosen ones' clean logits; `renormalize`,
        those divided by their sum; `preserve_mass`, those scaled to the sum that the
        model's own choice would have.
    replayed: the experts that a trace holds for the token, for mode `replay`.
    Returns topk_weights and topk_ids, both [k], best first.
    """
    z = clamp(router_logits)
    steer = np.zeros(z.size) if steering is None else steering
    banned, forced = np.isneginf(steer), np.isposinf(steer)
    bias = np.where(np.isfinite(steer), steer, 0.0)
    gate = np.where(open_experts(rule, z, banned), 0.0, -np.inf)
    gate[forced] = np.inf
    noise = gumbel(seed, layer, position, z.size)
    recorded = np.zeros(0, np.int64) if replayed is None else replayed
    token = Token(z + bias, noise, gate, rule, native_top_k, recorded)
    ids = CHOOSE[mode](token, parameters)

    topk_weights = model_weights(rule, z, ids)
    if weights == "renormalize":
        topk_weights = share(topk_weights) * rule.scaling_factor
    if weights == "preserve_mass":
        native_gate = np.where(open_experts(rule, z, np.zeros(z.size, bool)), 0.0, -np.inf)
        native = Token(z, noise, native_gate, rule, native_top_k).best(z, native_top_k)
        topk_weights = share(topk_weights) * model_weights(rule, z, native).sum()
    return topk_weights, ids


def route_token(
    policy: CompiledPolicy,
    spec: RouterSpec,
    rule: RouterRule,
    router_logits: npt.NDArray[np.floating],
    *,
    layer_index: int,
    position: int,
) -> tuple[Floats, Ids]:
    """`select_experts` of a token that follows a request's policy.

    rule: the layer's. layer_index: of the layer among the MoE layers.
    """
    steering = None
    if policy.steering:
        steering = np.frombuffer(policy.steering, np.float32).reshape(-1, spec.num_experts)
    trace = Trace.decode(policy.trace) if policy.trace else None
    return select_experts(
        router_logits,
        policy.mode_row.name,
        policy.parameters_of(layer_index),
        rule=rule,
        native_top_k=spec.top_k,
        seed=policy.seed or 0,
        layer=spec.layers[layer_index],
        position=policy.noise_position(position),
        steering=None if steering is None else steering[layer_index].astype(np.float64),
        weights=WEIGHTS[policy.weights],
        replayed=trace.experts(position, layer_index) if trace else None,
    )
