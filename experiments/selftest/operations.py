"""A batch of one array function: drawn operands, format, dtype, layout; some modes that share the exact results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

import fpsim
from experiments.selftest import arguments
from experiments.selftest.cases import extremes, special
from experiments.selftest.formats import border_formats, drawn_format, drawn_modes, lowest_quotient
from experiments.selftest.outcome import Mismatch, Outcome, error_of, literal, shown
from experiments.selftest.ties import OPERANDS, Ties
from fpsim import exact
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import Rounding, random_bits

KINDS = tuple(OPERANDS)
ELEMENTARY = arguments.KINDS
FUNCTIONS = {"min": "minimum", "max": "maximum", "abs": "absolute", "neg": "negative"}
MODES = 4  # of a batch
RANGED = ("add", "sub", "mul", "div", "sqrt", "fma")  # whose kernels depend on what operands are declared as
BINARY32, BINARY64 = named_format("binary32"), named_format("binary64")


@dataclass(frozen=True)
class Call:
    """An array function, as it is called: ``size`` elements that repeat the rows of operands.

    declared : what the operands are declared as, one for each; or none
    places : where each row's result is looked at, if it depends on the place
    layout : "plain", "in place" (the result overwrites the first operand), "strided" (every second element of a longer
        array), or "scalar" (the last operand is one number)
    """

    kind: str
    rows: list[tuple[float, ...]]
    fmt: Format
    declared: tuple[Format, ...]
    dtype: str
    layout: str
    size: int
    places: npt.NDArray[np.int64]
    key: Key

    def words(self, mode: Rounding) -> list[Any]:
        """The random words of the rows, at their places."""
        n = random_bits(mode)
        return [int(word) for word in array_draw(self.key, self.places, n)] if n else [None] * len(self.places)

    def run(self, mode: Rounding) -> npt.NDArray[Any]:
        columns: list[Any] = []
        for i, column in enumerate(zip(*self.rows, strict=True)):
            x = np.resize(np.array(column, dtype=self.dtype), self.size)
            if self.layout == "scalar" and i == len(self.rows[0]) - 1:
                x = x[:1].reshape(())
            elif self.layout == "strided":
                x = np.repeat(x, 2)[::2]
            columns.append(x)
        out = columns[0] if self.layout == "in place" else None
        result: npt.NDArray[Any] = getattr(fpsim, FUNCTIONS.get(self.kind, self.kind))(
            *columns, self.fmt, mode, self.key if random_bits(mode) else None, out=out, **self._declared()
        )
        return result

    def _declared(self) -> dict[str, Any]:
        return {"operands": self.declared} if self.declared else {}

    def text(self, mode: Rounding, place: int) -> str:
        """The call with one row of operands at all places. ``place`` names the random word."""
        row = self.rows[place % len(self.rows)]
        given = [f"np.full({self.size}, {literal(x)}, np.{self.dtype})" for x in row]
        if self.layout == "scalar":
            given[-1] = f"np.{self.dtype}({literal(row[-1])})"
        given += [literal(self.fmt), literal(mode)]
        given += [literal(self.key)] if random_bits(mode) else []
        given += [f"{name}={literal(value)}" for name, value in self._declared().items()]
        return f"fpsim.{FUNCTIONS.get(self.kind, self.kind)}({', '.join(given)})[{place}]"


def check(
    kind: str, generator: np.random.Generator, count: int, formats: Sequence[str], modes: Sequence[Rounding]
) -> Outcome:
    """``count`` rows of operands in ``MODES`` modes, or all of fewer."""
    chosen = drawn_modes(generator, modes, MODES)
    call = drawn_call(kind, generator, count, formats, chosen[generator.integers(len(chosen))])
    values = [exact.value(kind, row) for row in call.rows]
    outcome = Outcome()
    for mode in chosen:
        n = random_bits(mode)
        words = call.words(mode)
        right = [exact.round_value(value, call.fmt, mode, word) for value, word in zip(values, words, strict=True)]
        # Without random words every copy of a row gives the same: all places are compared, and count once.
        seen = call.places if n else np.arange(call.size)
        expected = np.array(right) if n else np.resize(right, call.size)

        def describe(i: int, got: Any, call_of: Any = (mode, words, seen, expected)) -> Mismatch:
            mode, words, seen, expected = call_of
            place, told = int(seen[i]), got if isinstance(got, str) else float(got[i]).hex()
            row = call.rows[place % count]
            given = (kind, shown(row), call.fmt.name, str(mode), words[place % count])
            return Mismatch(*given, told, float(expected[i]).hex(), call.text(mode, place))

        try:
            got = call.run(mode)[seen]
        except Exception as error:  # a call that should work and does not is what this program looks for
            outcome.failed(count, describe(0, error_of(error)))
            continue
        outcome.compare(got, expected, partial(describe, got=got), count)
    return outcome


def drawn_call(kind: str, generator: np.random.Generator, count: int, formats: Sequence[str], mode: Rounding) -> Call:
    """What is called; the operands are the harder ones for ``mode``."""
    width = OPERANDS.get(kind, 2 if kind == "pow" else 1)
    fmt = drawn_format(generator, formats)
    declared: tuple[Format, ...] = ()
    lanes = 53
    way = 0 if kind == "round" else generator.integers(5)
    if way == 1:
        declared = (fmt,) * width
    elif way == 2:
        declared = (drawn_format(generator, formats),) * width
    elif way >= 3 and kind in RANGED:
        if kind in ("add", "sub") and not formats and generator.integers(4) == 0:
            # Where the sum of two numbers of the result's format first has a nearest number that binary64 misses.
            fmt, mode = Format(8, int(generator.integers(21, 31))), "nearest_even"
        if kind == "div" and not formats and generator.integers(4) == 0:
            fmt, declared = lowest_quotient(generator, mode)
        else:
            if kind != "fma" and not formats and generator.integers(3) == 0:
                lanes, fmt = 24, Format(int(generator.choice([5, 8])), int(generator.integers(1, 13)))
            declared = border_formats(kind, generator, fmt, mode, width, lanes)
    holds = all(BINARY32.holds(one) for one in (fmt, *declared))
    single = holds and (lanes == 24 or bool(generator.integers(2)))
    dtype = "float32" if single else "float64"
    longer = int(generator.choice([1, 1, 3, 9, 33]))
    size = count * longer + (int(generator.integers(0, count)) if longer > 1 else 0)
    places = np.arange(count) + generator.integers(0, longer, count) * count
    layouts = ["plain", "plain", "in place", "strided", "scalar"][: 5 if width > 1 else 4]
    layout = str(generator.choice(layouts))
    key = Key(int(generator.integers(0, 1 << 63)))
    call = Call(kind, [], fmt, declared, dtype, layout, size, places, key)
    rows = drawn_rows(kind, generator, call, mode)
    with np.errstate(over="ignore"):
        rows = [tuple(float(x) for x in np.array(row, dtype=dtype)) for row in rows]
    if declared:
        rows = [
            tuple(exact.operation("round", (x,), one, "nearest_even") for x, one in zip(row, declared, strict=True))
            for row in rows
        ]
    if layout == "scalar":
        rows = [(*row[:-1], rows[-1][-1]) for row in rows]
    if single and kind in (*RANGED, "round") and generator.integers(4):
        rows = _moderate(kind, rows, fmt)
    return replace(call, rows=rows)


def _moderate(kind: str, rows: list[tuple[float, ...]], fmt: Format) -> list[tuple[float, ...]]:
    """Those that 32-bit lanes keep, repeated: one case that needs the wide lanes takes its block of 1024 along."""

    def stays(row: tuple[float, ...]) -> bool:
        value = exact.value(kind, row)
        if value.kind != "finite" or value.magnitude > min(fmt.max, 2.0**126):
            return False
        return all(x == 0 or abs(x) >= 2.0**-100 for x in (*row, value.magnitude))

    kept = [row for row in rows if stays(row)] or rows
    return [kept[i % len(kept)] for i in range(len(rows))]


def drawn_rows(kind: str, generator: np.random.Generator, call: Call, mode: Rounding) -> list[tuple[float, ...]]:
    """Operands of all sorts, mixed; for each place."""
    count, fmt = len(call.places), call.fmt
    width = OPERANDS.get(kind, 2 if kind == "pow" else 1)
    own = call.declared or (BINARY32 if call.dtype == "float32" else BINARY64,) * width
    sorts = [_patterns, _sizes, _near_one, _grid, _edges, _ends]
    rows: list[tuple[float, ...]] = []
    for i in generator.integers(0, len(sorts), 2):
        columns = [sorts[i](generator, (count // 4,), one if call.declared or i == 5 else fmt).tolist() for one in own]
        rows += zip(*columns, strict=True)
    missing = count - len(rows)
    ties = Ties(fmt, mode, own, generator)
    if kind in ELEMENTARY:
        return rows + _hard_elementary(kind, generator, missing, ties)
    words = call.words(mode)
    for i in range(len(rows), count):
        ties.word = words[i] or 0
        rows.append(ties.of(kind))
    return rows


def _patterns(generator: np.random.Generator, shape: tuple[int, ...], fmt: Format) -> npt.NDArray[np.float64]:
    """Random bits of binary64, or of binary32: every exponent alike, and NaN among them."""
    if generator.integers(2):
        return generator.integers(0, 1 << 64, shape, dtype=np.uint64).view(np.float64)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return generator.integers(0, 1 << 32, shape, dtype=np.uint64).astype(np.uint32).view(np.float32).astype(float)


def _sizes(generator: np.random.Generator, shape: tuple[int, ...], fmt: Format) -> npt.NDArray[np.float64]:
    """All sizes that the format has, and a little beyond."""
    low, high = fmt.emin - fmt.mantissa_bits - 4, fmt.emax + 4
    exponents = generator.uniform(max(low, -1074), min(high, 1023), shape)
    return np.exp2(exponents) * generator.choice([-1.0, 1.0], shape)


def _near_one(generator: np.random.Generator, shape: tuple[int, ...], fmt: Format) -> npt.NDArray[np.float64]:
    return np.asarray(generator.standard_normal(shape) * np.exp2(generator.integers(-12, 12, shape)))


def _ends(generator: np.random.Generator, shape: tuple[int, ...], fmt: Format) -> npt.NDArray[np.float64]:
    """Close to the smallest, the smallest normal and the largest number of the operand's format."""
    m = fmt.mantissa_bits
    ends = [fmt.emin - m, fmt.emin - m + 1, fmt.emin - 1, fmt.emin, fmt.emin + 1, fmt.emax - 1, fmt.emax, fmt.emax]
    middle = [(fmt.emin - m) // 2, fmt.emin // 2, fmt.emax // 2, fmt.emax // 2 + 1, 0, 0]
    exponents = np.clip(generator.choice([*ends, *ends, *middle], shape), -1074, 1023)
    size: npt.NDArray[np.float64] = np.ldexp(generator.uniform(1.0, 2.0, shape), exponents.astype(np.int64))
    return size * generator.choice([-1.0, 1.0], shape)


def _grid(generator: np.random.Generator, shape: tuple[int, ...], fmt: Format) -> npt.NDArray[np.float64]:
    """Codes of the format, every one alike."""
    return fpsim.decode(generator.integers(0, 1 << fmt.bits, shape, dtype=np.uint64), fmt)


def _edges(generator: np.random.Generator, shape: tuple[int, ...], fmt: Format) -> npt.NDArray[np.float64]:
    """Zeros, infinities, NaN, the ends of the format and of binary64 with their neighbours."""
    return generator.choice(np.array([*special(fmt), *special(fmt), *extremes()]), shape)


def _hard_elementary(kind: str, generator: np.random.Generator, count: int, ties: Ties) -> list[tuple[float, ...]]:
    """Published hard cases and edges; all sizes; arguments whose result is next to a tie."""
    seed = int(generator.integers(1 << 32))
    rows = list(zip(*(x.tolist() for x in arguments.random_arguments(kind, count, seed)), strict=True))
    known: list[tuple[float, ...]] = list(arguments.POWERS)
    if kind != "pow":
        known = [(x,) for x in arguments.edges() + arguments.hard(kind)]
    for i in range(count // 2):
        found: tuple[float, ...] | None = known[generator.integers(len(known))]
        if i % 2:
            exponent = float(generator.choice([2.0, 3.0, 0.5, -1.0, 1.5, -0.25, ties.short(53)]))
            found = arguments.with_result(kind, ties.turn(near_one=bool(generator.integers(2))), exponent)
            found = found and (ties.beside(found[0]), *found[1:])
        rows[i] = found or rows[i]
    return [row if all(math.isfinite(x) for x in row) or i % 2 == 0 else (1.5,) * len(row)
            for i, row in enumerate(rows)]  # fmt: skip
