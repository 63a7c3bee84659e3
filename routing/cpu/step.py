"""`routing.step`'s arrays and slots as compiled code sees them: views made from one table of
addresses.

To look up the types of 16 arrays takes numba 0.5 microseconds a call, to make an array of a
tensor 0.6 more: so the kernel gets the address of the table, once made. Views have no owner,
who must live as long: numba counts references to owners, atomically, at every slice and in
every tuple, which took 0.1 microseconds per token.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from routing.step import ARRAYS, SIZES, Array, Slot, Step

_NUM_SIZES: Final = len(SIZES)
_LENGTH: Final = _NUM_SIZES + len(ARRAYS)


def table_of(step: Step, sizes: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """What `step_at` reads: sizes, then addresses. The arrays must be contiguous and live on."""
    assert all(array.flags.c_contiguous for array in step), "a step's array is not contiguous"
    return np.array([*(sizes[letter] for letter in SIZES), *(a.ctypes.data for a in step)])


@intrinsic
def pointer(typing_context, address):
    """An integer as a pointer."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


def _view(place: int, array: Array) -> Any:
    """A compiled function: table -> the array whose address stands at `place`."""
    dtype = np.dtype(array.dtype)
    axes = tuple(SIZES.index(letter) for letter in array.shape)
    first, second, third = (*axes, 0, 0)[:3]

    @njit(inline="always")
    def flat(table):
        return carray(pointer(table[place]), (table[first],), dtype)

    @njit(inline="always")
    def matrix(table):
        return carray(pointer(table[place]), (table[first], table[second]), dtype)

    @njit(inline="always")
    def cube(table):
        shape = (table[first], table[second], table[third])
        return carray(pointer(table[place]), shape, dtype)

    return (flat, matrix, cube)[len(axes) - 1]


def _before(view: Any, rest: Any) -> Any:
    @njit(inline="always")
    def views(table):
        return (view(table), *rest(table))

    return views


@njit(inline="always")
def _views(table):
    return ()


for _place, _array in reversed(list(enumerate(ARRAYS, _NUM_SIZES))):
    _views = _before(_view(_place, _array), _views)


@njit(inline="always")
def step_at(address):
    """The `Step` of a table that stands at an address."""
    table = carray(pointer(address), _LENGTH, np.int64)
    return Step(*_views(table))


def _number(place: int) -> Any:
    @njit(inline="always")
    def number(row):
        return row[place]

    return number


@njit(inline="always")
def _numbers(row):
    return ()


for _place in reversed(range(len(Slot._fields))):
    _numbers = _before(_number(_place), _numbers)


@njit(inline="always")
def slot_at(step, slot):
    """The `Slot` of that number."""
    return Slot(*_numbers(step.slot_numbers[slot]))


@njit(inline="always")
def trace_row(slot, position):
    """The place of a position in the trace that a slot replays; -1 where it holds none."""
    row = position - slot.trace_position
    return row if 0 <= row < slot.trace_tokens else -1


@njit(inline="always")
def trace_experts(slot, row, layer_index, num_layers):
    """[trace_top_k] int16: the experts of a row of the slot's trace, then -1."""
    start = (row * num_layers + layer_index) * slot.trace_top_k
    return carray(pointer(slot.trace_ids + 2 * start), (slot.trace_top_k,), np.int16)


@njit(inline="always")
def trace_was_native(slot, row):
    """Whether the native router chose them."""
    return carray(pointer(slot.trace_native + row), (1,), np.bool_)[0]


def sources() -> int:
    """A checksum of every file that is compiled in. numba renews a cached function when its own
    file changes; as a captured variable this makes it part of the cache's key.
    """
    routing = Path(__file__).parent.parent
    tables = ["policy/keys.py", "policy/modes.py", "counts.py", "step.py"]
    files = [
        *routing.glob("cpu/*.py"),
        *routing.glob("reference/*.py"),
        *map(routing.joinpath, tables),
    ]
    return zlib.crc32(b"".join(file.read_bytes() for file in sorted(files)))
