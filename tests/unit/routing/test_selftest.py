"""What the self-test forgives of vLLM's own router, and what it does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from routing.engine.selftest import _native_problem
from routing.reference.rule import RouterRule


@pytest.mark.parametrize(
    ("apart", "native", "problem"),
    [
        (2.0, [1, 0], None),
        (2.0, [1, 2], "vLLM's router chose [1, 2], its rule [1, 0]"),
        # Scores rounded to bfloat16 may be equal, and vLLM then takes any.
        (2**-8, [1, 2], None),
        (2**-6, [1, 2], "vLLM's router chose [1, 2], its rule [1, 0]"),
    ],
)
def test_experts_equal_in_bfloat16_may_be_taken_for_each_other(
    apart: float, native: list[int], problem: str | None
) -> None:
    """Expert 1 is the best, 0 and 2 follow in steps of `apart`; two are chosen."""
    logits = np.array([1.0, 1.0 + apart, 1.0 - apart, -1.0])
    weights = np.exp(logits[native]) / np.exp(logits[native]).sum()
    given = SimpleNamespace(
        native_ids=np.array([[native]]),
        router_logits=logits[None, None],
        native_weights=weights[None, None],
    )
    seen: Any = SimpleNamespace(given=given)
    found = _native_problem(seen, 0, 0, RouterRule())
    assert found == problem
