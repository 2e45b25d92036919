"""Philox4x32-10 into a buffer of words, many counters side by side.

The four words of a counter go to four rows of the buffer, so that every store of the loop is contiguous. The rounds are
written out: a loop over rounds, or a call that is not inlined, would keep the outer loop scalar.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu.jit import inline, kernel
from fpsim.random_bits import MULTIPLIER_0, MULTIPLIER_1, WEYL_0, WEYL_1

_M0, _M1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1)
_W0, _W1 = np.uint64(WEYL_0), np.uint64(WEYL_1)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_SIXTEEN = np.uint64(16)
_UPPER = np.uint64(0xFFFF0000)


@inline
def _round(x0: Any, x1: Any, x2: Any, x3: Any, k0: Any, k1: Any) -> Any:
    p0 = x0 * _M0
    p1 = x2 * _M1
    return (p1 >> _HALF) ^ x1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ x3 ^ k1, p0 & _LOW


@inline
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, key0: Any, key1: Any) -> Any:
    """The four words of a counter. A loop that inlines this works out the keys of the rounds once."""
    k1_0, k1_1 = (key0 + _W0) & _LOW, (key1 + _W1) & _LOW
    k2_0, k2_1 = (k1_0 + _W0) & _LOW, (k1_1 + _W1) & _LOW
    k3_0, k3_1 = (k2_0 + _W0) & _LOW, (k2_1 + _W1) & _LOW
    k4_0, k4_1 = (k3_0 + _W0) & _LOW, (k3_1 + _W1) & _LOW
    k5_0, k5_1 = (k4_0 + _W0) & _LOW, (k4_1 + _W1) & _LOW
    k6_0, k6_1 = (k5_0 + _W0) & _LOW, (k5_1 + _W1) & _LOW
    k7_0, k7_1 = (k6_0 + _W0) & _LOW, (k6_1 + _W1) & _LOW
    k8_0, k8_1 = (k7_0 + _W0) & _LOW, (k7_1 + _W1) & _LOW
    k9_0, k9_1 = (k8_0 + _W0) & _LOW, (k8_1 + _W1) & _LOW
    x0, x1, x2, x3 = _round(c0, c1, c2, c3, key0, key1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k1_0, k1_1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k2_0, k2_1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k3_0, k3_1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k4_0, k4_1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k5_0, k5_1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k6_0, k6_1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k7_0, k7_1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k8_0, k8_1)
    x0, x1, x2, x3 = _round(x0, x1, x2, x3, k9_0, k9_1)
    return x0, x1, x2, x3


@kernel
def fill_words(
    words: Any, base: Any, stride: Any, c0: Any, c1: Any, c2: Any, c3: Any, key0: Any, key1: Any, n: Any
) -> None:
    """words[base + j * stride + i] = word j of the counter (c0[i], c1, c2[i], c3), for i < n.

    ``c0`` and ``c2`` are uint64 arrays of 32-bit values; the rest are uint64 scalars.
    """
    second, third, fourth = base + stride, base + stride + stride, base + stride + stride + stride
    c1, c3 = c1 & _LOW, c3 & _LOW
    for i in range(n):
        # The masks change nothing; they tell the compiler that a product of 32 by 32 bits will do.
        x0, x1, x2, x3 = _philox(c0[i] & _LOW, c1, c2[i] & _LOW, c3, key0 & _LOW, key1 & _LOW)
        words[base + i] = x0
        words[second + i] = x1
        words[third + i] = x2
        words[fourth + i] = x3


def _blocks(halves: bool) -> Any:
    """The draws of blocks of an array function one after another, each in the upper bits of a word.

    In a block: word j of the counter 64 block + i at 64 j + i; ``halves``: its lower half there, in the upper half of a
    word, and its upper half at 256 + 64 j + i.
    """
    length = np.uint64(512 if halves else 256)

    @kernel
    def fill(words: Any, first: Any, blocks: Any, key0: Any, key1: Any) -> None:
        for k in range(blocks):
            block, at = first + k, k * length
            low, high = (block << np.uint64(6)) & _LOW, block >> np.uint64(26)
            for i in range(np.uint64(64)):
                # The mask changes nothing; it tells the compiler that a product of 32 by 32 bits will do.
                x0, x1, x2, x3 = _philox((low + i) & _LOW, high, np.uint64(0), np.uint64(0), key0, key1)
                place = at + i
                if halves:
                    words[place] = (x0 << _SIXTEEN) & _LOW
                    words[place + np.uint64(64)] = (x1 << _SIXTEEN) & _LOW
                    words[place + np.uint64(128)] = (x2 << _SIXTEEN) & _LOW
                    words[place + np.uint64(192)] = (x3 << _SIXTEEN) & _LOW
                    words[place + np.uint64(256)] = x0 & _UPPER
                    words[place + np.uint64(320)] = x1 & _UPPER
                    words[place + np.uint64(384)] = x2 & _UPPER
                    words[place + np.uint64(448)] = x3 & _UPPER
                else:
                    words[place] = x0
                    words[place + np.uint64(64)] = x1
                    words[place + np.uint64(128)] = x2
                    words[place + np.uint64(192)] = x3

    return fill


fill_words_of_blocks = _blocks(False)
fill_halves_of_blocks = _blocks(True)
