"""The random numbers: published test vectors, the Gumbel distribution, independence."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from routing.cpu.noise import gumbel_into, words_into
from routing.reference.noise import gumbel, philox4x32, uniforms
from tests.slow import battery


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


def test_gumbel_noise_grows_with_its_number() -> None:
    """Each once as a key in float32, too: the compiled `uniform` ranks the numbers themselves."""
    u = (np.arange(1 << 24) + 0.5) * 2.0**-24
    assert np.all(np.diff((-np.log(-np.log(u))).astype(np.float32)) > 0)


def test_uniforms_never_reach_an_end() -> None:
    # What the two extreme words become; float32 would round the second to 1.
    assert ((0 >> 8) + 0.5) * 2.0**-24 > 0
    assert ((0xFFFFFFFF >> 8) + 0.5) * 2.0**-24 < 1
    drawn = np.concatenate([uniforms(1, 0, position, 64) for position in range(500)])
    assert 0 < drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1


NUM_EXPERTS, NUM_POSITIONS = 512, 10_000


def kernel_noise(
    seed: int = 11, layer: int = 2, first: int = 0, num_positions: int = NUM_POSITIONS
) -> npt.NDArray[np.float64]:
    """[num_positions, NUM_EXPERTS] the kernel's noise from position `first` on."""
    noise, scratch = np.empty((num_positions, NUM_EXPERTS)), np.empty(NUM_EXPERTS)
    for row in range(num_positions):
        gumbel_into(noise[row], scratch, np.uint64(seed), layer, first + row)
    return noise


def test_noise_is_standard_gumbel() -> None:
    """N = 5,120,000: mean and variance, 1 % of which are 10 standard deviations, and the
    Kolmogorov-Smirnov test, for which 1 % of scale is a distance of 0.003, with a bound of
    0.0012. The right noise fails one of the three with probability 2e-6.
    """
    noise = kernel_noise().ravel()
    variance, kurtosis = math.pi**2 / 6, 5.4
    assert abs(noise.mean() - np.euler_gamma) < 5 * math.sqrt(variance / noise.size)
    deviation = variance * math.sqrt((kurtosis - 1) / noise.size)
    assert abs(noise.var() - variance) < 5 * deviation
    assert 0.01 * variance > 10 * deviation
    assert stats.kstest(noise, "gumbel_r").pvalue > 1e-6


@pytest.mark.parametrize("axis", ["seed", "layer", "position", "expert"])
@pytest.mark.parametrize("distance", [1, 2, 4, 256])
def test_noise_is_uncorrelated_along(axis: str, distance: int) -> None:
    """N = 512,000 pairs; |r| < 4 / sqrt(N) fails by chance with probability 6e-5."""
    first = kernel_noise(num_positions=1000)
    second = {
        "seed": lambda: kernel_noise(seed=11 + distance, num_positions=1000),
        "layer": lambda: kernel_noise(layer=2 + distance, num_positions=1000),
        "position": lambda: kernel_noise(first=distance, num_positions=1000),
        "expert": lambda: np.roll(first, distance, axis=1),
    }[axis]()
    correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert abs(correlation) < 4 / math.sqrt(first.size)


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
    noise, scratch = np.empty(num_experts), np.empty(num_experts)
    for seed, layer, position in ((0, 0, 0), (2**63 - 1, 1000, 2**31 - 1), (12345, 7, 99)):
        gumbel_into(noise, scratch, np.uint64(seed), layer, position)
        # The compiled logarithm is within 3 ulp, taken twice.
        expected = gumbel(seed, layer, position, num_experts)
        np.testing.assert_allclose(noise, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("stream", battery.STREAMS)
def test_battery_reads_the_words_in_its_order(stream: str) -> None:
    lengths = battery.STREAMS[stream]
    state = battery.walk(lengths, bits_reversed=False)
    for tile in range(2):
        state["read"] = battery.TILE  # so that the next word is the next tile's first
        assert battery.get_bits.ctypes(None, state.ctypes.data) == state["words"][0, 0]
        for place in (0, 1, 2, 3, 4, 77, 12_345, battery.TILE - 1):
            along = np.unravel_index(place, tuple(lengths.values()), order="F")
            at = {axis: int(where) for axis, where in zip(lengths, along, strict=True)}
            at[list(lengths)[-1]] += tile * list(lengths.values())[-1]
            block, word = divmod(at["expert"], 4)
            expected = philox4x32((block, at["layer"], at["position"], 0), (at["seed"], 0))[word]
            assert state["words"][0, place] == expected


def test_battery_reads_reversed_words() -> None:
    plain, mirrored = (
        battery.walk(battery.STREAMS["experts"], bits_reversed=r) for r in (False, True)
    )
    for _ in range(100):
        word = battery.get_bits.ctypes(None, plain.ctypes.data)
        backwards = battery.get_bits.ctypes(None, mirrored.ctypes.data)
        assert f"{word:032b}"[::-1] == f"{backwards:032b}"
