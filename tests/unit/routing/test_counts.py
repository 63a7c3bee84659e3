"""What several workers count and describe, merged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from routing.engine.counts import Counts, merge
from routing.spec import RouterSpec

SPEC = RouterSpec(layers=(0, 2), num_experts=2, top_k=1, max_top_k=2)
NOTHING: dict[str, Any] = {"assignments": {}, "routed_tokens": {}}


def test_replicas_are_added_and_stages_joined() -> None:
    def stage(layer: int, row: list[int], **tokens: dict[str, int]) -> dict[str, Any]:
        return {"assignments": {layer: row}, "routed_tokens": tokens}

    workers = [
        stage(0, [1, 2], top_k={"prefill": 3, "decode": 0}),
        stage(2, [3, 0]),
        stage(0, [10, 0], top_k={"prefill": 9, "decode": 1}, sample={"decode": 5}),
        stage(2, [5, 5]),
        NOTHING,  # another rank of a tensor-parallel group
    ]
    assert merge(workers) == Counts(
        {0: [11, 2], 2: [8, 5]},
        {("top_k", "prefill"): 12, ("top_k", "decode"): 1, ("sample", "decode"): 5},
    )


def test_model_has_the_layers_of_all_its_workers() -> None:
    stages = [
        replace(SPEC, layers=(0, 1)),
        replace(SPEC, layers=(2, 3)),
        replace(SPEC, layers=(0, 1)),
    ]
    assert RouterSpec.union(stages) == replace(SPEC, layers=(0, 1, 2, 3))
    with pytest.raises(ValueError, match="the workers' routers differ"):
        RouterSpec.union([SPEC, replace(SPEC, max_top_k=1)])
