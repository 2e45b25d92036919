"""Sums of products lane by lane, both roundings of a step in one loop: the fast path of ``contract``.

For one lane, s[j] = rd(s[j] + rd(m[k, j] v[k])) for k = 1, 2, ..., from s[j] = rd(m[0, j] v[0]): the number v[k] stays
in a register, and neighbouring j are neighbours in memory. What is computed is ``operation_elements.compute`` in tier ODD
and ``rounding_elements.rounded``, as in every other kernel. ODD is right wherever PLAIN is: a result that is exact has no
residual, and a sum to nearest of numbers of the result's grid is within the range in which residuals are exact. PLAIN
is the cheaper one.

``rounded`` leaves open what becomes of infinities and NaN, and counts them with the results beyond the largest number.
The kernels return that count; where it is not zero, the caller computes everything again by the general path.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import ZERO
from fpsim.cpu.jit import kernel
from fpsim.cpu.operation_elements import compute
from fpsim.cpu.rounding_elements import draw_of, rounded


SIDE = 16  # n is a multiple of that: two vectors of eight numbers, without a rest
_SIDE = np.uint64(SIDE)


def _chain(product: int, total: int, mode: int) -> Any:
    @kernel
    def chain(
        registers: Any, rows: Any, factors: Any, s: Any, first: int, last: int, n: Any, of_product: Any, of_sum: Any
    ) -> int:
        """The terms first .. last - 1; row k begins at ``rows[k]``."""
        beyond = 0
        for k in range(first, last):
            at, v = np.uint64(rows[k]), factors[k]
            for begin in range(ZERO, n, _SIDE):
                if k == 0:
                    for i in range(_SIDE):
                        j = begin + i
                        x, _ = compute(codes.MUL, product, mode, registers[at + j], v, v)
                        s[j], over = rounded(mode, x, of_product, ZERO)
                        beyond += int(over)
                else:
                    for i in range(_SIDE):
                        j = begin + i
                        x, _ = compute(codes.MUL, product, mode, registers[at + j], v, v)
                        t, over = rounded(mode, x, of_product, ZERO)
                        x, _ = compute(codes.ADD, total, mode, s[j], t, t)
                        s[j], too = rounded(mode, x, of_sum, ZERO)
                        beyond += int(over) + int(too)
        return beyond

    return chain


@kernel
def random_step(
    registers: Any, at: Any, v: float, s: Any, fresh: bool, n: Any, of_product: Any, of_sum: Any, words: Any,
    at_product: Any, left_product: Any, right_product: Any, at_sum: Any, left_sum: Any, right_sum: Any,
) -> int:  # fmt: skip
    """One k in mode STOCHASTIC, both in tier ODD; ``fresh``: s is yet to begin."""
    beyond = 0
    for begin in range(ZERO, n, _SIDE):
        if fresh:
            for i in range(_SIDE):
                j = begin + i
                x, _ = compute(codes.MUL, codes.ODD, codes.STOCHASTIC, registers[at + j], v, v)
                draw = draw_of(words[at_product + j], left_product, right_product)
                s[j], over = rounded(codes.STOCHASTIC, x, of_product, draw)
                beyond += int(over)
        else:
            for i in range(_SIDE):
                j = begin + i
                x, _ = compute(codes.MUL, codes.ODD, codes.STOCHASTIC, registers[at + j], v, v)
                draw = draw_of(words[at_product + j], left_product, right_product)
                t, over = rounded(codes.STOCHASTIC, x, of_product, draw)
                x, _ = compute(codes.ADD, codes.ODD, codes.STOCHASTIC, s[j], t, t)
                draw = draw_of(words[at_sum + j], left_sum, right_sum)
                s[j], too = rounded(codes.STOCHASTIC, x, of_sum, draw)
                beyond += int(over) + int(too)
    return beyond


nearest_plain = _chain(codes.PLAIN, codes.PLAIN, codes.NEAREST_EVEN)
nearest_odd_product = _chain(codes.ODD, codes.PLAIN, codes.NEAREST_EVEN)
nearest_odd = _chain(codes.ODD, codes.ODD, codes.NEAREST_EVEN)
toward_zero = _chain(codes.ODD, codes.ODD, codes.TOWARD_ZERO)
