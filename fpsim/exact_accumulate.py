"""Sums of products in rational arithmetic: the specification of ``accumulator``. One element at a time, and slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fpsim import exact
from fpsim.accumulator import CORRECTION, DIFFERENCE, MASTER, PRODUCT, SUM, TERM, Accumulator
from fpsim.number_format import Format
from fpsim.random_bits import Key, program_draw
from fpsim.rounding import Rounding, random_bits

Slot = tuple[Format, Rounding]


def accumulate(
    terms: Sequence[tuple[float, ...]], accumulator: Accumulator, key: Key | None = None, element: int = 0
) -> float:
    """The sum of ``terms``: pairs to be multiplied, or single numbers to be added.

    ``element`` is the C-order index in the result of a matmul; a dot product is one of a single element.

    Examples
    --------
    >>> accumulate([(1.0, 1.0), (3.0, 2.0**-9)], Accumulator.uniform("bfloat16"))
    1.0078125
    """
    products = any(len(term) == 2 for term in terms)
    drawn = accumulator.drawn_bits(products)

    def rounded(kind: str, operands: Sequence[float], slot: Slot, number: int, step: int) -> float:
        fmt, mode = slot
        bits, word = random_bits(mode), None
        if bits:
            assert key is not None
            word = int(program_draw(key, element, step, 0, number, drawn)) >> (drawn - bits)
        return exact.operation(kind, operands, fmt, mode, word)

    def term(k: int) -> float:
        slot = accumulator.product_slot
        if len(terms[k]) == 1:
            return terms[k][0]
        assert slot is not None
        return rounded("mul", terms[k], slot, PRODUCT, k)

    def sequential(start: int, stop: int) -> float:
        s = 0.0
        for k in range(start, stop):
            if accumulator.fma and len(terms[k]) == 2:
                s = rounded("fma", (*terms[k], s), accumulator.sum_slot, SUM, k)
            else:
                s = rounded("add", (s, term(k)), accumulator.sum_slot, SUM, k)
        return s

    if accumulator.order == "pairwise":
        return _pairwise(len(terms), accumulator.sum_slot, term, rounded)
    if accumulator.order == "kahan":
        return _kahan(len(terms), accumulator.sum_slot, term, rounded)
    if accumulator.order == "sequential":
        return sequential(0, len(terms))
    assert accumulator.block is not None
    total = 0.0
    for j, start in enumerate(range(0, len(terms), accumulator.block)):
        partial = sequential(start, min(start + accumulator.block, len(terms)))
        total = rounded("add", (total, partial), accumulator.master_slot, MASTER, j)
    return total


Rounded = Callable[[str, Sequence[float], Slot, int, int], float]


def _pairwise(n: int, slot: Slot, term: Callable[[int], float], rounded: Rounded) -> float:
    def tree(low: int, high: int) -> float:
        if high - low == 1:
            return term(low)
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        return rounded("add", (tree(low, middle), tree(middle, high)), slot, SUM, middle)

    if n < 2:
        return rounded("add", (0.0, term(0)), slot, SUM, 0) if n else 0.0
    return tree(0, n)


def _kahan(n: int, slot: Slot, term: Callable[[int], float], rounded: Rounded) -> float:
    s = c = 0.0
    for k in range(n):
        y = rounded("sub", (term(k), c), slot, TERM, k)
        u = rounded("add", (s, y), slot, SUM, k)
        d = rounded("sub", (u, s), slot, DIFFERENCE, k)
        c = rounded("sub", (d, y), slot, CORRECTION, k)
        s = u
    return s
