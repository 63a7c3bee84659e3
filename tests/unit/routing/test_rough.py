"""The choice in float32: its noise is as near as it says, and where two scores are nearer than
that it leaves the choice to float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from routing.cpu.choice import CompiledToken
from routing.cpu.elementary import rough_minus_ln, split
from routing.cpu.rough import ERROR, rough_exponential, surely_largest
from routing.cpu.rule import decode_rule, whole_blocks
from routing.reference.noise import gumbel
from routing.reference.rule import RouterRule
from routing.step import encode_rule
from tests.shared.kernels import Floats, run, spec_of, step

SEED, LAYER = 5, 3


@njit
def _largest_error() -> float:
    worst = 0.0
    for n in range(1 << 24):
        exact = -np.log(-np.log((n + 0.5) * 2.0**-24))
        rough = rough_minus_ln(*split(rough_exponential(np.int32(n))))
        worst = max(worst, abs(rough - exact))
    return worst


def test_all_rough_noise_is_within_half_the_error() -> None:
    """The other half is what rounding the temperature and its product may add."""
    assert _largest_error() < ERROR / 2


def surely_chosen(logits: Floats, position: int, temperature: float, count: int) -> list[int]:
    """The experts chosen in float32; none where that is not certain."""
    num_experts = logits.size
    room = np.empty((3, whole_blocks(num_experts)))
    ids = np.empty(2 * whole_blocks(num_experts), np.int32)
    token = CompiledToken(
        logits.astype(np.float32),
        np.zeros(num_experts),
        np.zeros(num_experts),
        False,
        decode_rule(encode_rule(RouterRule()), np.zeros(num_experts)),
        count,
        np.uint64(SEED),
        LAYER,
        position,
        room[0],
        room[1],
        room[2, :num_experts].view(np.int64),
        np.empty(0, np.int16),
        ids,
    )
    return ids[:count].tolist() if surely_largest(token, temperature, count) else []


def _exact(logits: Floats, position: int, temperature: float, count: int) -> list[int]:
    scores = logits + temperature * gumbel(SEED, LAYER, position, logits.size)
    chosen: npt.NDArray[np.intp] = np.argsort(-scores.astype(np.float32), kind="stable")[:count]
    return chosen.tolist()


@pytest.mark.parametrize(
    ("num_experts", "count"), [(1, 1), (2, 1), (7, 7), (16, 16), (60, 4), (128, 8), (512, 10)]
)
@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_what_is_certain_is_the_exact_choice(
    num_experts: int, count: int, temperature: float
) -> None:
    rng = np.random.default_rng(num_experts)
    certain = 0
    for position, row in enumerate(rng.normal(0, 2, (300, num_experts)).astype(np.float32)):
        chosen = surely_chosen(row, position, temperature, count)
        certain += chosen != []
        assert chosen in ([], _exact(row, position, temperature, count))
    assert certain > 270


@pytest.mark.parametrize("apart", [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("nearly_tied", [range(64), [7, 8]], ids=["all", "last and next"])
def test_scores_that_nearly_tie_are_chosen_as_in_float64(
    nearly_tied: Sequence[int], apart: float, temperature: float
) -> None:
    """Scores are a unit apart, best first, but for these, which lie within a few `apart`."""
    count, num_experts, positions = 8, 64, 200
    noise = np.array([gumbel(SEED, LAYER, p, num_experts) for p in range(positions)])
    scores = np.tile(-np.arange(float(num_experts)), (positions, 1))
    near = np.random.default_rng(1).normal(0, apart, (positions, len(nearly_tied)))
    scores[:, nearly_tied] = near + scores[0, nearly_tied[0]]
    logits = (scores - temperature * noise).astype(np.float32)
    routing = {"mode": "sample", "temperature": temperature, "seed": SEED, "scope": "all"}
    _, ids = run(step(spec_of(num_experts, count), routing, positions), logits, layer_index=1)
    for position, row in enumerate(logits):
        expected = _exact(row, position, temperature, count)
        assert ids[position].tolist() == expected
        assert surely_chosen(row, position, temperature, count) in ([], expected)
