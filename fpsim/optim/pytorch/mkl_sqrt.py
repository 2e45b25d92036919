"""The float32 square root of PyTorch on AMD processors: that of MKL, which is not correctly rounded.

Found by experiment with torch 2.13.0 (MKL 2024.2) on an AMD EPYC (Zen 5), where it holds for all 2^31 non-negative
float32 under every ATEN_CPU_CAPABILITY: normal numbers below 2^128 - 2^116 get Newton's iteration on the processor's
approximate reciprocal square root, without fma; the others are correctly rounded. 17 % of the float32 of [1, 4) have a
result that is off by one unit in the last place, and no error is above 0.75 of a unit. The approximation is the
processor's own: that of another maker has other bits.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

_SMALLEST_NORMAL, _LARGE = np.float32(2.0**-126), np.float32(2.0**128 - 2.0**116)

# The instruction rsqrtps as measured: in units of 2^-13, for a number of [1, 4) in the binade b with significand bits
# hhhhmmmmllll..., it is COARSE[b, h, m] + FINE[b, h, l]. Each row is one pair (b, h).
_COARSE = """
    8184 8168 8152 8137 8121 8105 8090 8075 8059 8044 8029 8014 7999 7984 7969 7955
    7941 7926 7912 7897 7883 7869 7855 7841 7827 7813 7799 7785 7771 7758 7744 7731
    7717 7704 7690 7677 7664 7651 7638 7625 7612 7599 7587 7574 7561 7549 7536 7524
    7512 7500 7487 7475 7463 7451 7439 7427 7415 7403 7392 7380 7368 7357 7345 7334
    7321 7310 7299 7287 7276 7265 7254 7243 7232 7221 7210 7199 7188 7177 7167 7156
    7145 7135 7124 7114 7103 7093 7082 7072 7062 7052 7041 7031 7021 7011 7001 6991
    6982 6972 6962 6952 6942 6933 6923 6913 6904 6894 6885 6875 6866 6856 6847 6838
    6828 6819 6810 6800 6791 6782 6773 6764 6755 6746 6737 6728 6719 6711 6702 6693
    6685 6676 6667 6659 6650 6642 6633 6625 6616 6608 6599 6591 6583 6574 6566 6558
    6550 6542 6534 6526 6518 6510 6502 6494 6486 6478 6470 6462 6454 6447 6439 6431
    6423 6415 6408 6400 6392 6385 6377 6370 6362 6355 6347 6340 6332 6325 6318 6310
    6303 6296 6289 6282 6274 6267 6260 6253 6246 6239 6232 6225 6218 6211 6204 6197
    6189 6182 6175 6169 6162 6155 6148 6141 6135 6128 6121 6115 6108 6101 6095 6088
    6082 6075 6069 6062 6056 6049 6043 6036 6030 6024 6017 6011 6005 5998 5992 5986
    5979 5973 5967 5961 5955 5949 5943 5936 5930 5924 5918 5912 5906 5900 5894 5888
    5883 5877 5871 5865 5859 5854 5848 5842 5836 5830 5825 5819 5813 5807 5802 5796
    5787 5776 5765 5753 5742 5732 5721 5710 5699 5688 5678 5667 5656 5646 5635 5625
    5615 5605 5595 5584 5574 5564 5554 5544 5534 5525 5515 5505 5495 5486 5476 5467
    5457 5447 5438 5429 5419 5410 5401 5392 5383 5374 5365 5356 5347 5338 5329 5320
    5311 5303 5294 5285 5277 5268 5260 5251 5243 5235 5226 5218 5210 5201 5193 5185
    5178 5170 5162 5154 5146 5138 5130 5122 5114 5106 5099 5091 5083 5076 5068 5061
    5053 5046 5038 5031 5023 5016 5009 5001 4994 4987 4980 4972 4965 4958 4951 4944
    4937 4930 4923 4916 4909 4902 4895 4888 4882 4875 4868 4861 4855 4848 4841 4835
    4828 4822 4815 4809 4802 4796 4789 4783 4777 4770 4764 4758 4751 4745 4739 4733
    4727 4721 4715 4709 4703 4697 4691 4685 4679 4673 4667 4661 4655 4649 4643 4638
    4632 4626 4620 4615 4609 4603 4597 4592 4586 4581 4575 4569 4564 4558 4553 4547
    4542 4537 4531 4526 4520 4515 4510 4504 4499 4494 4488 4483 4478 4473 4468 4462
    4456 4451 4446 4441 4436 4431 4426 4421 4416 4411 4406 4401 4396 4391 4386 4381
    4376 4372 4367 4362 4357 4352 4347 4343 4338 4333 4328 4324 4319 4314 4310 4305
    4300 4296 4291 4287 4282 4277 4273 4268 4264 4259 4255 4250 4246 4241 4237 4233
    4228 4224 4219 4215 4211 4206 4202 4198 4193 4189 4185 4181 4176 4172 4168 4164
    4159 4155 4151 4147 4143 4139 4135 4130 4126 4122 4118 4114 4110 4106 4102 4098
"""
_FINE = """
     7  6  5  4  3  2  1  0  0 -1 -2 -3 -4 -5 -6 -7
     6  5  4  3  3  2  1  0 -1 -2 -3 -4 -4 -5 -6 -7
     6  5  4  4  3  2  1  0  0 -1 -2 -3 -4 -5 -5 -6
     5  4  3  3  2  1  1  0 -1 -2 -2 -3 -4 -5 -5 -6
     5  5  4  3  3  2  1  0  0 -1 -2 -2 -3 -4 -4 -5
     5  4  4  3  2  2  1  0  0 -1 -1 -2 -3 -3 -4 -5
     4  4  3  2  2  1  1  0  0 -1 -2 -2 -3 -4 -4 -5
     4  4  3  3  2  2  1  0  0 -1 -1 -2 -2 -3 -4 -4
     4  3  3  2  2  1  1  0  0 -1 -1 -2 -2 -3 -3 -4
     3  3  2  2  1  1  0  0 -1 -1 -2 -2 -3 -3 -4 -4
     3  3  2  2  1  1  0  0  0 -1 -1 -2 -2 -3 -3 -4
     3  2  2  1  1  1  0  0 -1 -1 -2 -2 -3 -3 -3 -4
     3  3  2  2  2  1  1  0  0  0 -1 -1 -2 -2 -3 -3
     3  3  2  2  1  1  1  0  0 -1 -1 -1 -2 -2 -2 -3
     3  3  2  2  2  1  1  0  0  0 -1 -1 -2 -2 -2 -3
     2  2  2  1  1  1  0  0 -1 -1 -1 -2 -2 -2 -3 -3
     5  4  4  3  2  2  1  0  0 -1 -2 -2 -3 -4 -4 -5
     4  4  3  2  2  1  1  0 -1 -1 -2 -3 -3 -4 -5 -5
     4  4  3  2  2  1  1  0  0 -1 -2 -2 -3 -3 -4 -4
     4  4  3  2  2  1  1  0  0 -1 -1 -2 -2 -3 -3 -4
     3  3  2  2  1  1  0  0 -1 -1 -2 -2 -3 -3 -4 -4
     3  2  2  2  1  1  0  0 -1 -1 -2 -2 -3 -3 -3 -4
     3  3  2  2  1  1  1  0  0 -1 -1 -2 -2 -2 -3 -3
     3  3  2  2  1  1  1  0  0 -1 -1 -1 -2 -2 -3 -3
     2  2  2  1  1  0  0  0 -1 -1 -1 -2 -2 -3 -3 -3
     2  2  1  1  1  0  0  0 -1 -1 -1 -2 -2 -2 -3 -3
     2  2  1  1  1  0  0  0 -1 -1 -1 -2 -2 -2 -3 -3
     3  2  2  2  1  1  1  0  0  0 -1 -1 -1 -1 -2 -2
     2  2  2  1  1  1  0  0  0  0 -1 -1 -1 -2 -2 -2
     2  2  2  1  1  1  0  0  0  0 -1 -1 -1 -2 -2 -2
     2  2  1  1  1  1  0  0  0  0 -1 -1 -1 -1 -2 -2
     2  2  1  1  1  1  0  0  0  0 -1 -1 -1 -1 -2 -2
"""


def mkl_sqrt(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The square root of float32 values as MKL computes it on AMD processors.

    In evaluation order, each operation in binary32, with y the approximate reciprocal square root of x to 11.9 bits:
    s <- x y;  s <- s + (s / 2) (1 - s y);  result <- s - (s s - x) / (2 s).
    The second iteration cannot see beyond the rounding of s s: hence results that are not the nearest.

    Parameters
    ----------
    x : float64 array of numbers of binary32

    Examples
    --------
    >>> x = np.array([4.0, -0.0, 3.937500238418579])
    >>> np.diff([mkl_sqrt(x), np.sqrt(x).astype(np.float32)], axis=0).tolist() == [[0.0, 0.0, -(2.0**-23)]]
    True
    """
    given = np.asarray(x, dtype=np.float64)
    single = np.ascontiguousarray(given, dtype=np.float32).reshape(-1)
    result = np.empty(single.shape)
    _kernel()(single, single.view(np.uint32), _reciprocals(), result)
    return result.reshape(given.shape)


@functools.cache
def _kernel() -> Any:
    from fpsim.cpu.jit import entry  # on first use: it loads the compiler

    half, one, least, large = np.float32(0.5), np.float32(1), _SMALLEST_NORMAL, _LARGE

    def roots(x: Any, bits: Any, reciprocals: Any, result: Any) -> None:
        """The approximation is rsqrtps's of a number of [1, 4), times a power of two, for normal numbers."""
        for i in range(x.size):
            single = x[i]
            if least <= single < large:
                # sign | eeeeeee b | hhhhmmmmllll ...: pairs of binades, and twelve bits of the significand
                y = reciprocals[0, bits[i] >> 11 & 8191] * reciprocals[1, bits[i] >> 24]
                s = single * y
                s = s + (half * s) * (one - s * y)
                result[i] = s - (s * s - single) / (s + s)
            else:
                result[i] = math.sqrt(single)

    return entry(roots)


@functools.cache
def _reciprocals() -> npt.NDArray[np.float32]:
    """Row 0: rsqrtps by the last bit of the exponent's field and the place; row 1: powers of two by the other bits.

    A field 2 k + 1 is that of a number of [1, 2) times 4^(k - 63); a field 2 k that of one of [2, 4) times 4^(k - 64),
    for which row 0 holds the missing factor 2.
    """
    coarse, fine = (np.array(text.split(), dtype=np.float32).reshape(32, 16) for text in (_COARSE, _FINE))
    low, high = np.split((coarse[:, :, np.newaxis] + fine[:, np.newaxis, :]).reshape(-1), 2)
    table = np.zeros((2, 8192), dtype=np.float32)
    table[0] = np.ldexp(np.concatenate([2 * high, low]), -13)
    table[1, :128] = np.ldexp(np.float32(1), 63 - np.arange(128))
    return table
