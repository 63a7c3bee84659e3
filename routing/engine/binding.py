"""Every MoE layer gets a router that asks vLLM's own first, and then the request's policy.

The native part stays ordinary traced torch code, so that tokens without a policy keep
vLLM's own bits, compiled or eager; ours is the backend's, in a compiled graph through the operator
of `routing.engine.operator`. Where every token of a step follows a policy, and none is compared
with it, the native part is left out.
"""

from __future__ import annotations

import torch
from vllm.model_executor.layers.fused_moe.config import RoutingMethodType
from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter
from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
from vllm.platforms import current_platform

from routing.backend import load_backend
from routing.counts import Counts
from routing.engine import experts, operator, shared_memory
from routing.engine.operator import BoundModel
from routing.engine.routers import not_controllable, rule_of
from routing.spec import RouterSpec


class RoutingBindError(RuntimeError):
    """The model has a router that Galton cannot control."""


class PolicyRouter(BaseRouter):
    """Stands in a layer where vLLM's router stood, and asks it first where that is wanted."""

    def __init__(self, native: BaseRouter, layer_index: int, bound: BoundModel) -> None:
        super().__init__(native.top_k, native.global_num_experts, native.eplb_state)
        self.native = native
        self.layer_index = layer_index
        self.bound = bound
        self.max_top_k = bound.backend.state.spec.max_top_k

    @property
    def routing_method_type(self) -> RoutingMethodType:
        return self.native.routing_method_type

    def _compute_routing(
        self,
        hidden_states: torch.Tensor,
        router_logits: torch.Tensor,
        indices_type: torch.dtype | None,
        *,
        input_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # A compiled graph serves every step.
        is_static, num_tokens = torch.compiler.is_compiling(), router_logits.shape[0]
        backend, layer_index = self.bound.backend, self.layer_index
        num_columns = self.max_top_k if is_static else self.bound.num_columns
        if is_static or backend.needs_native(num_tokens):
            native_weights, native_ids = self.native._compute_routing(
                hidden_states, router_logits, torch.int32, input_ids=input_ids
            )
        else:
            shape = (num_tokens, self.top_k)
            native_weights = router_logits.new_empty(shape, dtype=torch.float32)
            native_ids = router_logits.new_empty(shape, dtype=torch.int32)
        given = router_logits, native_weights, native_ids, layer_index, num_columns
        if is_static:
            weights, ids = torch.ops.vllm.galton_route(*given)
            return weights, ids
        if backend.only_counts(router_logits, native_ids, layer_index, num_columns):
            return native_weights, native_ids
        return backend.route(*given)


def bind_model(
    model: torch.nn.Module,
    *,
    max_experts_per_token: int | None,
    max_num_tokens: int,
    max_num_seqs: int,
    backend: str,
) -> BoundModel:
    """Put a `PolicyRouter` into every MoE layer of a loaded model.

    Raises RoutingBindError where a layer cannot be controlled, or there is none.
    """
    layers = [m for m in model.modules() if isinstance(m, MoERunner)]
    if not layers:
        raise RoutingBindError("the model has no MoE layers: there is nothing to route")
    for layer in layers:
        if reason := _not_controllable(layer, on_gpu=not current_platform.is_cpu()):
            raise RoutingBindError(f"layer {layer.layer_name} cannot be controlled: {reason}")
    shapes = {(m.router.global_num_experts, m.router.top_k) for m in layers}
    if len(shapes) > 1:
        raise RoutingBindError(f"layers differ in (experts, top-k): {sorted(shapes)}")
    ((num_experts, top_k),) = shapes
    max_top_k = top_k if max_experts_per_token is None else max_experts_per_token
    # Llama 4 weighs what goes into its expert: vLLM can do that for one expert per token.
    on_input = any(m.routed_experts.apply_router_weight_on_input for m in layers)
    most, why = (1, "it weighs experts' inputs") if on_input else (num_experts, "its experts")
    if not top_k <= max_top_k <= most:
        raise RoutingBindError(
            f"--max-experts-per-token must be from {top_k} (the model's own top-k) to "
            f"{most} ({why}), got {max_top_k}"
        )
    spec = RouterSpec(tuple(m.layer_id for m in layers), num_experts, top_k, max_top_k)
    rules = [rule_of(m.router) for m in layers]
    memory, path = shared_memory.create(Counts.num_bytes(len(layers), num_experts))
    routers = load_backend(backend)(spec, rules, max_num_tokens, max_num_seqs, memory)
    bound = BoundModel(routers, path)
    operator.serve(bound)
    for layer_index, layer in enumerate(layers):
        layer.router = PolicyRouter(layer.router, layer_index, bound)
    return bound


def _not_controllable(layer: MoERunner, *, on_gpu: bool) -> str | None:
    """Why this layer's routing is out of reach, or None if it is not."""
    method = layer.routed_experts.quant_method
    reason = experts.not_usable_on_gpu(method) if on_gpu else experts.not_usable(method)
    return reason or not_controllable(layer.router)
