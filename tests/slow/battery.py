"""TestU01's batteries on the router's random words: `make battery`.

TestU01 (L'Ecuyer and Simard, ACM TOMS 33, 2007) is the reference for testing random number
generators. It is Debian's package libtestu01-0 (component non-free), and asks for one word at
a time through C functions that numba compiles here. The words are those of the kernel's own
`words_into`, in orders in which a server draws them: see `STREAMS`.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from typing import Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types

from routing.cpu.noise import words_into

AXES = ("seed", "position", "layer", "expert")
# What neighboring words differ in: axes and lengths of one tile of words, fastest first; the
# next tile goes on along the last axis. `experts` is the order of a forward pass.
STREAMS = {
    "experts": {"expert": 64, "layer": 32, "position": 512, "seed": 1},
    "layers": {"layer": 64, "position": 256, "expert": 64, "seed": 1},
    "positions": {"position": 4096, "layer": 4, "expert": 64, "seed": 1},
    "seeds": {"seed": 16384, "expert": 64, "layer": 1, "position": 1},
}
TILE = 2**20
WALK = np.dtype(
    [
        ("words", np.uint32, TILE),
        ("read", np.int64),  # how many of them were read
        ("last", np.int64),  # the axis along which tiles follow one another
        ("start", np.int64, len(AXES)),
        ("length", np.int64, len(AXES)),
        ("stride", np.int64, len(AXES)),
        ("reversed", np.bool_),
    ],
    align=True,
)
SUSPECT, FAILURE = 1e-3, 1e-10  # TestU01's bounds, at both ends


def walk(lengths: dict[str, int], *, bits_reversed: bool) -> Any:
    """[1] WALK, before its first word."""
    state = np.zeros(1, WALK)
    stride = 1
    for axis, length in lengths.items():
        state["length"][0, AXES.index(axis)] = length
        state["stride"][0, AXES.index(axis)] = stride
        stride *= length
    assert stride == TILE, f"{lengths} are {stride} words, not {TILE}"
    state["last"] = AXES.index(axis)
    state["start"][0, AXES.index(axis)] = -length
    state["read"] = TILE
    state["reversed"] = bits_reversed
    return state


@njit
def fill(words: Any, start: Any, length: Any, stride: Any) -> None:
    """One tile; start, length, stride: [4] in the order of AXES."""
    num_blocks = length[3] // 4
    drawn = np.empty(length[3], np.uint64)
    for seed in range(length[0]):
        for position in range(length[1]):
            for layer in range(length[2]):
                key = np.uint64(start[0] + seed)
                words_into(drawn, key, start[2] + layer, start[1] + position)
                place = seed * stride[0] + position * stride[1] + layer * stride[2]
                for expert in range(length[3]):
                    word = drawn[expert % 4 * num_blocks + expert // 4]
                    words[place + expert * stride[3]] = np.uint32(word)


@njit
def reverse(word: Any) -> Any:
    """32 bits, the lowest first."""
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        word = ((word >> shift) & mask) | ((word & mask) << shift)
    return (word >> 16) | ((word & 0xFFFF) << 16)


@njit
def next_word(address: Any) -> Any:
    """The next of the walk at this address."""
    state = carray(address, 1)[0]
    if state.read == TILE:
        state.start[state.last] += state.length[state.last]
        fill(state.words, state.start, state.length, state.stride)
        state.read = 0
    word = np.int64(state.words[state.read])
    state.read += 1
    return reverse(word) if state.reversed else word


@cfunc(types.uint64(types.voidptr, types.CPointer(from_dtype(WALK))))
def get_bits(_: Any, address: Any) -> Any:
    """TestU01's GetBits(param, state): 32 bits."""
    return np.uint64(next_word(address))


@cfunc(types.float64(types.voidptr, types.CPointer(from_dtype(WALK))))
def get_u01(_: Any, address: Any) -> Any:
    """TestU01's GetU01(param, state): a number from 0 to 1."""
    return next_word(address) * 2.0**-32


class Generator(ctypes.Structure):
    """TestU01's unif01_Gen."""

    _fields_ = (
        ("state", ctypes.c_void_p),
        ("param", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("get_u01", ctypes.c_void_p),
        ("get_bits", ctypes.c_void_p),
        ("write", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


def run(library: ctypes.CDLL, battery: str, stream: str, *, bits_reversed: bool) -> list[float]:
    """Every p-value of one battery on one stream, printed as a table."""
    state = walk(STREAMS[stream], bits_reversed=bits_reversed)
    name = f"{stream}, {'lowest' if bits_reversed else 'highest'} bits first"
    write = Generator._fields_[-1][1](lambda _: None)
    generator = Generator(
        state.ctypes.data, None, name.encode(), get_u01.address, get_bits.address, write
    )
    getattr(library, f"bbattery_{battery}")(ctypes.byref(generator))
    ctypes.CDLL(None).fflush(None)  # TestU01 prints a summary through C's buffer
    count = ctypes.c_int.in_dll(library, "bbattery_NTests").value
    names = (ctypes.c_char_p * count).in_dll(library, "bbattery_TestNames")
    p_values = list((ctypes.c_double * count).in_dll(library, "bbattery_pVal"))
    for test, p in zip(names, p_values, strict=True):
        mark = "FAILED" if outside(p, FAILURE) else "suspect" if outside(p, SUSPECT) else ""
        print(f"{battery:12}{name:30}{(test or b'').decode():28}{p:12.4g}  {mark}", flush=True)
    return p_values


def outside(p: float, bound: float) -> bool:
    """Whether p is nearer to 0 or to 1 than `bound`."""
    return not bound <= p <= 1 - bound


def main() -> None:
    """Run the batteries asked for; exit status 1 if any p-value is a failure."""
    parser = argparse.ArgumentParser(prog="tests.slow.battery", description=__doc__)
    parser.add_argument("--battery", choices=("SmallCrush", "Crush"), default="SmallCrush")
    parser.add_argument("--stream", choices=STREAMS, nargs="+", default=list(STREAMS))
    parser.add_argument("--bits", choices=("highest", "lowest", "both"), default="both")
    asked = parser.parse_args()
    orders = ("highest", "lowest") if asked.bits == "both" else (asked.bits,)
    try:
        library = ctypes.CDLL("libtestu01.so.0")
    except OSError:
        sys.exit("tests.slow.battery: no TestU01: install Debian's package libtestu01-0 (non-free)")
    ctypes.c_int.in_dll(library, "swrite_Basic").value = 0  # no page of text for each test

    p_values = []
    for stream in asked.stream:
        for order in orders:
            p_values += run(library, asked.battery, stream, bits_reversed=order == "lowest")
    failures = sum(outside(p, FAILURE) for p in p_values)
    suspects = sum(outside(p, SUSPECT) for p in p_values) - failures
    expected = 2 * SUSPECT * len(p_values)
    print(
        f"{len(p_values)} p-values: {failures} failures (outside {FAILURE:g} .. 1 - {FAILURE:g}), "
        f"{suspects} suspects (outside {SUSPECT:g} .. 1 - {SUSPECT:g}; {expected:.1f} by chance)"
    )
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
