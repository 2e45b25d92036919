"""The float32 square root of PyTorch on x86: that of MKL's vector mathematics library, which is not correctly rounded.

Found by experiment with torch 2.13.0 (MKL 2024.2) on an AMD EPYC (Zen 5), where it holds for all 2^31 non-negative
float32 under every ATEN_CPU_CAPABILITY: normal numbers below 2^128 - 2^116 get Newton's iteration on the processor's
approximate reciprocal square root, without fma; the others are correctly rounded. 17 % of the results of a binade are
off by one unit in the last place, and no error is above 0.75 of a unit. The approximation is the processor's own: that
of another maker has other bits.
"""

from __future__ import annotations

import functools
import platform
from typing import Any

import numpy as np
import numpy.typing as npt

_SMALLEST_NORMAL, _LARGE = np.float32(2.0**-126), np.float32(2.0**128 - 2.0**116)


def mkl_sqrt(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The square root of float32 values as MKL computes it on this processor.

    In evaluation order, each operation in binary32, with y = rsqrt(x) of at least 11 bits:
    s <- x y;  s <- s + (s / 2) (1 - s y);  result <- s - (s s - x) / (2 s).
    The second iteration cannot see beyond the rounding of s s: hence results that are not the nearest.

    Parameters
    ----------
    x : float64 array of numbers of binary32

    Raises
    ------
    RuntimeError
        The processor is no x86.

    Examples
    --------
    >>> mkl_sqrt(np.array([4.0, -0.0])).tolist() if platform.machine() == "x86_64" else [2.0, -0.0]
    [2.0, -0.0]
    """
    single = np.asarray(x).astype(np.float32)
    with np.errstate(all="ignore"):
        exact = np.sqrt(single)
        y = _rsqrt()(np.ascontiguousarray(single).reshape(-1)).reshape(single.shape)
        s = single * y
        s = s + (np.float32(0.5) * s) * (np.float32(1) - s * y)
        result = s - (s * s - single) / (s + s)
    return np.where((single >= _SMALLEST_NORMAL) & (single < _LARGE), result, exact).astype(np.float64)


@functools.cache
def _rsqrt() -> Any:
    """The processor's instruction rsqrtss on float32 arrays."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise RuntimeError(f"machine {platform.machine()!r} has no rsqrtss; admissible: x86_64")
    import numba
    from llvmlite import ir
    from numba.extending import intrinsic

    @intrinsic  # type: ignore[untyped-decorator]
    def instruction(_: Any, x: Any) -> Any:
        def generate(__: Any, builder: Any, ___: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.FloatType(), 4)
            function = builder.module.declare_intrinsic("llvm.x86.sse.rsqrt.ss", fnty=ir.FunctionType(vector, [vector]))
            first = ir.Constant(ir.IntType(32), 0)
            given = builder.insert_element(ir.Constant(vector, [1.0] * 4), arguments[0], first)
            return builder.extract_element(builder.call(function, [given]), first)

        return numba.float32(numba.float32), generate

    @numba.njit("float32[::1](float32[::1])")  # type: ignore[untyped-decorator]
    def rsqrt(x: Any) -> Any:
        result = np.empty_like(x)
        for i in range(x.size):
            result[i] = instruction(x[i])
        return result

    return rsqrt
