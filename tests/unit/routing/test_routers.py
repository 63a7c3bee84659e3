"""The rules that are read from vLLM's routers: those of GPUs are those of the CPU, but for two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vllm.model_executor.layers.fused_moe.router import router_factory
from vllm.model_executor.models.llama4 import Llama4MoE
from vllm.model_executor.models.phimoe import phimoe_routing_function

from routing.engine.routers import not_controllable, rule_of
from routing.reference.route import select_experts
from routing.reference.rule import RouterRule

E = 16
BIAS = torch.linspace(-0.2, 0.2, E)
GROUPS = {"use_grouped_topk": True, "num_expert_group": 4, "topk_group": 2}
ONE_GROUP = {"use_grouped_topk": True, "num_expert_group": 1, "topk_group": 1}
# By family, what its layers ask of the factory.
SCHEMES: dict[str, dict[str, Any]] = {
    "OLMoE": {"renormalize": False},
    "Mixtral, Qwen3-MoE, GPT-OSS": {"renormalize": True},
    "DeepSeek-V2": {**GROUPS, "renormalize": False, "routed_scaling_factor": 16.0},
    "DeepSeek-V3, GLM-4-MoE, dots1": {
        **GROUPS,
        "renormalize": True,
        "scoring_func": "sigmoid",
        "routed_scaling_factor": 2.5,
        "e_score_correction_bias": BIAS,
    },
    "one group": {
        **ONE_GROUP,
        "renormalize": True,
        "scoring_func": "sigmoid",
        "routed_scaling_factor": 2.5,
        "e_score_correction_bias": BIAS,
    },
    "DeepSeek-V4": {
        "renormalize": True,
        "scoring_func": "sqrtsoftplus",
        "routed_scaling_factor": 1.5,
        "e_score_correction_bias": BIAS,
    },
    "Llama 4": {"top_k": 1, "custom_routing_function": Llama4MoE.custom_routing_function},
    "Phi-MoE": {
        "top_k": 2,
        "renormalize": False,
        "custom_routing_function": phimoe_routing_function,
    },
}


def router_of(monkeypatch: pytest.MonkeyPatch, scheme: dict[str, Any], *, on_cpu: bool) -> Any:
    monkeypatch.setattr(router_factory.current_platform, "is_cpu", lambda: on_cpu, raising=False)
    return router_factory.create_fused_moe_router(**{"top_k": 4, "global_num_experts": E, **scheme})


@pytest.mark.parametrize("family", SCHEMES)
def test_a_gpus_router_has_the_rule_of_the_cpus(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    on_cpu, on_gpu = (router_of(monkeypatch, SCHEMES[family], on_cpu=c) for c in (True, False))
    assert type(on_cpu) is not type(on_gpu)
    assert not_controllable(on_cpu) is not_controllable(on_gpu) is None
    assert rule_of(on_gpu) == rule_of(on_cpu)


def test_what_the_cpus_router_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ernie = {"renormalize": True, "e_score_correction_bias": BIAS}
    assert rule_of(router_of(monkeypatch, ernie, on_cpu=True)) == RouterRule()
    bias = tuple(BIAS.tolist())
    assert rule_of(router_of(monkeypatch, ernie, on_cpu=False)) == RouterRule(correction_bias=bias)
    sigmoid = {"renormalize": True, "scoring_func": "sigmoid"}
    assert rule_of(router_of(monkeypatch, sigmoid, on_cpu=False)) == RouterRule("sigmoid")


@pytest.mark.parametrize("biased", [True, False])
def test_groups_that_do_not_divide_the_experts_are_none(
    monkeypatch: pytest.MonkeyPatch, biased: bool
) -> None:
    scheme = {**GROUPS, "num_expert_group": 5, "scoring_func": "sigmoid"}
    bias = {"e_score_correction_bias": BIAS} if biased else {}
    rule = rule_of(router_of(monkeypatch, {**scheme, **bias}, on_cpu=False))
    assert rule.num_groups == 1
    assert rule.scoring == ("sigmoid" if biased else "softmax")


@pytest.mark.parametrize(
    ("scheme", "why"),
    [
        ({"hash_indices_table": torch.zeros(8, 4, dtype=torch.int32)}, "a hash of the token"),
        ({"e_score_correction_bias": BIAS, "bias_vl": BIAS, "image_sentinel_lo": 5}, "images"),
        ({**GROUPS, "num_fused_shared_experts": 1}, "shared experts"),
        ({"custom_routing_function": lambda **_: None}, "its routing function"),
        (
            {"zero_expert_type": "identity", "num_logical_experts": 8}
            | {"e_score_correction_bias": BIAS},
            "router ZeroExpertRouter",
        ),
    ],
)
def test_what_cannot_be_controlled_is_said(
    monkeypatch: pytest.MonkeyPatch, scheme: dict[str, Any], why: str
) -> None:
    reason = not_controllable(router_of(monkeypatch, scheme, on_cpu=False))
    assert reason is not None
    assert reason.startswith(why)


@pytest.mark.parametrize(
    "family", ["DeepSeek-V2", "DeepSeek-V3, GLM-4-MoE, dots1", "Llama 4", "Phi-MoE"]
)
def test_a_gpus_router_does_what_its_rule_says(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Those that are torch code: they run on a CPU too."""
    router = router_of(monkeypatch, SCHEMES[family], on_cpu=False)
    logits = torch.randn(50, E, generator=torch.Generator().manual_seed(0)) * 2
    with torch.compiler.set_stance("force_eager"):
        weights, ids = router._compute_routing(logits, logits, torch.int32)
    for row, own_weights, own_ids in zip(logits.numpy(), weights, ids.tolist(), strict=True):
        expected_weights, expected_ids = select_experts(
            row,
            "top_k",
            {"top_k": router.top_k},
            rule=rule_of(router),
            native_top_k=router.top_k,
        )
        assert set(own_ids) == set(expected_ids.tolist())
        by_expert = dict(zip(own_ids, own_weights.tolist(), strict=True))
        found = [by_expert[expert] for expert in expected_ids.tolist()]
        np.testing.assert_allclose(found, expected_weights, rtol=1e-5)
