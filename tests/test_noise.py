"""The random numbers: published test vectors, the Gumbel distribution, independence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from routing.noise import gumbel, gumbel_into, philox4x32, uniforms, words_into


# Random123's kat_vectors, "philox4x32 10".
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        ),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_published_vectors(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: list[int]
) -> None:
    assert philox4x32(counter, key) == words


def test_expert_takes_word_expert_mod_4_of_block_expert_div_4() -> None:
    seed, layer, position = 2**40 + 5, 3, 17
    words = philox4x32((1, layer, position, 0), (5, 2**8))
    assert uniforms(seed, layer, position, 7)[4:].tolist() == [
        ((word >> 8) + 0.5) * 2.0**-24 for word in words[:3]
    ]


def test_uniforms_never_reach_an_end() -> None:
    # What the two extreme words become; float32 would round the second to 1.
    assert ((0 >> 8) + 0.5) * 2.0**-24 > 0
    assert ((0xFFFFFFFF >> 8) + 0.5) * 2.0**-24 < 1
    drawn = np.concatenate([uniforms(1, 0, position, 64) for position in range(500)])
    assert 0 < drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1


def test_noise_is_standard_gumbel() -> None:
    # N = 64,000. A right generator fails one of the three with probability below 1e-4.
    noise = np.concatenate([gumbel(11, 2, position, 64) for position in range(1000)])
    assert stats.kstest(noise, "gumbel_r").pvalue > 1e-5
    assert abs(noise.mean() - np.euler_gamma) < 4.5 * math.pi / math.sqrt(6 * noise.size)
    assert abs(noise.var() - math.pi**2 / 6) < 4.5 * 2.66 / math.sqrt(noise.size) * math.pi**2 / 6


@pytest.mark.parametrize("axis", ["seed", "layer", "position", "expert"])
def test_noise_is_uncorrelated_along(axis: str) -> None:
    # N = 32,000 pairs; |r| < 4 / sqrt(N) fails by chance with probability 6e-5.
    base = {"seed": 5, "layer": 1, "position": 0}
    first, second = [], []
    for position in range(500):
        here = {**base, "position": 2 * position}
        there = here if axis == "expert" else {**here, axis: here[axis] + 1}
        noise = gumbel(**here, num_experts=64)
        first.append(noise)
        second.append(np.roll(noise, 1) if axis == "expert" else gumbel(**there, num_experts=64))
    correlation = np.corrcoef(np.concatenate(first), np.concatenate(second))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(64 * 500)


def test_compiled_words_equal_the_reference() -> None:
    words = np.empty(4 * 25, np.uint64)
    for seed, layer, position in ((0, 0, 0), (2**63 - 1, 1000, 2**31 - 1), (2**40 + 5, 3, 17)):
        words_into(words, np.uint64(seed), layer, position)
        expected = [
            philox4x32((block, layer, position, 0), (seed & (2**32 - 1), seed >> 32))
            for block in range(25)
        ]
        assert words.reshape(4, 25).T.tolist() == expected


@pytest.mark.parametrize("num_experts", [4, 8, 60, 512])
def test_compiled_noise_equals_the_reference(num_experts: int) -> None:
    noise, scratch = np.empty(num_experts), np.empty((2, num_experts))
    for seed, layer, position in ((0, 0, 0), (2**63 - 1, 1000, 2**31 - 1), (12345, 7, 99)):
        gumbel_into(noise, scratch, np.uint64(seed), layer, position)
        # The compiled logarithm is within 1 ulp, taken twice.
        expected = gumbel(seed, layer, position, num_experts)
        np.testing.assert_allclose(noise, expected, rtol=1e-13, atol=1e-13)
