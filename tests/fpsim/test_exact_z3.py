"""The specification against the floating-point theory of z3: five rounding modes, IEEE-like formats, fma included."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import z3
from oracles import ARITY, assert_same, interesting

from fpsim import exact
from fpsim.codes import decode, encode
from fpsim.formats import format as named
from fpsim.number_format import Format

MODES = {
    "nearest_even": z3.RNE,
    "nearest_away": z3.RNA,
    "toward_zero": z3.RTZ,
    "up": z3.RTP,
    "down": z3.RTN,
}
OPERATIONS = {"add": z3.fpAdd, "sub": z3.fpSub, "mul": z3.fpMul, "div": z3.fpDiv, "fma": z3.fpFMA, "sqrt": z3.fpSqrt}
# z3 has no significand of less than 3 bits: e2m1 and the like stay with MPFR.
SMALL = ["e2m2", "e3m2", "e2m3"]
LARGE = ["float8_e5m2", "e4m3", "bfloat16", "binary16", "e8m10", "binary32"]


def literals(fmt: Format, values: Iterable[float]) -> dict[int, z3.FPRef]:
    sort = z3.FPSort(fmt.exponent_bits, fmt.precision)
    codes = {int(code) for code in encode(np.array(list(values)), fmt)}
    return {code: z3.simplify(z3.fpBVToFP(z3.BitVecVal(code, fmt.bits), sort)) for code in codes}


def result(term: z3.FPRef, fmt: Format) -> float:
    pattern = z3.simplify(z3.fpToIEEEBV(term))
    if not isinstance(pattern, z3.BitVecNumRef):  # z3 leaves the pattern of a NaN open
        assert z3.is_true(z3.simplify(z3.fpIsNaN(term)))
        return float("nan")
    return float(decode(pattern.as_long(), fmt))


def check(fmt: Format, kind: str, cases: Iterable[tuple[float, ...]]) -> None:
    cases = list(cases)
    known = literals(fmt, {x for case in cases for x in case if x == x and x != 0} | {0.0, float("nan")})
    known |= literals(fmt, [-0.0])
    codes = encode(np.array(cases), fmt).tolist()
    ours, theirs, labels = [], [], []
    for operands, code in zip(cases, codes, strict=True):
        value = exact.value(kind, operands)
        given = [known[c] for c in code]
        for mode, theirs_mode in MODES.items():
            ours.append(exact.round_value(value, fmt, mode))
            theirs.append(result(OPERATIONS[kind](theirs_mode(), *given), fmt))
            labels.append((kind, operands, mode))
    assert_same(ours, theirs, labels, fmt.name)


@pytest.mark.parametrize("name", SMALL)
def test_square_roots_exhaustively(name: str) -> None:
    values = decode(np.arange(1 << named(name).bits), name)
    check(named(name), "sqrt", itertools.product(values.tolist()))


@pytest.mark.parametrize("kind", [kind for kind in OPERATIONS if kind != "sqrt"])
@pytest.mark.parametrize("name", SMALL + LARGE)
def test_random_operands(name: str, kind: str) -> None:
    fmt = named(name)
    rng = np.random.default_rng(3)
    values = interesting(fmt, 50)
    check(fmt, kind, [tuple(x) for x in rng.choice(values, (100, ARITY[kind])).tolist()])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind, arity in ARITY.items() if arity == 2])
@pytest.mark.parametrize("name", SMALL)
def test_small_formats_exhaustively(name: str, kind: str) -> None:
    values = decode(np.arange(1 << named(name).bits), name)
    values = [*values[~np.isnan(values)].tolist(), float("nan")]
    check(named(name), kind, itertools.product(values, repeat=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL + LARGE)
def test_fma_many(name: str) -> None:
    fmt = named(name)
    rng = np.random.default_rng(4)
    check(fmt, "fma", [tuple(x) for x in rng.choice(interesting(fmt, 200), (2000, 3)).tolist()])
