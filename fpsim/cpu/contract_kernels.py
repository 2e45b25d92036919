"""Sums of products lane by lane, both roundings of a step in one loop: the fast path of ``contract``.

For one lane, s[j] = rd(s[j] + rd(m[k, j] v[k])) for k = 1, 2, ..., from s[j] = rd(m[0, j] v[0]): the number v[k] stays
in a register, and neighbouring j are neighbours in memory, in whole pairs of vectors (SIDE).

What is computed is ``operation_elements.compute``, in tier PLAIN or ODD, and ``rounding_elements.magnitude``. ODD
serves where PLAIN is proven, too: what PLAIN computes is exact, and then there is no residual, or is a sum to nearest
of p <= 24 bits in the range of ODD.

``rounded`` would compare every result with the largest number of its format. Here the greatest magnitude is kept:
where it is not beyond the largest number, no result was, and no operand was infinite or NaN, because such operands
give results with the greatest bits of all. Then all results are right. Where it is beyond, the kernels say so, and the
caller computes everything again by the general path.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import SIGN, ZERO, from_bits, to_bits
from fpsim.cpu.jit import inline, kernel
from fpsim.cpu.operation_elements import compute
from fpsim.cpu.random_words import _philox
from fpsim.cpu.rounding_elements import ADDED, LARGEST, draw_of, magnitude

SIDE = 16  # n is a multiple of that: two vectors of eight numbers, without a rest
_SIDE = np.uint64(SIDE)
_LOW = np.uint64(0xFFFFFFFF)


@inline
def _bounded(mode: int, x: float, row: Any, draw: Any, greatest: Any) -> Any:
    """x rounded, and the greater one of ``greatest`` and the bits of its magnitude."""
    bits = to_bits(x)
    size = to_bits(magnitude(mode, bits, row, draw))
    return from_bits(size | (bits & SIGN)) + row[ADDED], max(greatest, size)


@inline
def _beyond(greatest: Any, row: Any) -> Any:
    return int(greatest > to_bits(row[LARGEST]))


def _chain(product: int, total: int, mode: int) -> Any:
    @kernel
    def chain(
        registers: Any, rows: Any, factors: Any, s: Any, first: int, last: int, n: Any, of_product: Any, of_sum: Any
    ) -> Any:
        """The terms first .. last - 1; row k begins at ``rows[k]``. Returns whether a result is beyond."""
        high, high_sum = ZERO, ZERO
        for k in range(first, last):
            at, v = np.uint64(rows[k]), factors[k]
            for begin in range(ZERO, n, _SIDE):
                if k == 0:
                    for i in range(_SIDE):
                        j = begin + i
                        x, _ = compute(codes.MUL, product, mode, registers[at + j], v, v)
                        s[j], high = _bounded(mode, x, of_product, ZERO, high)
                else:
                    for i in range(_SIDE):
                        j = begin + i
                        x, _ = compute(codes.MUL, product, mode, registers[at + j], v, v)
                        t, high = _bounded(mode, x, of_product, ZERO, high)
                        x, _ = compute(codes.ADD, total, mode, s[j], t, t)
                        s[j], high_sum = _bounded(mode, x, of_sum, ZERO, high_sum)
        return _beyond(high, of_product) + _beyond(high_sum, of_sum)

    return chain


@kernel
def draw_words(
    words: Any, base: Any, stride: Any, first: Any, by: Any, c1: Any, c2: Any, c3: Any, key0: Any, key1: Any, n: Any
) -> None:
    """words[base + w * stride + j] = word w of the counter (first + j * by mod 2^32, c1, c2, c3)."""
    second, third, fourth = base + stride, base + stride + stride, base + stride + stride + stride
    for begin in range(ZERO, n, _SIDE):
        for i in range(_SIDE):
            j = begin + i
            x0, x1, x2, x3 = _philox((first + j * by) & _LOW, c1, c2, c3, key0, key1)
            words[base + j] = x0
            words[second + j] = x1
            words[third + j] = x2
            words[fourth + j] = x3


@kernel
def random_step(
    registers: Any, at: Any, v: float, s: Any, fresh: bool, n: Any, of_product: Any, of_sum: Any, words: Any,
    at_product: Any, left_product: Any, right_product: Any, at_sum: Any, left_sum: Any, right_sum: Any,
) -> Any:  # fmt: skip
    """One k in mode STOCHASTIC, both in tier ODD; ``fresh``: s is yet to begin."""
    high, high_sum = ZERO, ZERO
    for begin in range(ZERO, n, _SIDE):
        if fresh:
            for i in range(_SIDE):
                j = begin + i
                x, _ = compute(codes.MUL, codes.ODD, codes.STOCHASTIC, registers[at + j], v, v)
                draw = draw_of(words[at_product + j], left_product, right_product)
                s[j], high = _bounded(codes.STOCHASTIC, x, of_product, draw, high)
        else:
            for i in range(_SIDE):
                j = begin + i
                x, _ = compute(codes.MUL, codes.ODD, codes.STOCHASTIC, registers[at + j], v, v)
                draw = draw_of(words[at_product + j], left_product, right_product)
                t, high = _bounded(codes.STOCHASTIC, x, of_product, draw, high)
                x, _ = compute(codes.ADD, codes.ODD, codes.STOCHASTIC, s[j], t, t)
                draw = draw_of(words[at_sum + j], left_sum, right_sum)
                s[j], high_sum = _bounded(codes.STOCHASTIC, x, of_sum, draw, high_sum)
    return _beyond(high, of_product) + _beyond(high_sum, of_sum)


nearest = _chain(codes.ODD, codes.PLAIN, codes.NEAREST_EVEN)
nearest_odd = _chain(codes.ODD, codes.ODD, codes.NEAREST_EVEN)
toward_zero = _chain(codes.ODD, codes.ODD, codes.TOWARD_ZERO)
