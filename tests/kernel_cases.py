"""Cases and comparisons that the tests of the kernels share: array functions against the specification, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim import arrays, exact
from fpsim.number_format import Format
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import CODES, Rounding, Stochastic, random_bits

KEY = Key(20)
MODES: list[Rounding] = [*CODES, Stochastic(3), Stochastic(16), Stochastic(32), Stochastic(3, "B"), Stochastic(16, "C")]
FUNCTIONS = {
    "round": arrays.round,
    "add": arrays.add,
    "sub": arrays.sub,
    "mul": arrays.mul,
    "div": arrays.div,
    "sqrt": arrays.sqrt,
    "fma": arrays.fma,
}
BINARY = ("add", "sub", "mul", "div")
EDGES = {
    "ieee": "infinity",
    "fn": "nan",
    "fnuz": "nan",
    "none": "saturate_all",
    "p3109_extended": "infinity",
    "p3109_finite": "saturate_all",
}


def bits(x: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    return np.asarray(x, dtype=np.float64).view(np.uint64)


def values_of(fmt: Format) -> list[float]:
    """All numbers of a small format and their negatives, both zeros, infinities and NaN."""
    finite = {
        math.ldexp(n, e - fmt.mantissa_bits)
        for e in range(fmt.emin, fmt.emax + 1)
        for n in range(0 if e == fmt.emin else 1 << fmt.mantissa_bits, 2 << fmt.mantissa_bits)
    }
    if not fmt.subnormals or fmt.tiny == "flush":
        finite = {x for x in finite if x == 0.0 or x >= fmt.smallest_normal}
    finite = {x for x in finite if x <= fmt.max}
    return [*sorted(finite), *sorted(-x for x in finite), math.inf, -math.inf, math.nan]


def compare(
    kind: str,
    cases: Sequence[Sequence[float]],
    fmt: Format,
    modes: Sequence[Rounding] = tuple(MODES),
    declared: Format | None = None,
) -> None:
    """The array function equals the specification in every mode; the exact result is computed once."""
    columns = [np.array(column) for column in zip(*cases, strict=True)]
    results = [exact.value(kind, case) for case in cases]
    for mode in modes:
        n = random_bits(mode)
        words = [int(r) for r in array_draw(KEY, np.arange(len(cases)), n)] if n else [None] * len(cases)
        expected = [exact.round_value(value, fmt, mode, word) for value, word in zip(results, words, strict=True)]
        extra = {} if kind == "round" else {"operands": declared}
        got = FUNCTIONS[kind](*columns, fmt, mode, KEY if n else None, dtype=np.float64, **extra)
        wrong = np.flatnonzero(bits(got) != bits(expected))
        assert not len(wrong), (
            f"{kind} {fmt.name} {mode}: {len(wrong)} wrong; "
            f"{cases[wrong[0]]} gave {got[wrong[0]]}, not {expected[wrong[0]]}"
        )


def small_formats(*widths: int) -> list[Format]:
    """Every signed format of these widths, with every way to spend its top codes."""
    return [
        fmt
        for width in widths
        for e in range(1, width)
        for specials, overflow in EDGES.items()
        for fmt in _possible(e, width - 1 - e, specials=specials, overflow=overflow)
    ]


def rare_formats(*widths: int) -> list[Format]:
    """Unsigned formats of these widths, those without a zero, and signed ones with the rarer choices."""
    found = []
    for width in widths:
        for e in range(1, width + 1):
            for specials, overflow in {**EDGES, "nan_only": "nan"}.items():
                found += _possible(e, width - e, specials=specials, overflow=overflow, signed=False)
            for overflow in ("saturate", "saturate_all", "nan"):
                found += _possible(e, width - e, specials="p3109_extended", overflow=overflow, signed=False)
                found += _possible(e, width - e, specials="nan_only", overflow=overflow, signed=False)
        for more in ({"parity": "code"}, {"parity": "code", "signed": False}, {"parity": "code", "subnormals": False}):
            for specials, overflow in {**EDGES, "nan_only": "nan"}.items():
                found += _possible(width - more.get("signed", 1), 0, specials=specials, overflow=overflow, **more)
        for specials, overflow in EDGES.items():
            found += _possible(2, width - 3, specials=specials, overflow=overflow, odd_overflow="overflow")
        found += _possible(2, width - 2, specials="fn", overflow="nan", signed=False, tiny="flush")
        found += _possible(2, width - 2, specials="fn", overflow="nan", signed=False, subnormals=False)
    return list(dict.fromkeys(found))


def _possible(*arguments: Any, **more: Any) -> list[Format]:
    try:
        return [Format(*arguments, **more)]
    except ValueError:  # ieee needs two exponent bits and a mantissa bit; not every choice goes with every other
        return []


def exhaust(fmt: Format, dtype: Any = np.float64) -> None:
    """All pairs, every deterministic mode and two random bits; pairs with the same exact result are rounded once.

    Sums and products must be exact in binary64. Two quotients of operands of at most 8 bits that binary64 does not tell
    apart are the same number: different ones are at least 2^-16 of their size apart.
    """
    values = values_of(fmt)
    a, b = (grid.ravel() for grid in np.meshgrid(values, values))
    words = array_draw(KEY, np.arange(len(a)), 2).astype(np.intp)
    operators = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
    for kind, operator in operators.items():
        with np.errstate(all="ignore"):
            approximate = operator(a, b)
        cancels = (approximate == 0.0) & (np.signbit(a) != (np.signbit(b) ^ (kind == "sub")))
        keys = np.where(cancels & (kind in ("add", "sub")), np.uint64(1), bits(approximate))
        _, first, which = np.unique(keys, return_index=True, return_inverse=True)
        number = [exact.value(kind, (float(a[i]), float(b[i]))) for i in first]
        for mode in [*CODES, Stochastic(2)]:
            draws = range(4) if isinstance(mode, Stochastic) else [0]
            rounded = np.array([[exact.round_value(x, fmt, mode, word) for word in draws] for x in number])
            expected = rounded[which, words if isinstance(mode, Stochastic) else 0]
            got = FUNCTIONS[kind](
                a.astype(dtype), b.astype(dtype), fmt, mode, KEY, operands=fmt if fmt.signed else None
            )
            assert (bits(got) == bits(expected)).all(), (kind, mode)
