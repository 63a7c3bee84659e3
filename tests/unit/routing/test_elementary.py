"""The compiled exp and ln, against the C library's in 80 bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from routing.cpu.elementary import exp, minus_ln, rough_exp, rough_minus_ln, split

RNG = np.random.default_rng(0)


def ulps(values: list[float], exact: npt.NDArray[np.longdouble]) -> float:
    """The largest error, in units of the last place."""
    return float(np.max(np.abs(np.array(values) - exact) / np.spacing(np.abs(values))))


@pytest.mark.parametrize(
    "numbers",
    [
        np.exp(RNG.uniform(-18, 3, 20_000)),  # -ln u of every u
        (RNG.integers(0, 2**24, 20_000) + 0.5) * 2.0**-24,  # u
        1 - (np.arange(1000) + 0.5) * 2.0**-24,  # near 1, where ln is near 0
        np.array([0.5, 1.0, 2.0, math.sqrt(0.5), math.sqrt(2), 2.0**-1022, 1e308]),
    ],
)
def test_minus_ln_is_within_3_ulp(numbers: npt.NDArray[np.float64]) -> None:
    assert ulps([minus_ln(x) for x in numbers], -np.log(numbers.astype(np.longdouble))) < 3


def test_exp_is_within_1_ulp() -> None:
    numbers = np.concatenate([RNG.uniform(-700, 700, 20_000), RNG.uniform(-10, 0, 20_000)])
    assert ulps([exp(x) for x in numbers], np.exp(numbers.astype(np.longdouble))) < 1


@pytest.mark.parametrize(
    ("number", "result"),
    [(0.0, 1.0), (-700.1, 0.0), (-1e38, 0.0), (-math.inf, 0.0), (1e38, math.exp(700))],
)
def test_exp_beyond_its_range(number: float, result: Any) -> None:
    assert exp(number) == pytest.approx(result, rel=1e-15)


def test_rough_exp_is_within_a_millionth() -> None:
    numbers = np.concatenate([RNG.uniform(-87, 0, 20_000), RNG.uniform(-1, 0, 20_000)])
    numbers = numbers.astype(np.float32)
    values = np.array([rough_exp(x) for x in numbers], np.float64)
    np.testing.assert_allclose(values, np.exp(numbers.astype(np.float64)), rtol=1e-6)


def test_rough_minus_ln_is_within_a_millionth() -> None:
    numbers = np.concatenate([RNG.uniform(0.5, 2, 20_000), np.exp(RNG.uniform(-80, 80, 20_000))])
    numbers = numbers.astype(np.float32)
    values = np.array([rough_minus_ln(*split(x)) for x in numbers], np.float64)
    np.testing.assert_allclose(values, -np.log(numbers.astype(np.float64)), rtol=1e-6)
