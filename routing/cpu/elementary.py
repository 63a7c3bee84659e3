"""exp and ln of one number, without a branch: LLVM turns loops of them into vector instructions.

numba alone calls the C library each time. Both follow fdlibm (Sun Microsystems, 1993), with
multiplications and additions fused; `exp` is within 1 ulp, `minus_ln` within 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

f32, i32 = np.float32, np.int32
_LN2, _1_LN2 = float(np.log(2.0)), 1.44269504088896338700e00
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_P1, _P2, _P3 = 1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05
_P4, _P5 = -1.65339022054652515390e-06, 4.13813679705723846039e-08
_L1, _L2, _L3 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01
_L4, _L5, _L6 = 2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01
_L7 = 1.479819860511658591e-01
_ONE, _SQRT_HALF, _MANTISSA = 0x3FF0000000000000, 0x3FE6A09E00000000, 0x000FFFFFFFFFFFFF
_2_52, _2_52_BITS = 2.0**52, 0x4330000000000000


@intrinsic
def bits_of(typing_context, number):
    """The bits of a float64 or float32, as a signed integer of its width."""
    return _reinterpret(number, types.int64 if number.bitwidth == 64 else types.int32)


@intrinsic
def number_of(typing_context, bits):
    """The float64 or float32 that has these bits."""
    return _reinterpret(bits, types.float64 if bits.bitwidth == 64 else types.float32)


def _reinterpret(given: Any, wanted: Any) -> Any:
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(wanted))

    return wanted(given), codegen


@njit(error_model="numpy")
def order_of(number):
    """An int32 in the order of float32: its bits, flipped where it is negative (Herf, "Radix
    tricks", 2001).
    """
    return flipped(bits_of(number))


@njit(error_model="numpy")
def flipped(bits):
    """All bits of a negative int32 but its sign, flipped; its own inverse."""
    return i32(bits ^ i32(i32(bits >> i32(31)) & i32(0x7FFFFFFF)))


@njit(error_model="numpy")
def high_bits(bits, shift, plus):
    """`bits`, without a sign, shifted right, `plus` a number: as a float64, if below 2^52.

    A number n lies in the last bits of 2^52 + n: AVX2 has no instruction that converts.
    """
    n = np.int64(np.uint64(bits) >> np.uint64(shift))
    return number_of(n + _2_52_BITS) - (_2_52 - plus)


@njit(error_model="numpy", fastmath={"contract"})
def minus_ln(x):
    """-ln x, for normal x above 0."""
    shifted = bits_of(x) + (_ONE - _SQRT_HALF)
    exponent = high_bits(shifted, 52, -1023.0)
    mantissa = number_of((shifted & _MANTISSA) + _SQRT_HALF)  # from sqrt(1/2) to sqrt(2)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    r = z * (_L1 + z * (_L2 + z * (_L3 + z * (_L4 + z * (_L5 + z * (_L6 + z * _L7))))))
    return -(exponent * _LN2) - s * (2.0 + r)


@njit(error_model="numpy", fastmath={"contract"})
def exp(x):
    """exp x, for x up to 700; 0 below -700, where it would be 1e-304."""
    z = min(max(x, -700.0), 700.0)
    shifted = z * _1_LN2 + 1.5 * _2_52
    k = shifted - 1.5 * _2_52
    high, low = z - k * _LN2_HIGH, k * _LN2_LOW
    r = high - low
    t = r * r
    c = r - t * (_P1 + t * (_P2 + t * (_P3 + t * (_P4 + t * _P5))))
    power = number_of((bits_of(shifted) + 1023) << 52)
    return power * (1.0 - ((low - (r * c) / (2.0 - c)) - high)) if x >= -700.0 else 0.0


# In float32, with polynomials of least relative error where the argument's exponent is 0.
_C0, _C1, _C2, _C3 = f32(1.0), f32(-0.50000364), f32(0.3333506), f32(-0.24969909)
_C4, _C5, _C6, _C7 = f32(0.19900165), f32(-0.1725083), f32(0.16222581), f32(-0.10106896)
_D0, _D1, _D2 = f32(1.0000001), f32(0.9999997), f32(0.49998894)
_D3, _D4, _D5 = f32(0.16667575), f32(0.041915383), f32(0.0082976548)
_SQRT_HALF_32, _EXPONENT_32 = i32(0x3F3504F3), i32(-1 << 23)
_LN2_32, _1_LN2_32, _1_32, _ROUND_32 = f32(_LN2), f32(_1_LN2), f32(1.0), f32(1.5 * 2.0**23)
_LN2_2_23 = f32(_LN2 * 2.0**-23)


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def split(x):
    """k 2^23 and f of x = 2^k (1 + f), for normal x above 0, 1 + f from sqrt(1/2) to sqrt(2)."""
    bits = bits_of(x)
    exponent = i32(i32(bits - _SQRT_HALF_32) & _EXPONENT_32)
    return exponent, number_of(i32(bits - exponent)) - _1_32


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def rough_minus_ln(exponent, f):
    """-ln x within a millionth of it, of what `split` has made of x; float32.

    Terms are summed in pairs (Estrin's scheme): each waits for fewer others.
    """
    f2 = f * f
    low = (_C0 + f * _C1) + f2 * (_C2 + f * _C3)
    high = (_C4 + f * _C5) + f2 * (_C6 + f * _C7)
    return -(f32(exponent) * _LN2_2_23) - f * (low + f2 * f2 * high)


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def rough_exp(x):
    """exp x within a millionth of it, for x from -87 to 88; float32."""
    shifted = x * _1_LN2_32 + _ROUND_32
    k = shifted - _ROUND_32
    f = x - k * _LN2_32
    f2 = f * f
    r = (_D0 + f * _D1) + f2 * ((_D2 + f * _D3) + f2 * (_D4 + f * _D5))
    return r * number_of(i32(i32(bits_of(shifted) + i32(127)) << i32(23)))
