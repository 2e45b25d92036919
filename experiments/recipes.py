"""Fixed binary64 recipes: exp, log, the logistic function, and normal variates.

Everything that feeds a trajectory is made of + - * / sqrt and bit operations in the order written here, so its bits are
the same on every machine: no libm, no BLAS, no fused multiply-add (LLVM contracts nothing unless told to). Kernels work
on arrays and are called from Python. A kernel compiled into another file would not notice a change here (Numba's cache
keys on one file), so the scalar functions below are inlined in this file only. Philox is frozen and may be shared.

Accuracy, with u = 2^-53. The constants are the proven part; the tests measure what is really lost.

=============  ============================================  =========================================  ============
function       domain                                        proven relative error                      measured
=============  ============================================  =========================================  ============
``exp``        any; normal results                           ``EXP_ERROR`` = 4u                         1.1 ulp
``log``        positive normal numbers                       none claimed (feeds only variates)         0.8 ulp
``sigmoid``    any; clamped at -708                          ``SIGMOID_ERROR`` = 8u, + 2^-1021 absolute  2.2 ulp
``softplus``   any, normal results                           none claimed (only measures)               1.8 ulp
``normal``     53 bits to (-8.3, 8.3)                        none needed: the recipe *is* the law       5.2 ulp
=============  ============================================  =========================================  ============

``exp``: x = n ln2 + r with |r| < 0.3466. n HI is exact (HI has 33 bits, |n| < 2^11) and so is x - n HI; the low part
and the last subtraction leave an absolute error below 0.26u in r, hence 0.26u relative. Horner's rule for
1 + r q: q < 1.2 has an absolute error below 1.5u, so r q one below 0.75u, and the last addition adds at most half an
ulp of the result: below 2.1u altogether, the Taylor remainder r^14/14! (4.2e-18 = 0.04u) included. 4u is claimed.
``sigmoid``: e = exp(-|x|); 1/(1+e) errs by at most 2u + u + u, e/(1+e) by 4u + u + u, to first order. 8u is claimed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from experiments.jit import inline, kernel
from experiments.streams import philox, run_numbers
from fpsim.random_bits import Key

Float64 = npt.NDArray[np.float64]
UInt32 = npt.NDArray[np.uint32]

UNIT = 2.0**-53
EXP_ERROR = 4 * UNIT
SIGMOID_ERROR = 8 * UNIT
SIGMOID_TINY = 2.0**-1021
NORMAL_MAX = 8.3  # |normal| <= Phi^-1(1 - 2^-54) = 8.2924

_STRIP = 1024

_LOG2E = float.fromhex("0x1.71547652b82fep+0")
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_SHIFT = float.fromhex("0x1.8p+52")
_SHIFT_BITS = 0x4338000000000000
_ONE_BITS = 0x3FF0000000000000
_ROOT_HALF_BITS = 0x3FE6A09E667F3BCD
_MANTISSA = (1 << 52) - 1


def _hex(*words: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in words)


# 1/k!, k = 13 .. 4, rounded to nearest (the last three terms are written out)
_EXP = _hex(
    "0x1.6124613a86d09p-33", "0x1.1eed8eff8d898p-29", "0x1.ae64567f544e4p-26", "0x1.27e4fb7789f5cp-22",
    "0x1.71de3a556c734p-19", "0x1.a01a01a01a01ap-16", "0x1.a01a01a01a01ap-13", "0x1.6c16c16c16c17p-10",
    "0x1.1111111111111p-7", "0x1.5555555555555p-5", "0x1.5555555555555p-3",
)  # fmt: skip
# 2/(2k+1), k = 11 .. 1
_LOG = _hex(
    "0x1.642c8590b2164p-4", "0x1.8618618618618p-4", "0x1.af286bca1af28p-4", "0x1.e1e1e1e1e1e1ep-4",
    "0x1.1111111111111p-3", "0x1.3b13b13b13b14p-3", "0x1.745d1745d1746p-3", "0x1.c71c71c71c71cp-3",
    "0x1.2492492492492p-2", "0x1.999999999999ap-2", "0x1.5555555555555p-1",
)  # fmt: skip
# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988), PPND16:
# numerators A, C, E and denominators B, D, F of the centre, the middle and the far tail, highest power first.
_A = _hex(
    "0x1.39a296f7d925ep+11", "0x1.052d26b2e45e4p+15", "0x1.06c1c55b78f20p+16", "0x1.66c3e869b752ap+15",
    "0x1.ad1d8cd4ee71dp+13", "0x1.ece5d2213c0ccp+10", "0x1.0a4888b1a436ep+7", "0x1.b18d91e9eef75p+1",
)  # fmt: skip
_B = _hex(
    "0x1.46a7eca984b69p+12", "0x1.c0e457cb1ae76p+14", "0x1.3317caa64f4bep+15", "0x1.4b772d5d65266p+14",
    "0x1.512322e75c89fp+12", "0x1.5797efdc8b3f7p+9", "0x1.5281b386e1ab5p+5", "0x1p+0",
)  # fmt: skip
_C = _hex(
    "0x1.9615ac0b7ace9p-11", "0x1.744eb6c45ec67p-6", "0x1.ef2abb9b85c37p-3", "0x1.453cc085375b2p+0",
    "0x1.d2ecb1a3d02c4p+1", "0x1.713f71462256ap+2", "0x1.2857748cab19bp+2", "0x1.6c665fde9526ap+0",
)  # fmt: skip
_D = _hex(
    "0x1.20d3f686439e4p-30", "0x1.1f18cbfdf2728p-11", "0x1.f207a7eab17bfp-7", "0x1.2f5123394f040p-3",
    "0x1.61292f23385c9p-1", "0x1.ad278e6526633p+0", "0x1.06cefbb46a449p+1", "0x1p+0",
)  # fmt: skip
_E = _hex(
    "0x1.afb74d693bf93p-23", "0x1.c6ec6cc59e02ap-16", "0x1.45c1908425345p-10", "0x1.b2b41193b4ee7p-6",
    "0x1.2fad9315255cfp-2", "0x1.c8ea6461fa445p+0", "0x1.5daea6e875003p+2", "0x1.aa1b1c13ee526p+2",
)  # fmt: skip
_F = _hex(
    "0x1.269bff1f8c190p-49", "0x1.31446f740b9e0p-23", "0x1.35c2c496374bfp-16", "0x1.9c8bc979dc5d7p-11",
    "0x1.e76f93215462ap-7", "0x1.186eb183443fbp-3", "0x1.331d34fc7d77fp-1", "0x1p+0",
)  # fmt: skip


@intrinsic
def _bits(typing_context, x):  # type: ignore[no-untyped-def]
    """The bit pattern of a binary64 number."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(types.int64))

    return types.int64(types.float64), codegen


@intrinsic
def _number(typing_context, pattern):  # type: ignore[no-untyped-def]
    """The binary64 number with a bit pattern."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.int64), codegen


@inline
def _exp(x):
    x = 710.0 if x > 710.0 else x
    x = -750.0 if x < -750.0 else x
    shifted = x * _LOG2E + _SHIFT  # the low bits of ``shifted`` are the integer n nearest to x / ln 2
    n = shifted - _SHIFT
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    q = _EXP[0]
    q = q * r + _EXP[1]
    q = q * r + _EXP[2]
    q = q * r + _EXP[3]
    q = q * r + _EXP[4]
    q = q * r + _EXP[5]
    q = q * r + _EXP[6]
    q = q * r + _EXP[7]
    q = q * r + _EXP[8]
    q = q * r + _EXP[9]
    q = q * r + _EXP[10]
    q = q * r + 0.5
    q = q * r + 1.0
    y = q * r + 1.0
    # 2^n in two factors, each a normal number although 2^n may not be
    whole = _bits(shifted) - _SHIFT_BITS
    half = whole >> 1
    return (y * _number((half + 1023) << 52)) * _number((whole - half + 1023) << 52)


@inline
def _log(x):
    # x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)), s = f/(2 + f)
    moved = _bits(x) + (_ONE_BITS - _ROOT_HALF_BITS)
    k = float((moved >> 52) - 1023)
    f = _number((moved & _MANTISSA) + _ROOT_HALF_BITS) - 1.0
    s = f / (2.0 + f)
    z = s * s
    q = _LOG[0]
    q = q * z + _LOG[1]
    q = q * z + _LOG[2]
    q = q * z + _LOG[3]
    q = q * z + _LOG[4]
    q = q * z + _LOG[5]
    q = q * z + _LOG[6]
    q = q * z + _LOG[7]
    q = q * z + _LOG[8]
    q = q * z + _LOG[9]
    q = q * z + _LOG[10]
    h = 0.5 * f * f
    return k * _LN2_HIGH - ((h - (s * (h + q * z) + k * _LN2_LOW)) - f)


@inline
def _sigmoid(x):
    a = abs(x)
    a = 708.0 if a > 708.0 else a
    e = _exp(-a)
    top = 1.0 if x >= 0.0 else e
    return top / (1.0 + e)


@inline
def _softplus(x):
    e = _exp(-abs(x))
    one = 1.0 + e
    rest = e - (one - 1.0)  # what the addition lost, exactly
    return (x if x > 0.0 else 0.0) + (_log(one) + rest / one)


@inline
def _near(high, low):
    """The variate of ``_normal`` where -log p <= 25, without a branch: the coefficients are selected."""
    k = (np.int64(high & np.uint32(0xFFFFF)) << 32) | np.int64(low)
    p = (float(k) + 0.5) * 2.0**-53
    q = 0.5 - p  # exact: p is an odd multiple of 2^-54
    centre = q <= 0.425
    r = 0.180625 - q * q if centre else np.sqrt(-_log(p)) - 1.6
    n = _A[0] if centre else _C[0]
    m = _B[0] if centre else _D[0]
    n = n * r + (_A[1] if centre else _C[1])
    m = m * r + (_B[1] if centre else _D[1])
    n = n * r + (_A[2] if centre else _C[2])
    m = m * r + (_B[2] if centre else _D[2])
    n = n * r + (_A[3] if centre else _C[3])
    m = m * r + (_B[3] if centre else _D[3])
    n = n * r + (_A[4] if centre else _C[4])
    m = m * r + (_B[4] if centre else _D[4])
    n = n * r + (_A[5] if centre else _C[5])
    m = m * r + (_B[5] if centre else _D[5])
    n = n * r + (_A[6] if centre else _C[6])
    m = m * r + (_B[6] if centre else _D[6])
    n = n * r + (_A[7] if centre else _C[7])
    m = m * r + 1.0
    size = (q * n if centre else n) / m
    return size if high < np.uint32(0x80000000) else -size


@inline
def _normal(high, low):
    """Sign from the top bit of ``high``; p = (k + 1/2) 2^-53 from its low 20 bits and ``low``; Phi^-1(p) by AS 241."""
    size = _near(high, low)
    if (high & np.uint32(0xFFFFF)) == 0:  # p < 2^-21, the only place where the far tail can be
        t = np.sqrt(-_log((float(low) + 0.5) * 2.0**-53))
        if t > 5.0:
            n, m = 0.0, 0.0
            for i in range(8):
                n = n * (t - 5.0) + _E[i]
                m = m * (t - 5.0) + _F[i]
            size = n / m if high < np.uint32(0x80000000) else -(n / m)
    return size


@kernel
def _exp_kernel(x, out):
    for i in range(x.shape[0]):
        out[i] = _exp(x[i])


@kernel
def _log_kernel(x, out):
    for i in range(x.shape[0]):
        out[i] = _log(x[i])


@kernel
def _sigmoid_kernel(x, out):
    for i in range(x.shape[0]):
        out[i] = _sigmoid(x[i])


@kernel
def _softplus_kernel(x, out):
    for i in range(x.shape[0]):
        out[i] = _softplus(x[i])


@kernel
def _normal_kernel(high, low, out):
    for i in range(high.shape[0]):
        out[i] = _normal(high[i], low[i])


@kernel
def _gaussian_kernel(out, first_step, element, run, sigma, k0, k1):
    high = np.empty(_STRIP, np.uint32)
    low = np.empty(_STRIP, np.uint32)
    for s in range(out.shape[0]):
        step = np.uint64(first_step) + np.uint64(s)
        step_low, step_high = np.uint32(step), np.uint32(step >> np.uint64(32))
        for start in range(0, out.shape[1], _STRIP):
            stop = min(start + _STRIP, out.shape[1])
            elements, runs, row = element[start:stop], run[start:stop], out[s, start:stop]
            tail = 0
            for i in range(stop - start):
                w0, w1, _, _ = philox(elements[i], step_low, runs[i], step_high, k0, k1)
                high[i] = w0
                low[i] = w1
                tail |= (w0 & np.uint32(0xFFFFF)) == 0
            for i in range(stop - start):
                row[i] = sigma * _near(high[i], low[i])
            if tail:  # one strip in 1000; a branch in the loop above would keep it scalar
                for i in range(stop - start):
                    row[i] = sigma * _normal(high[i], low[i])


def _apply(kernel: Callable[..., None], x: npt.ArrayLike, out: Float64 | None) -> Float64:
    values = np.ascontiguousarray(x, dtype=np.float64)
    result = np.empty_like(values) if out is None else out
    if np.may_share_memory(values, result):  # the kernel would be right, but scalar and seven times slower
        raise ValueError("out overlaps x; a separate array is needed")
    kernel(values.reshape(-1), result.reshape(-1))
    return result


def exp(x: npt.ArrayLike, out: Float64 | None = None) -> Float64:
    """e^x elementwise; overflow gives inf, underflow a subnormal number or 0, NaN stays NaN.

    >>> float(exp(np.array([0.5]))[0]).hex()
    '0x1.a61298e1e069cp+0'
    """
    return _apply(_exp_kernel, x, out)


def log(x: npt.ArrayLike, out: Float64 | None = None) -> Float64:
    """Natural logarithm elementwise of positive normal numbers; what it makes of others is not defined."""
    return _apply(_log_kernel, x, out)


def sigmoid(x: npt.ArrayLike, out: Float64 | None = None) -> Float64:
    """1 / (1 + e^-x) elementwise; below -708 the value at -708."""
    return _apply(_sigmoid_kernel, x, out)


def softplus(x: npt.ArrayLike, out: Float64 | None = None) -> Float64:
    """log(1 + e^x) elementwise, accurate relative to its value for x >= -700."""
    return _apply(_softplus_kernel, x, out)


def normal(high: UInt32, low: UInt32) -> Float64:
    """Standard normal variates from pairs of random words (one-dimensional, uint32).

    The sign is the top bit of ``high``, so the law is exactly symmetric and its mean exactly 0. Its variance is below
    that of the normal law but for rounding: cells of equal probability are represented by their midpoint in p, and
    Phi^-1(p)^2 is convex.
    """
    out = np.empty(high.shape, np.float64)
    _normal_kernel(high, low, out)
    return out


def gaussian(key: Key, steps: range, dimension: int, runs: npt.ArrayLike, sigma: float, out: Float64) -> None:
    """Fill ``out`` [len(steps), dimension, len(runs)] with sigma times the normal variates of the counters.

    The variate of (step, element, run) uses words 0 (high) and 1 (low) of the counter (element, step low 32 bits, run,
    step high 32 bits); the product with sigma is rounded once.
    """
    numbers = run_numbers(runs)
    elements = np.repeat(np.arange(dimension, dtype=np.uint32), len(numbers))
    flat = out.reshape(len(steps), dimension * len(numbers))
    everywhere = np.tile(numbers, dimension)
    _gaussian_kernel(flat, np.uint64(steps.start), elements, everywhere, sigma, np.uint32(key.k0), np.uint32(key.k1))
