"""exp and ln over arrays, compiled so that LLVM turns every loop into vector instructions.

numba alone calls the C library once per element. Both follow fdlibm (Sun Microsystems,
1993), with errors below 1 ulp. Loops that read a number's bits are apart from loops that
write the number: otherwise LLVM must assume that they touch the same memory.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_1_LN2 = 1.44269504088896338700e00
_P1, _P2, _P3 = 1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05
_P4, _P5 = -1.65339022054652515390e-06, 4.13813679705723846039e-08
_L1, _L2, _L3 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01
_L4, _L5, _L6 = 2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01
_L7 = 1.479819860511658591e-01
_ONE, _SQRT_HALF, _MANTISSA = 0x3FF0000000000000, 0x3FE6A09E00000000, 0x000FFFFFFFFFFFFF


@njit(error_model="numpy")
def minus_ln(x, scratch):  # type: ignore[no-untyped-def]
    """x <- -ln x, for normal x above 0. scratch: [2, N] float64."""
    bits = x.view(np.int64)
    exponent, mantissa = scratch[0], scratch[1]
    mantissa_bits = mantissa.view(np.int64)
    for i in range(x.shape[0]):
        shifted = bits[i] + np.int64(_ONE - _SQRT_HALF)
        exponent[i] = float((shifted >> np.int64(52)) - np.int64(1023))
        mantissa_bits[i] = (shifted & np.int64(_MANTISSA)) + np.int64(_SQRT_HALF)
    for i in range(x.shape[0]):
        f = mantissa[i] - 1.0
        s = f / (2.0 + f)
        z = s * s
        w = z * z
        r = w * (_L2 + w * (_L4 + w * _L6)) + z * (_L1 + w * (_L3 + w * (_L5 + w * _L7)))
        half = 0.5 * f * f
        tail = s * (half + r) + exponent[i] * _LN2_LOW
        x[i] = -(exponent[i] * _LN2_HIGH - ((half - tail) - f))


@njit(error_model="numpy")
def exp(x, count, scratch):  # type: ignore[no-untyped-def]
    """x[:count] <- exp x, for x up to 700; 0 below -700, where it would be 1e-304."""
    power = scratch[0]
    power_bits = power.view(np.int64)
    for i in range(count):
        z = min(max(x[i], -700.0), 700.0)
        k = np.floor(z * _1_LN2 + 0.5)
        bits = (np.int64(k) + np.int64(1023)) << np.int64(52)
        power_bits[i] = bits if x[i] >= -700.0 else np.int64(0)
        high, low = z - k * _LN2_HIGH, k * _LN2_LOW
        r = high - low
        t = r * r
        c = r - t * (_P1 + t * (_P2 + t * (_P3 + t * (_P4 + t * _P5))))
        x[i] = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    for i in range(count):
        x[i] *= power[i]
