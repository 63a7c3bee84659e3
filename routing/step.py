"""The arrays of an engine step, in one table: what the kernels read, and the counts they add to.

NumPy's arrays, torch's tensors, numba's views and Triton's pointers are made from this table,
and always come as a `Step`, by name. Letters of shapes: T tokens at most in a step, R slots
for requests, L MoE layers, E experts, S the most experts per token, P parameters of a mode,
C numbers that encode a rule, G groups of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

import numpy as np

from routing.counts import MAX_GROUPS
from routing.policy.modes import MAX_PARAMETERS
from routing.reference.rule import SCORINGS, RouterRule
from routing.spec import RouterSpec


class Step(NamedTuple):
    """dtype, shape and meaning of each array."""

    layers: Annotated[Any, "int64", "L", "decoder layer index of each MoE layer"]
    rule_code: Annotated[Any, "float64", "LC", "the layer's rule, see `encode_rule`"]
    rule_correction_bias: Annotated[Any, "float64", "LE", "the rule's, or zeros"]
    num_tokens: Annotated[Any, "int64", "1", "without padding, which is never counted"]
    token_slot: Annotated[Any, "int32", "T", "whose policy a token follows; -1: the native choice"]
    token_position: Annotated[Any, "int64", "T", "absolute, from 0"]
    token_replayed: Annotated[Any, "int16", "TLS", "the experts a trace holds for a token, then -1"]
    token_was_native: Annotated[Any, "bool", "T", "whether the native router had chosen those"]
    slot_mode: Annotated[Any, "int64", "R", "the mode's code"]
    slot_parameters: Annotated[Any, "float64", "RLP", "of the mode, in its order"]
    slot_weights: Annotated[Any, "int64", "R", "place in `routing.policy.keys.WEIGHTS`"]
    slot_seed: Annotated[Any, "uint64", "R", "of the noise"]
    slot_draws_once: Annotated[Any, "bool", "R", "whether its noise is that of position 0 always"]
    slot_steered: Annotated[Any, "bool", "R", "whether slot_steering is to be read"]
    slot_steering: Annotated[Any, "float32", "RLE", "added to logits; -inf bans, +inf forces"]
    slot_keeps_native: Annotated[Any, "bool", "R", "a replayed native choice keeps its weights"]
    token_group: Annotated[Any, "int32", "T", "for whom it counts, see `routing.counts`"]
    step_number: Annotated[Any, "int64", "1", "of this step, never twice the same"]
    expert_step: Annotated[Any, "int64", "LE", "the last step in which an expert was used"]
    assignments: Annotated[Any, "int64", "LE", "this and the rest: counts, to which kernels add"]
    active_experts: Annotated[Any, "int64", "L", "see `routing.counts`"]
    router_entropy: Annotated[Any, "float64", "L", "see there"]
    group_assignments: Annotated[Any, "int64", "G", "see there"]


class Array(NamedTuple):
    """A row of that table: dtype by NumPy's name, shape by letters."""

    name: str
    dtype: str
    shape: str
    meaning: str


ARRAYS: Final = tuple(
    Array(name, *row.__metadata__)
    for name, row in get_type_hints(Step, include_extras=True).items()
)
SIZES: Final = "1TRLESPCG"
NUM_RULE_NUMBERS: Final = 6


def sizes_of(spec: RouterSpec, max_num_tokens: int, max_num_seqs: int) -> dict[str, int]:
    """What each letter of a shape stands for."""
    return {
        "1": 1,
        "T": max_num_tokens,
        "R": max_num_seqs,
        "L": len(spec.layers),
        "E": spec.num_experts,
        "S": spec.max_top_k,
        "P": MAX_PARAMETERS,
        "C": NUM_RULE_NUMBERS,
        "G": MAX_GROUPS,
    }


def zeros(sizes: Mapping[str, int]) -> Step:
    """A step of zeros."""
    return Step(
        *(np.zeros([sizes[letter] for letter in array.shape], array.dtype) for array in ARRAYS)
    )


def encode_rule(rule: RouterRule) -> tuple[float, ...]:
    """[C] the rule but for its correction bias, as kernels take it."""
    return (
        SCORINGS.index(rule.scoring),
        rule.renormalize,
        rule.scaling_factor,
        rule.num_groups,
        rule.topk_groups,
        rule.correction_bias is not None,
    )
