"""What the routers of a checkpoint do, read from its configuration alone.

The one place that knows Hugging Face's spellings: every family's configuration becomes one
`MoESpec`. Each entry says what vLLM 0.32's code for that architecture passes to its MoE
layer, which is not always what the configuration says: OLMoE's weights are never
renormalized there, whatever `norm_topk_prob` is. Weights, files and HTTP are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from routing.reference.rule import RouterRule

Config = Any  # a transformers configuration, the text model's


class UnroutableError(ValueError):
    """There is no router to describe, or none that is known; the message says which."""


@dataclass(frozen=True, slots=True)
class MoESpec:
    """The MoE layers of a checkpoint and their routers.

    num_layers: decoder layers, with MoE or without.
    layers: index of each of the L MoE layers among them, ascending.
    num_experts: E routed experts a layer. top_k: K of them per token.
    num_zero_experts: further choices of the router that compute nothing (LongCat-Flash).
    num_shared_experts: experts that every token uses beside them.
    rule: the model's own, without the correction bias, whose values are weights.
    has_correction_bias: whether there is one (in every layer that is not hash-routed).
    uncontrolled: MoE layer -> why no policy can reach it.
    notes: whatever else a reader must know, a sentence each.
    """

    architecture: str
    num_layers: int
    layers: tuple[int, ...]
    num_experts: int
    top_k: int
    rule: RouterRule
    has_correction_bias: bool = False
    num_shared_experts: int = 0
    num_zero_experts: int = 0
    uncontrolled: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def moe_spec(architecture: str, config: Config) -> MoESpec:
    """The spec of a checkpoint of that architecture. Raises UnroutableError."""
    family = FAMILIES.get(architecture)
    num_experts = _first(config, EXPERTS, 0)
    if not num_experts:
        raise UnroutableError("is not a mixture-of-experts model: there is nothing to route")
    if family is None:
        raise UnroutableError(
            f"has experts, but the router of {architecture} is not known to `galton inspect`; "
            f"known are {', '.join(sorted(FAMILIES))}"
        )
    num_layers = _first(config, (family.num_layers_key,))
    layers = tuple(layer for layer in range(num_layers) if family.is_moe(config, layer))
    if not layers:
        raise UnroutableError("has no MoE layer: there is nothing to route")
    reasons = {layer: family.uncontrolled(config, layer) for layer in layers}
    rule = family.rule(config)
    has_bias = family.correction_bias(config)
    grouped = family.grouped(config)
    return MoESpec(
        architecture=architecture,
        num_layers=num_layers,
        layers=layers,
        num_experts=_most(num_experts),
        top_k=_most(_first(config, TOP_K)),
        rule=rule,
        has_correction_bias=has_bias,
        num_shared_experts=family.shared_experts(config),
        num_zero_experts=getattr(config, "zero_expert_num", None) or 0,
        uncontrolled=MappingProxyType({layer: why for layer, why in reasons.items() if why}),
        notes=tuple(_cpu_notes(rule, grouped=grouped, has_bias=has_bias))
        if not all(reasons.values())
        else (),
    )


EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K: Final = ("num_experts_per_tok", "top_k_experts", "moe_k", "moe_topk")
_REQUIRED: Final = object()


def _first(config: Config, names: Iterable[str], default: Any = _REQUIRED) -> Any:
    """The value of the first of these names that the configuration has."""
    for name in names:
        if (value := getattr(config, name, None)) is not None:
            return value
    if default is _REQUIRED:
        raise UnroutableError(f"has no {' or '.join(names)} in its config.json")
    return default


def _most(value: int | list[int]) -> int:
    """HunYuan may list a number per layer."""
    return max(value) if isinstance(value, list) else value


def _cpu_notes(rule: RouterRule, *, grouped: bool, has_bias: bool) -> Iterable[str]:
    """Where vLLM's CPU router, which all families share, does less than the model asks."""
    if grouped or rule.scoring in ("sqrtsoftplus", "sparsemixer"):
        return
    if rule.scoring == "sigmoid" and has_bias:
        yield "On CPU, vLLM 0.32 cannot run it: its router scores with sigmoid only in groups."
    elif has_bias:
        yield "On CPU, vLLM 0.32 leaves the correction bias out."


# Which decoder layers are MoE layers.


def _every(config: Config, layer: int) -> bool:
    return True


def _sparse_step(config: Config, layer: int) -> bool:
    dense = getattr(config, "mlp_only_layers", None) or ()
    return layer not in dense and (layer + 1) % getattr(config, "decoder_sparse_step", 1) == 0


def _after_first_dense(config: Config, layer: int) -> bool:
    frequency: int = getattr(config, "moe_layer_freq", 1)
    first: int = getattr(config, "first_k_dense_replace", 0)
    return layer >= first and layer % frequency == 0


def _interleaved(config: Config, layer: int) -> bool:
    """Llama 4. vLLM reads the step, never `moe_layers`."""
    step: int = config.interleave_moe_layer_step
    return step > 0 and (layer + 1) % step == 0


def _from_start_to_end(config: Config, layer: int) -> bool:
    start: int = getattr(config, "moe_layer_start_index", 0)
    end: int = getattr(config, "moe_layer_end_index", config.num_hidden_layers - 1)
    return start <= layer <= end and (layer + 1) % getattr(config, "moe_layer_interval", 1) == 0


# What is out of a policy's reach.


def _nothing(config: Config, layer: int) -> str | None:
    return None


def _hash_layers(config: Config, layer: int) -> str | None:
    kinds = getattr(config, "mlp_layer_types", None)
    hashed = kinds[layer] == "hash_moe" if kinds else layer < config.num_hash_layers
    return "a hash of the token chooses its experts" if hashed else None


def _zero_experts(config: Config, layer: int) -> str | None:
    return (
        f"its router also chooses among {config.zero_expert_num} zero experts, which compute "
        "nothing, and vLLM handles those inside a router of its own"
    )


def _routed_in_transformers(config: Config, layer: int) -> str | None:
    return (
        "vLLM runs it on transformers' code, which routes by itself: the routing function "
        "that vLLM gets only hands the finished choice on"
    )


# How its scores and weights are made.


def _flag(name: str, default: bool = False) -> Callable[[Config], bool]:
    return lambda config: bool(getattr(config, name, default))


def _noaux(config: Config) -> bool:
    return getattr(config, "topk_method", None) == "noaux_tc"


def _count(name: str) -> Callable[[Config], int]:
    return lambda config: getattr(config, name, None) or 0


_n_shared_experts: Final = _count("n_shared_experts")


def _one(config: Config) -> int:
    return 1


def _shared_by_size(config: Config) -> int:
    return int((getattr(config, "shared_expert_intermediate_size", None) or 0) > 0)


def _no(config: Config) -> bool:
    return False


def _yes(config: Config) -> bool:
    return True


def _has_groups(config: Config) -> bool:
    return bool(getattr(config, "n_group", None) and getattr(config, "topk_group", None))


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture's configuration is read.

    renormalize, correction_bias, grouped, shared_experts: functions of the configuration.
    scoring: the score's name, or None where the configuration says it under `scoring_key`,
        with `scoring_default` where it does not.
    num_layers_key: the name of the number of decoder layers.
    scaled: whether `routed_scaling_factor` is used. vLLM often applies it to the layer's
        output instead of to the weights, which is the same sum.
    """

    renormalize: Callable[[Config], bool]
    is_moe: Callable[[Config, int], bool] = _every
    scoring: str | None = "softmax"
    scoring_key: str = "scoring_func"
    scoring_default: str = "softmax"
    num_layers_key: str = "num_hidden_layers"
    scaled: bool = False
    grouped: Callable[[Config], bool] = _no
    correction_bias: Callable[[Config], bool] = _no
    shared_experts: Callable[[Config], int] = _n_shared_experts
    uncontrolled: Callable[[Config, int], str | None] = _nothing

    def rule(self, config: Config) -> RouterRule:
        """The routers' rule, without the values of a correction bias."""
        scoring = self.scoring
        if scoring is None:
            scoring = getattr(config, self.scoring_key, None) or self.scoring_default
        grouped = self.grouped(config)
        factor = getattr(config, "routed_scaling_factor", None) if self.scaled else None
        return RouterRule(
            scoring,
            self.renormalize(config),
            1.0 if factor is None else float(factor),
            (getattr(config, "n_group", None) or 1) if grouped else 1,
            (getattr(config, "topk_group", None) or 1) if grouped else 1,
        )


_NORM: Final = _flag("norm_topk_prob")
_QWEN: Final = Family(_NORM, _sparse_step, shared_experts=_shared_by_size)
_DEEPSEEK: Final = Family(
    _NORM, _after_first_dense, None, scaled=True, grouped=_yes, correction_bias=_noaux
)
_GLM: Final = Family(
    _NORM, _after_first_dense, "sigmoid", scaled=True, grouped=_yes, correction_bias=_yes
)
_LLAMA4: Final = Family(_no, _interleaved, "sigmoid", shared_experts=_one)
_PHI: Final = Family(_no, scoring="sparsemixer")
_BAILING: Final = Family(
    _NORM,
    _after_first_dense,
    None,
    scoring_key="score_function",
    scaled=True,
    grouped=_has_groups,
    correction_bias=_flag("moe_router_enable_expert_bias"),
    shared_experts=_count("num_shared_experts"),
)

FAMILIES: Final[Mapping[str, Family]] = {
    "BailingMoeForCausalLM": _BAILING,
    "BailingMoeV2ForCausalLM": _BAILING,
    "DeepseekV2ForCausalLM": _DEEPSEEK,
    "DeepseekV3ForCausalLM": _DEEPSEEK,
    "DeepseekV4ForCausalLM": Family(
        _NORM,
        scoring=None,
        scoring_default="sqrtsoftplus",
        scaled=True,
        correction_bias=_noaux,
        uncontrolled=_hash_layers,
    ),
    "Dots1ForCausalLM": _GLM,
    "Ernie4_5_MoeForCausalLM": Family(
        _yes,
        _from_start_to_end,
        correction_bias=_yes,
        shared_experts=_count("moe_num_shared_experts"),
    ),
    "FlexOlmoForCausalLM": Family(_NORM),
    "Glm4MoeForCausalLM": _GLM,
    "GptOssForCausalLM": Family(_yes),
    "GraniteMoeForCausalLM": Family(_yes),
    "HunYuanMoEV1ForCausalLM": Family(
        _yes, shared_experts=_one, uncontrolled=_routed_in_transformers
    ),
    "Llama4ForCausalLM": _LLAMA4,
    "Llama4ForConditionalGeneration": _LLAMA4,
    "LongcatFlashForCausalLM": Family(
        _no,
        num_layers_key="num_layers",  # num_hidden_layers counts its attentions: twice as many
        scaled=True,
        correction_bias=_yes,
        uncontrolled=_zero_experts,
    ),
    "MiniMaxM2ForCausalLM": Family(
        _yes,
        scoring=None,
        scoring_default="sigmoid",
        correction_bias=_flag("use_routing_bias"),
    ),
    "MixtralForCausalLM": Family(_yes),
    "OlmoeForCausalLM": Family(_no),
    "PhiMoEForCausalLM": _PHI,
    "PhimoeForCausalLM": _PHI,
    "Qwen2MoeForCausalLM": _QWEN,
    "Qwen3MoeForCausalLM": _QWEN,
}
