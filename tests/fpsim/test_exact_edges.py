"""The specification's own rules, case by case: zeros, infinities, overflow, formats without subnormals, flushing."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import MODES, same, unsigned_variants, variants

from fpsim import exact
from fpsim.codes import decode, encode
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.rounding import Stochastic

INF, NAN = math.inf, math.nan
HALF = named("binary16")


@pytest.mark.parametrize(
    ("kind", "operands", "expected", "under_down"),
    [
        ("add", (0.0, 0.0), 0.0, 0.0),
        ("add", (-0.0, -0.0), -0.0, -0.0),
        ("add", (0.0, -0.0), 0.0, -0.0),
        ("add", (1.5, -1.5), 0.0, -0.0),
        ("sub", (1.5, 1.5), 0.0, -0.0),
        ("sub", (-0.0, 0.0), -0.0, -0.0),
        ("sub", (0.0, 0.0), 0.0, -0.0),
        ("mul", (-0.0, 3.0), -0.0, -0.0),
        ("mul", (-0.0, -3.0), 0.0, 0.0),
        ("div", (0.0, -3.0), -0.0, -0.0),
        ("div", (1.0, -INF), -0.0, -0.0),
        ("sqrt", (-0.0,), -0.0, -0.0),
        ("round", (-0.0,), -0.0, -0.0),
        ("fma", (1.0, 1.0, -1.0), 0.0, -0.0),
        ("fma", (-0.0, 1.0, -0.0), -0.0, -0.0),
        ("fma", (-0.0, 1.0, 0.0), 0.0, -0.0),
        ("div", (1.0, 0.0), INF, INF),
        ("div", (-1.0, 0.0), -INF, -INF),
        ("div", (1.0, -0.0), -INF, -INF),
        ("div", (0.0, 0.0), NAN, NAN),
        ("div", (INF, INF), NAN, NAN),
        ("div", (INF, -2.0), -INF, -INF),
        ("div", (INF, 0.0), INF, INF),
        ("mul", (INF, 0.0), NAN, NAN),
        ("mul", (-INF, 2.0), -INF, -INF),
        ("add", (INF, -INF), NAN, NAN),
        ("sub", (INF, INF), NAN, NAN),
        ("add", (1.0, -INF), -INF, -INF),
        ("fma", (INF, 0.0, 1.0), NAN, NAN),
        ("fma", (INF, 1.0, -INF), NAN, NAN),
        ("fma", (INF, 1.0, 5.0), INF, INF),
        ("fma", (2.0, 3.0, -INF), -INF, -INF),
        ("sqrt", (-1.0,), NAN, NAN),
        ("sqrt", (-INF,), NAN, NAN),
        ("sqrt", (INF,), INF, INF),
        ("round", (NAN,), NAN, NAN),
    ],
)
def test_zeros_infinities_and_invalid_operations(
    kind: str, operands: tuple[float, ...], expected: float, under_down: float
) -> None:
    """IEEE 754-2019 sections 6.1 to 6.3, 7.2 and 7.3."""
    for mode in MODES:
        assert same(exact.operation(kind, operands, HALF, mode), under_down if mode == "down" else expected)


@pytest.mark.parametrize("kind", ["round", "add", "sub", "mul", "div", "sqrt", "fma"])
def test_nan_is_contagious(kind: str) -> None:
    count = {"round": 1, "sqrt": 1, "fma": 3}.get(kind, 2)
    for operands in itertools.product((NAN, 0.0, 1.0, INF), repeat=count):
        if NAN in operands:
            assert math.isnan(exact.operation(kind, operands, HALF, "up"))


def test_unknown_operations_raise() -> None:
    with pytest.raises(ValueError, match="kind='tan'; admissible: round, add"):
        exact.value("tan", (1.0,))


@pytest.mark.parametrize(
    ("overflow", "specials", "finite", "infinite"),
    [
        ("infinity", "ieee", INF, INF),
        ("saturate", "ieee", "max", INF),
        ("saturate_all", "ieee", "max", "max"),
        ("nan", "ieee", NAN, INF),
        ("nan", "fn", NAN, NAN),
        ("saturate", "fn", "max", NAN),
        ("saturate_all", "fn", "max", "max"),
        ("saturate", "none", "max", NAN),
        ("saturate_all", "none", "max", "max"),
        ("infinity", "p3109_extended", INF, INF),
    ],
)
def test_overflow_policies(overflow: str, specials: str, finite: float | str, infinite: float | str) -> None:
    fmt = Format(4, 3, specials=specials, overflow=overflow)  # type: ignore[arg-type]
    finite, infinite = (fmt.max if x == "max" else x for x in (finite, infinite))
    for mode in (*MODES, Stochastic(4)):
        for sign in (1.0, -1.0):
            towards_zero = mode in ("toward_zero", "to_odd") or mode == ("down" if sign > 0 else "up")
            expected = sign * (fmt.max if towards_zero else finite)
            assert same(exact.operation("mul", (fmt.max, sign * 2), fmt, mode, 3), expected)
            assert same(exact.operation("div", (1.0, sign * 0.0), fmt, mode, 3), sign * infinite)
            assert same(exact.operation("round", (sign * INF,), fmt, mode, 3), sign * infinite)


def test_no_negative_zero_leaves_a_format_without_one() -> None:
    for fmt in (named("float8_e4m3fnuz"), named("p3109_k8p4se"), named("p3109_k8p4sf")):
        for mode in MODES:
            assert same(exact.operation("round", (-0.0,), fmt, mode), 0.0)
            assert same(exact.operation("sub", (1.0, 1.0), fmt, mode), 0.0)
            tiny = exact.operation("round", (-fmt.smallest_subnormal / 4,), fmt, mode)
            assert same(tiny, -fmt.smallest_subnormal if mode in ("down", "to_odd") else 0.0)


@pytest.mark.parametrize("specials", ["ieee", "fnuz"])
def test_without_subnormals_the_grid_has_a_gap_at_zero(specials: str) -> None:
    fmt = Format(4, 3, subnormals=False, specials=specials, overflow="nan")  # type: ignore[arg-type]
    lowest = fmt.smallest_normal
    zero = -0.0 if specials == "ieee" else 0.0
    assert fmt.smallest_subnormal == lowest == 2.0**fmt.emin
    for fraction, expected in [
        (2**-30, {"up": 1, "to_odd": 1}),
        (0.5, {"nearest_away": 1, "up": 1, "to_odd": 1}),
        (0.5 + 2**-40, {"nearest_even": 1, "nearest_away": 1, "up": 1, "to_odd": 1}),
        (1 - 2**-4, {"nearest_even": 1, "nearest_away": 1, "up": 1, "to_odd": 1}),
        (1.0, dict.fromkeys(MODES, 1)),
    ]:
        for mode in MODES:
            positive = exact.operation("round", (fraction * lowest,), fmt, mode)
            assert positive == expected.get(mode, 0) * lowest
            mirrored = {"up": "down", "down": "up"}.get(mode, mode)
            negative = exact.operation("round", (-fraction * lowest,), fmt, mirrored)
            assert same(negative, -positive if positive else zero)
        moved = [exact.operation("round", (fraction * lowest,), fmt, Stochastic(4), word) > 0 for word in range(16)]
        assert sum(moved) == math.floor(fraction * 16)
    above = [exact.operation("round", (lowest * (1 + 0.5 * fmt.eps),), fmt, mode) / lowest for mode in MODES]
    assert above == [1, 1 + fmt.eps, 1, 1 + fmt.eps, 1, 1 + fmt.eps]


def test_flushing_comes_after_rounding() -> None:
    fmt, plain = Format(5, 2, tiny="flush"), Format(5, 2)
    for x in np.linspace(-2, 2, 193) * fmt.smallest_normal:
        for mode in MODES:
            kept = exact.operation("round", (float(x),), plain, mode)
            expected = math.copysign(0.0, kept) if abs(kept) < fmt.smallest_normal else kept
            assert same(exact.operation("round", (float(x),), fmt, mode), expected)
    just_below = math.nextafter(fmt.smallest_normal, 0.0)
    assert exact.operation("round", (just_below,), fmt, "nearest_even") == fmt.smallest_normal
    assert exact.operation("round", (just_below,), fmt, "toward_zero") == 0.0


@pytest.mark.parametrize(
    ("overflow", "specials", "finite", "infinite"),
    [
        ("infinity", "ieee", NAN, NAN),
        ("saturate", "ieee", 0.0, NAN),
        ("saturate_all", "ieee", 0.0, 0.0),
        ("nan", "fn", NAN, NAN),
        ("saturate", "none", 0.0, NAN),
        ("saturate_all", "none", 0.0, 0.0),
        ("infinity", "p3109_extended", NAN, NAN),
        ("saturate_all", "p3109_finite", 0.0, 0.0),
    ],
)
def test_negative_results_of_unsigned_formats(overflow: str, specials: str, finite: float, infinite: float) -> None:
    """Rounded first: what rounds to -0 is 0, and what lies beyond is 0 in the modes that point to it."""
    fmt = Format(3, 2, specials=specials, overflow=overflow, signed=False)  # type: ignore[arg-type]
    for mode in (*MODES, Stochastic(4)):
        expected = 0.0 if mode in ("toward_zero", "up") else finite
        for x in (-fmt.smallest_subnormal, -1.0, -fmt.max, -1e300):
            assert same(exact.operation("round", (x,), fmt, mode, 3), expected)
        assert same(exact.operation("sub", (1.0, 3.0), fmt, mode, 3), expected)
        assert same(exact.operation("round", (-INF,), fmt, mode, 3), infinite)
        assert same(exact.operation("sub", (1.0, 1.0), fmt, mode, 3), 0.0)
        for x in (-0.0, -0.0625 * fmt.smallest_subnormal):
            below = x < 0 and mode in ("down", "to_odd")
            assert same(exact.operation("round", (x,), fmt, mode, 3), finite if below else 0.0)
        assert exact.operation("round", (1.25,), fmt, mode, 3) == 1.25


@pytest.mark.parametrize("overflow", ["nan", "saturate", "saturate_all"])
def test_a_format_without_a_zero(overflow: str) -> None:
    """All of (-smallest, smallest] goes to the smallest value, however it is rounded; so do exact zeros."""
    fmt = Format(4, 0, specials="nan_only", signed=False, overflow=overflow)  # type: ignore[arg-type]
    least = fmt.smallest_normal
    assert (fmt.lowest, fmt.smallest_subnormal, fmt.emin, fmt.emax) == (2.0**-7, 2.0**-7, -7, 7)
    for mode in (*MODES, Stochastic(4)):
        for x in (0.0, -0.0, 5e-324, least / 8, least / 2, 0.75 * least, least, -least / 4):
            beyond = x < 0 and mode in ("down", "to_odd") and overflow == "nan"
            assert same(exact.operation("round", (x,), fmt, mode, 3), NAN if beyond else least)
        assert same(exact.operation("sub", (1.0, 1.0), fmt, mode, 3), least)
        negative = exact.operation("round", (-1.0,), fmt, mode, 3)
        assert same(negative, least if overflow != "nan" or mode in ("toward_zero", "up") else NAN)
    ties = [exact.operation("round", (1.5 * 2.0**k,), fmt, "nearest_even") / 2.0**k for k in range(-7, 7)]
    assert ties == [2.0] * 14
    by_code = dataclasses.replace(fmt, parity="code")
    ties = [exact.operation("round", (1.5 * 2.0**k,), by_code, "nearest_even") / 2.0**k for k in range(-7, 7)]
    assert ties == [1.0, 2.0] * 7  # the code of 2^-7 is 0
    top = {"nan": (NAN, NAN), "saturate": (fmt.max, NAN), "saturate_all": (fmt.max, fmt.max)}[overflow]
    assert same(exact.operation("round", (1e9,), fmt, "nearest_even"), top[0])
    assert same(exact.operation("round", (INF,), fmt, "nearest_even"), top[1])


@pytest.mark.parametrize("specials", ["ieee", "p3109_extended", "fn", "none"])
def test_overflow_to_odd_is_a_field(specials: str) -> None:
    overflow = {"fn": "nan", "none": "saturate"}.get(specials, "infinity")
    fmt = Format(3, 2, specials=specials, overflow=overflow)  # type: ignore[arg-type]
    other = dataclasses.replace(fmt, odd_overflow="overflow")
    for sign in (1.0, -1.0):
        beyond = sign * math.ldexp(1.0, fmt.emax + 1)
        assert exact.operation("round", (beyond,), fmt, "to_odd") == sign * fmt.max
        expected = {"infinity": INF, "nan": NAN, "saturate": fmt.max}[overflow]
        assert same(exact.operation("round", (beyond,), other, "to_odd"), sign * expected)
        for mode in set(MODES) - {"to_odd"}:
            assert same(*(exact.operation("round", (beyond,), f, mode) for f in (fmt, other)))
        inside = sign * (fmt.max - 0.25 * math.ldexp(fmt.eps, fmt.emax))
        assert same(*(exact.operation("round", (inside,), f, "to_odd") for f in (fmt, other)))


@pytest.mark.parametrize(("name", "expected"), [("p3109_k5p2se", INF), ("p3109_k5p2ue", 0), ("p3109_k5p2sf", 0)])
def test_p3109_overflow_to_odd_is_the_neighbour_of_odd_code(name: str, expected: float) -> None:
    fmt = named(name)
    limit = expected or fmt.max
    assert exact.operation("round", (1e9,), fmt, "to_odd") == limit
    assert int(encode(limit, fmt)) % 2 == 1 or not fmt.has_infinity


def test_one_bit_significands() -> None:
    by_code = named("p3109_k6p1se")
    fmt = dataclasses.replace(by_code, parity="significand")
    powers = [2.0**k for k in range(-5, 5)]
    for k, x in enumerate(powers):
        odd = int(encode(x, by_code)) % 2 == 1
        assert odd == ((k + int(encode(powers[0], by_code))) % 2 == 1)
        assert exact.operation("round", (1.5 * x,), by_code, "nearest_even") == (2 * x if odd else x)
        assert exact.operation("round", (1.2 * x,), by_code, "to_odd") == (x if odd else 2 * x)
        for mode in ("nearest_away", "toward_zero", "up", "down"):
            assert same(*(exact.operation("round", (1.5 * x,), f, mode) for f in (fmt, by_code)))
    for mode, expected in {"nearest_even": 2, "nearest_away": 2, "toward_zero": 1, "to_odd": 1, "up": 2}.items():
        assert [exact.operation("round", (1.5 * x,), fmt, mode) / x for x in (0.5, 1.0, 2.0)] == [expected] * 3


def test_the_square_root_compares_exactly() -> None:
    """Roots within 2^-100 of a value or a midpoint: a shorter intermediate result would lose the side."""
    for p in (11, 24, 50, 53):
        fmt = Format(11, p - 1)
        near = 1 + fmt.eps / 2  # a midpoint; its square has 2p + 1 bits
        square = Fraction(near) ** 2
        for x, side in ((float(square), (Fraction(float(square)) > square) - (Fraction(float(square)) < square)),):
            root = exact.operation("sqrt", (x,), fmt, "nearest_even")
            assert root == (1.0 if side <= 0 else 1 + fmt.eps)
    assert exact.operation("sqrt", (math.nextafter(1.0, 2.0),), named("binary64"), "up") == math.nextafter(1.0, 2.0)
    assert exact.operation("sqrt", (math.nextafter(1.0, 2.0),), named("binary64"), "down") == 1.0


class Neighbours:
    """Rounding by searching the sorted list of a format's values: no quantum, no exponent arithmetic."""

    def __init__(self, fmt: Format) -> None:
        self.fmt = fmt
        values = decode(np.arange(1 << (fmt.bits - fmt.signed)), fmt)
        values = sorted(Fraction(x) for x in {0.0, *values[np.isfinite(values)].tolist()})
        step = values[-1] - values[-2]
        while values[-1] < max(64, 2 * Fraction(fmt.max)):  # the grid goes on beyond the largest value
            if (values[-1] / step).numerator.bit_length() > fmt.precision:
                step *= 2
            values.append(values[-1] + step)
        self.values = values

    def __call__(self, x: Fraction, mode: str) -> float:
        fmt, magnitude = self.fmt, abs(x)
        i = bisect.bisect_right(self.values, magnitude) - 1
        low = self.values[i]
        if low == magnitude:
            result = low
        else:
            high = self.values[i + 1]
            # Codes count values from 0, or from the first one where there is no zero.
            odd = i - (not fmt.has_zero) if fmt.parity == "code" else low / (high - low)
            nearer = 2 * magnitude - low - high
            up = {
                "nearest_even": nearer > 0 or (nearer == 0 and odd % 2 == 1),
                "nearest_away": nearer >= 0,
                "toward_zero": False,
                "up": x > 0,
                "down": x < 0,
                "to_odd": odd % 2 == 0,
            }[mode]
            result = high if up else low
        if result == 0 and not fmt.has_zero:
            return fmt.smallest_normal
        if result > 0 > x and not fmt.signed:
            clamped = fmt.overflow in ("saturate", "saturate_all") or mode in ("toward_zero", "up")
            return float(self.values[not fmt.has_zero]) if clamped else NAN
        if result > Fraction(fmt.max):
            inward = mode == "toward_zero" or (mode == "up" and x < 0) or (mode == "down" and x > 0)
            inward = inward or (mode == "to_odd" and fmt.odd_overflow == "largest")
            policy = {"infinity": INF, "nan": NAN}.get(fmt.overflow, fmt.max)
            value = fmt.max if inward else policy
        else:
            value = float(result)
        negative = x < 0 and (value != 0 or fmt.has_negative_zero)
        return -value if negative else value


NEIGHBOURS = [
    Neighbours(f) for f in (*variants(3, 2), *variants(2, 3), named("p3109_k6p1se"), Format(3, 2, subnormals=False))
]
NEIGHBOURS += [Neighbours(f) for f in (*unsigned_variants(3, 1), *map(named, ("p3109_k5p1ue", "p3109_k6p3uf")))]
NEIGHBOURS += [
    Neighbours(Format(3, 0, specials="nan_only", signed=False, overflow=overflow, parity=parity))
    for overflow, parity in (("nan", "significand"), ("saturate", "code"))
]


@given(st.fractions(min_value=-40, max_value=40), st.sampled_from(NEIGHBOURS), st.sampled_from(MODES))
def test_rounding_is_the_choice_between_two_neighbours(x: Fraction, oracle: Neighbours, mode: str) -> None:
    if x:
        ours = exact.round_value(exact.Exact("finite", abs(x), x < 0), oracle.fmt, mode)
        assert same(ours, oracle(x, mode))


@pytest.mark.parametrize("oracle", NEIGHBOURS, ids=lambda n: n.fmt.name)
def test_rounding_of_every_eighth_between_neighbours(oracle: Neighbours) -> None:
    for low, high in itertools.pairwise(oracle.values[: 2 + bisect.bisect(oracle.values, Fraction(oracle.fmt.max))]):
        for k, sign, mode in itertools.product(range(1, 9), (1, -1), MODES):
            x = sign * (low + (high - low) * k / 8)
            ours = exact.round_value(exact.Exact("finite", abs(x), x < 0), oracle.fmt, mode)
            assert same(ours, oracle(x, mode)), (x, mode)


@pytest.mark.parametrize("exponent", [-1074, -200, -1, 0, 1, 60, 1023])
def test_exponents_and_quanta(exponent: int) -> None:
    power = Fraction(2) ** exponent
    third = power * Fraction(4, 3)
    assert [exact.floor_log2(x) for x in (power, third, power * 2 - power / 2**80)] == [exponent] * 3
    fmt = named("binary64")
    assert exact.quantum(third, fmt) == exact.quantum(power, fmt) == max(power / 2**52, Fraction(2) ** -1074)
    assert exact.quantum(Fraction(1, 3) / 2**40, Format(5, 2, subnormals=False)) == Fraction(1, 2**14)
