"""Scalar expressions and their values: against Fraction, mpmath at 400 bits, and Python's own arithmetic."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from oracles import same

from fpsim import exact
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.optim import adam
from fpsim.precision import Precision, scalar_values
from fpsim.scalars import STEP, ScalarExpression, evaluate, evaluate_odd, evaluate_python
from fpsim.tracing import scalar, slot, step

T, BETA = ScalarExpression.symbol(STEP), ScalarExpression.symbol("beta")
FORMATS = ["bfloat16", "binary16", "e8m10", "binary32", "binary64", "float8_e4m3fn", "e11m50"]
FORMATS += ["e10m50", "e10m51", "e10m52"]  # at the border of the fast path


def test_expressions_print_themselves() -> None:
    assert str(1 - BETA**T) == "(1 - (beta**t))"
    assert str(2 * BETA / (T + 0.5) - 1) == "(((2 * beta) / (t + 0.5)) - 1)"
    assert (1 - BETA**T).symbols() == {"beta", "t"}
    assert ScalarExpression.of(3).symbols() == frozenset()
    assert 1 - BETA == 1.0 - BETA
    assert hash(1 - BETA) == hash(1 - BETA)


def test_values_of_rational_expressions_are_exact() -> None:
    expression = (3 - BETA) * (T + 1) / 4 + 0.5 - 2 / ScalarExpression.of(8)
    assert evaluate(expression, {"beta": 0.75, STEP: 3}) == Fraction(5, 2)
    assert evaluate(-1 * (1 - BETA) - 1 + 0 * T, {"beta": 0.5, STEP: 1}) == Fraction(-3, 2)
    assert evaluate(0 * BETA, {"beta": 0.3}) == 0
    third = evaluate(ScalarExpression.of(1) / 3, {})
    assert 0 < abs(third - Fraction(1, 3)) < Fraction(1, 2**256)
    assert abs(evaluate(BETA, {"beta": Fraction(1, 3)}) - Fraction(1, 3)) < Fraction(1, 2**256)


def test_rounding_to_odd_keeps_the_side() -> None:
    assert evaluate_odd(BETA, {"beta": 0.1}) == 0.1
    just_above = 1 + ScalarExpression.of(Fraction(1, 2**200))
    assert evaluate_odd(just_above, {}) == 1 + 2.0**-52
    assert evaluate_odd(1 - ScalarExpression.of(Fraction(1, 2**200)), {}) == 1 - 2.0**-53
    assert evaluate_odd(-1 * just_above, {}) == -1 - 2.0**-52
    assert evaluate_odd(0 * BETA, {"beta": 0.5}) == 0.0


def test_python_values_are_pythons() -> None:
    for beta in (0.9, 0.999, 0.3):
        for t in (1, 2, 17, 1000):
            assert evaluate_python(1 - BETA**T, {"beta": beta, STEP: t}) == 1 - beta**t
        assert evaluate_python(2 * BETA / 3 - 0.1, {"beta": beta}) == 2 * beta / 3 - 0.1
    values = scalar_values(adam, Precision.uniform("bfloat16", scalars="python"), range(5, 9))
    assert values["scalar.correction2"].tolist() == [1 - 0.999**t for t in (6, 7, 8, 9)]
    assert values["scalar.one_minus_beta2"].tolist() == [1 - 0.999]


@pytest.mark.parametrize("name", FORMATS)
def test_two_thousand_steps_against_mpmath(name: str) -> None:
    fmt, steps = named(name), range(2000)
    values = scalar_values(adam, Precision.uniform(fmt), steps)
    context = mpmath.mp.clone()
    for scalar_name, beta in (("scalar.correction1", 0.9), ("scalar.correction2", 0.999)):
        expected = []
        for step_number in steps:
            context.prec = 400
            correction = 1 - context.mpf(beta) ** (step_number + 1)
            exponent = max(int(context.floor(context.log(correction, 2))), fmt.emin)
            # In fixed point at the format's quantum nint rounds to nearest even, subnormal results included.
            scaled = context.ldexp(correction, fmt.mantissa_bits - exponent)
            expected.append(float(context.ldexp(context.nint(scaled), exponent - fmt.mantissa_bits)))
        assert values[scalar_name].tolist() == expected


@pytest.mark.parametrize("beta", [0.5, 0.75, 1 - 2.0**-8, 1 - 2.0**-11, 1 - 2.0**-12, 0.9, 0.999])
def test_corrections_are_correctly_rounded(beta: float) -> None:
    """Against exact rationals; dyadic betas give exact ties (1 - 2^-12 and bfloat16, say)."""
    program, exactly = adam.bind(beta1=beta), Fraction(beta)
    steps = [*range(40), *range(40, 1500, 131)]
    for name in ("bfloat16", "e8m10", "binary32", "float8_e5m2"):
        fmt = named(name)
        ours = scalar_values(program, Precision.uniform(fmt), range(steps[-1] + 1))["scalar.correction1"]
        for t in steps:
            correction = exact.Exact("finite", 1 - exactly ** (t + 1))
            assert ours[t] == exact.round_value(correction, fmt, "nearest_even")


@pytest.mark.parametrize("mode", ["nearest_away", "toward_zero", "up", "down", "to_odd"])
@pytest.mark.parametrize("name", ["bfloat16", "binary16", "binary64"])
def test_other_modes(name: str, mode: str) -> None:
    """Up to 200 steps: 1 - beta^t is rounded from 256 bits, which hold beta^t down to about 2^-200."""
    fmt = named(name)
    ours = scalar_values(adam, Precision.uniform(fmt, mode), range(200))["scalar.correction1"]
    exactly = [exact.Exact("finite", 1 - Fraction(0.9) ** (t + 1)) for t in range(200)]
    assert ours.tolist() == [exact.round_value(x, fmt, mode) for x in exactly]


@step
def many(w, *, a=1.0, b=1.0):
    return {"w": slot("last", scalar("difference", a - b) * slot("first", scalar("quotient", a / b) * w))}


@pytest.mark.parametrize("name", ["float8_e4m3fnuz", "p3109_k8p4se", "binary16", "bfloat16", "e11m50", "float4_e2m1fn"])
def test_the_fast_path_is_the_specification(name: str) -> None:
    """Overflow, zeros, subnormal results, results without a negative zero: whole columns at once or one by one."""
    fmt = named(name)
    rng = np.random.default_rng(0)
    pairs = rng.standard_normal((40, 2)) * np.exp2(rng.integers(-30, 30, (40, 2)))
    pairs = [
        *pairs.tolist(),
        (1e-12, 2e-12),
        (-1e-12, 1e-300),
        (1e300, -1e300),
        (1.0, 1.0),
        (3.0, 1e-250),
        (1.0, 3e250),
    ]
    for flush in (False, True):
        if flush:
            fmt = Format(4, 3, tiny="flush")
        for a, b in pairs:
            values = scalar_values(many.bind(a=a, b=b), Precision.uniform(fmt), range(1))
            for scalar_name, value in (
                ("difference", Fraction(a) - Fraction(b)),
                ("quotient", Fraction(a) / Fraction(b)),
            ):
                expected = exact.round_value(exact.Exact("finite", abs(value), value < 0), fmt, "nearest_even")
                assert same(float(values[f"scalar.{scalar_name}"][0]), expected), (a, b)
