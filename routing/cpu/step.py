"""`routing.step`'s arrays as compiled code sees them: views made from one table of addresses.

To look up the types of 16 arrays takes numba 0.5 microseconds a call, to make an array of a
tensor 0.6 more: so the kernel gets the address of the table, once made. Views have no owner,
who must live as long: numba counts references to owners, atomically, at every slice and in
every tuple, which took 0.1 microseconds per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from routing.step import ARRAYS, SIZES, Array, Step

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
