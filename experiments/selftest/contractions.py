"""A batch of matrix products, dot products and sums with a drawn accumulator, against ``fpsim.exact_accumulate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fpsim
from experiments.selftest.formats import drawn_format, drawn_modes
from experiments.selftest.outcome import Mismatch, Outcome, error_of, literal, shown
from fpsim.exact_accumulate import accumulate
from fpsim.formats import format as named_format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding

ROWS, COLUMNS, LONGEST = 3, 5, 24
BINARY32 = named_format("binary32")


def check(generator: np.random.Generator, formats: Sequence[str], modes: Sequence[Rounding]) -> Outcome:
    """A product of 3 x n and n x 5 numbers and the sums of the columns of the second."""
    how = drawn_accumulator(generator, formats, modes)
    key = Key(int(generator.integers(0, 1 << 63)))
    n = int(generator.integers(0, LONGEST + 1))
    single = bool(BINARY32.holds(how.result) and generator.integers(2))
    a, b = (_drawn_matrix(generator, shape, how, single) for shape in ((ROWS, n), (n, COLUMNS)))
    outcome = Outcome()
    products = [
        accumulate(list(zip(row.tolist(), column.tolist(), strict=True)), how, key, i * COLUMNS + j)
        for i, row in enumerate(a)
        for j, column in enumerate(b.T)
    ]
    sums = [accumulate([(x,) for x in column.tolist()], how, key, j) for j, column in enumerate(b.T)]

    def describe(name: str, i: int, got: str, expected: str) -> Mismatch:
        column = b[:, i % COLUMNS].tolist()
        operands = (*shown(a[i // COLUMNS].tolist()), *shown(column)) if name == "matmul" else shown(column)
        given = [f"np.array({literal(x.tolist())}, np.{x.dtype}).reshape{x.shape}" for x in (a, b)]
        call = f"fpsim.matmul({given[0]}, {given[1]}, {literal(how)}, key={literal(key)})"
        if name == "sum":
            call = f"fpsim.sum({given[1]}, {literal(how)}, key={literal(key)}, axis=0)"
        return Mismatch("contractions", operands, how.result.name, "", None, got, expected, f"{call}.ravel()[{i}]")

    calls: dict[str, tuple[Any, list[float]]] = {
        "matmul": (lambda: fpsim.matmul(a, b, how, key=key), products),
        "sum": (lambda: fpsim.sum(b, how, key=key, axis=0), sums),
    }
    for name, (call, expected) in calls.items():
        try:
            got = np.asarray(call()).ravel()
        except Exception as error:
            outcome.failed(len(expected), describe(name, 0, error_of(error), expected[0].hex()))
            continue
        outcome.compare(
            got,
            expected,
            lambda i, name=name, got=got, expected=expected: describe(name, i, float(got[i]).hex(), expected[i].hex()),
        )
    return outcome


def drawn_accumulator(
    generator: np.random.Generator, formats: Sequence[str], modes: Sequence[Rounding]
) -> fpsim.Accumulator:
    def mode() -> Rounding:
        return drawn_modes(generator, modes, 1)[0]

    order = str(generator.choice(["sequential", "sequential", "blocked", "pairwise", "kahan"]))
    fused = order in ("sequential", "blocked") and bool(generator.integers(2))
    more: dict[str, Any] = {}
    if order == "blocked":
        more["block"] = int(generator.integers(1, 9))
        if generator.integers(2):
            more |= {"master": drawn_format(generator, formats), "master_rounding": mode()}
    total = drawn_format(generator, formats)
    product = total if generator.integers(2) else drawn_format(generator, formats)
    return fpsim.Accumulator(
        None if fused else product,
        total,
        order=order,  # type: ignore[arg-type]
        fma=fused,
        product_rounding=mode(),
        sum_rounding=mode(),
        **more,
    )


def _drawn_matrix(generator: np.random.Generator, shape: tuple[int, int], how: fpsim.Accumulator, single: bool) -> Any:
    """Near one, on the grid of the sum, and in one of four cases with an infinity, a NaN, a zero or something huge."""
    x = generator.standard_normal(shape)
    way = generator.integers(4)
    if way == 1:
        x *= np.exp2(generator.integers(-40, 40, shape))
    if way >= 2:
        x = fpsim.round(x, how.sum, dtype=np.float64)
    if x.size and generator.integers(4) == 0:
        spot = generator.integers(x.size)
        x.flat[spot] = generator.choice([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e300, how.sum.max, 5e-324])
    with np.errstate(over="ignore"):
        return x.astype(np.float32) if single else x
