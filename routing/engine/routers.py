"""The rule of each of vLLM's routers, read from its fields; and which cannot be controlled.

A CPU has one class for all schemes, a GPU one for each. They differ in two points: the CPU's takes
softmax where a model without groups or bias wants sigmoid, and leaves ERNIE's correction bias out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter
from vllm.model_executor.layers.fused_moe.router.custom_routing_router import CustomRoutingRouter
from vllm.model_executor.layers.fused_moe.router.fused_topk_bias_router import FusedTopKBiasRouter
from vllm.model_executor.layers.fused_moe.router.fused_topk_router import FusedTopKRouter
from vllm.model_executor.layers.fused_moe.router.grouped_topk_router import GroupedTopKRouter

from routing.reference.rule import RouterRule


def not_controllable(router: Any) -> str | None:
    """Why a router's choice cannot be replaced, or None if it can."""
    if type(router) not in _RULE_OF:
        return f"router {type(router).__name__} is not supported"
    if _field(router, "hash_indices_table") or _field(router, "_hash_indices_table"):
        return "a hash of the token chooses its experts"
    if _field(router, "bias_vl"):
        return "images' tokens are routed by a rule of their own"
    if getattr(router, "num_fused_shared_experts", 0):
        return "shared experts are chosen with the routed ones"
    function = getattr(router, "custom_routing_function", None)
    if function is not None and _name(function) not in _CUSTOM_RULES:
        return f"its routing function {_name(function)} is not supported"
    return None


def rule_of(router: Any) -> RouterRule:
    """What a router does for which `not_controllable` is None."""
    return _RULE_OF[type(router)](router)


def _of_cpu(router: CPURouter) -> RouterRule:
    """In the order of the branches of `CPURouter._compute_routing`."""
    if router.use_grouped_topk:
        return RouterRule(
            router.scoring_func,
            router.renormalize,
            router.routed_scaling_factor,
            router.num_expert_group,
            router.topk_group,
            _correction_bias(router),
        )
    if router.scoring_func == "sqrtsoftplus":
        return _of_fused_topk_bias(router)
    if router.custom_routing_function is not None:
        return _of_custom(router)
    # It leaves a correction bias and a scaling factor out here, and so do we.
    return RouterRule("softmax", router.renormalize)


def _of_fused_topk(router: FusedTopKRouter) -> RouterRule:
    return RouterRule(router.scoring_func, router.renormalize)


def _of_fused_topk_bias(router: Any) -> RouterRule:
    return RouterRule(
        router.scoring_func,
        router.renormalize,
        router.routed_scaling_factor,
        correction_bias=_correction_bias(router),
    )


def _of_grouped_topk(router: GroupedTopKRouter) -> RouterRule:
    """Where experts do not come in equal groups it takes them all, without a bias by softmax."""
    num_experts, num_groups = router.global_num_experts, router.num_expert_group
    bias = _correction_bias(router)
    if num_experts > num_groups and num_experts % num_groups == 0:
        return RouterRule(
            router.scoring_func,
            router.renormalize,
            router.routed_scaling_factor,
            num_groups,
            router.topk_group,
            bias,
        )
    if bias is None:
        return RouterRule("softmax", router.renormalize)
    return _of_fused_topk_bias(router)


def _of_custom(router: CPURouter | CustomRoutingRouter) -> RouterRule:
    return _CUSTOM_RULES[_name(router.custom_routing_function)]


_RULE_OF: dict[type, Callable[[Any], RouterRule]] = {
    CPURouter: _of_cpu,
    FusedTopKRouter: _of_fused_topk,
    FusedTopKBiasRouter: _of_fused_topk_bias,
    GroupedTopKRouter: _of_grouped_topk,
    CustomRoutingRouter: _of_custom,
}
_CUSTOM_RULES = {
    "Llama4MoE.custom_routing_function": RouterRule("sigmoid", renormalize=False),
    "phimoe_routing_function": RouterRule("sparsemixer", renormalize=False),
}


def _field(router: Any, name: str) -> bool:
    """Whether a field that may be absent holds anything."""
    return getattr(router, name, None) is not None


def _name(function: Any) -> str:
    """The function's name, also of one that is partly applied (vLLM's Transformers backend)."""
    name: str = getattr(function, "func", function).__qualname__
    return name


def _correction_bias(router: Any) -> tuple[float, ...] | None:
    bias = router.e_score_correction_bias
    return None if bias is None else tuple(bias.float().tolist())
