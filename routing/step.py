"""The arrays of an engine step, in one table: what kernels read, the counts they add to, what they
record.

NumPy's arrays, torch's tensors, numba's views and Triton's pointers are made from this table,
and always come as a `Step`, by name. Letters of shapes: T tokens at most in a step, R slots
for requests, N numbers of a slot, L MoE layers, E experts, K native experts of a token, S the
most that a token may have, P parameters of a mode, C numbers that encode a rule, G groups of
tokens, H their phases, M measures, O tokens at most that are observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

import numpy as np

from routing.counts import MAX_GROUPS, PHASES
from routing.policy.modes import MAX_PARAMETERS
from routing.reference.rule import SCORINGS, RouterRule
from routing.spec import RouterSpec


class Slot(NamedTuple):
    """The numbers of a slot, each an int64: a request's policy, and what is to be done with its
    tokens. A slot of zeros is a native request's.
    """

    mode: Annotated[Any, "the mode's code"]
    weights: Annotated[Any, "place in `routing.policy.keys.WEIGHTS`"]
    seed: Annotated[Any, "of the noise; the bits of 64 without a sign"]
    draws_once: Annotated[Any, "whether its noise is that of position 0 always"]
    is_steered: Annotated[Any, "whether slot_steering is to be read"]
    keeps_native: Annotated[Any, "whether a replayed native choice keeps its weights"]
    first_position: Annotated[Any, "of the first token that follows the policy"]
    num_prompt_tokens: Annotated[Any, "that the request came with"]
    num_routed: Annotated[Any, "tokens that were routed before the request was preempted"]
    native_group: Annotated[Any, "of its tokens without a policy, see `routing.counts`"]
    group: Annotated[Any, "of those that follow it"]
    records: Annotated[Any, "what is recorded of its tokens: CHOICE, MEASURES, OBSERVED, added up"]
    trace_ids: Annotated[Any, "address of a trace's experts, int16 [trace_tokens, L, trace_top_k]"]
    trace_native: Annotated[Any, "address of bool [trace_tokens]: the native router's choice?"]
    trace_position: Annotated[Any, "of the trace's first token"]
    trace_tokens: Annotated[Any, "how many tokens the trace has rows for"]
    trace_top_k: Annotated[Any, "columns of trace_ids; 0 where nothing is replayed"]


# Whoever records anything records the choice.
CHOICE, MEASURES, OBSERVED = 1, 2, 4
NEVER: Final = np.iinfo(np.int64).max  # a position


class Step(NamedTuple):
    """dtype, shape and meaning of each array."""

    layers: Annotated[Any, "int64", "L", "decoder layer index of each MoE layer"]
    rule_code: Annotated[Any, "float64", "LC", "the layer's rule, see `encode_rule`"]
    rule_correction_bias: Annotated[Any, "float64", "LE", "the rule's, or zeros"]
    slot_numbers: Annotated[Any, "int64", "RN", "a `Slot` each"]
    slot_parameters: Annotated[Any, "float64", "RLP", "of the mode, in its order"]
    slot_steering: Annotated[Any, "float32", "RLE", "added to logits; -inf bans, +inf forces"]
    num_tokens: Annotated[Any, "int64", "1", "without padding, which is never counted"]
    token_slot: Annotated[Any, "int32", "T", "whose policy a token follows; -1: the native choice"]
    token_position: Annotated[Any, "int64", "T", "absolute, from 0"]
    token_group: Annotated[Any, "int32", "T", "for whom it counts, see `routing.counts`"]
    token_records: Annotated[Any, "int32", "T", "its slot's"]
    step_number: Annotated[Any, "int64", "1", "of this step, never twice the same"]
    expert_step: Annotated[Any, "int64", "LE", "the last step in which an expert was used"]
    assignments: Annotated[Any, "int64", "LE", "see `routing.counts`"]
    active_experts: Annotated[Any, "int64", "L", "see there"]
    router_entropy: Annotated[Any, "float64", "L", "see there"]
    routed_tokens: Annotated[Any, "int64", "GH", "see there"]
    group_assignments: Annotated[Any, "int64", "G", "see there"]
    num_steps: Annotated[Any, "int64", "1", "see there"]
    record_ids: Annotated[Any, "int16", "TLS", "a token's experts, best first, then -1"]
    record_weights: Annotated[Any, "float32", "TLS", "theirs, then 0"]
    record_measures: Annotated[Any, "float32", "TLM", "see `routing.reference.rule.measures`"]
    observed_logits: Annotated[Any, "float32", "OLE", "the router's, for the self-test"]
    observed_weights: Annotated[Any, "float32", "OLK", "what the native router gave"]
    observed_ids: Annotated[Any, "int32", "OLK", "and chose"]


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
SIZES: Final = "1TRNLEKSPCGHMO"
NUM_RULE_NUMBERS: Final = 6
NUM_MEASURES: Final = 3


def sizes_of(
    spec: RouterSpec, max_num_tokens: int, max_num_seqs: int, max_observed: int
) -> dict[str, int]:
    """What each letter of a shape stands for."""
    return {
        "1": 1,
        "T": max_num_tokens,
        "R": max_num_seqs,
        "N": len(Slot._fields),
        "L": len(spec.layers),
        "E": spec.num_experts,
        "K": spec.top_k,
        "S": spec.max_top_k,
        "P": MAX_PARAMETERS,
        "C": NUM_RULE_NUMBERS,
        "G": MAX_GROUPS,
        "H": len(PHASES),
        "M": NUM_MEASURES,
        "O": min(max_num_tokens, max_observed),
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
