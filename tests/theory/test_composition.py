"""Enclosures read off programs: exponents as counted by hand, and computed values that never leave them."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import sympy as sp
from flint import ctx
from tiers import slow_but

from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.rounding import Stochastic
from fpsim.tracing import (
    Value,
    absolute,
    fma,
    less,
    maximum,
    sigmoid,
    slot,
    sqrt,
    step,
    total,
    where,
)
from theory.composition import NoEnclosure, compose, eta, model_values, relative_factor, symbol
from theory.enclosure import ball, compile_expression


@step
def quadratic(w: Value, center: Value, curvature: Value) -> dict[str, Value]:
    return {"g": slot("scale", curvature * slot("difference", w - center))}


@step
def rational(w: Value, center: Value, twice_scale: Value) -> dict[str, Value]:
    z = slot("difference", w - center)
    plus = slot("one_plus", slot("square", z * z) + 1)
    below = slot("denominator", plus * plus)
    return {"g": slot("ratio", slot("numerator", twice_scale * z) / below)}


BF16 = Precision.uniform("bfloat16")


def only(k: int | Fraction) -> tuple[Fraction, Fraction]:
    return Fraction(k), Fraction(k)


def test_quadratic_gradient() -> None:
    program = quadratic >> sgd
    slots = BF16.resolve(program)
    factor = relative_factor(program, slots, "update.scale", exact=("w", "center"))
    assert factor.exponents == {
        name: only(1) for name in ("curvature", "gradient.difference", "gradient.scale", "update.scale")
    }
    w, center, curvature = (symbol(name) for name in ("w", "center", "curvature"))
    assert sp.expand(factor.exact - symbol("scalar.lr") * curvature * (w - center)) == 0
    # storing an already rounded gradient changes nothing, and differences of numbers on one grid do not underflow
    assert set(factor.underflow_slots) == {"curvature", "gradient.scale", "update.scale"}
    low = Fraction(1, 1) / (1 + Fraction(1, 256)) ** 4
    assert Fraction(factor.low_value[0]) <= low <= Fraction(factor.low_value[1])


def test_rational_gradient() -> None:
    program = rational >> sgd
    factor = relative_factor(program, BF16.resolve(program), "g", exact=("w", "center", "twice_scale"))
    assert factor.exponents == {
        "gradient.difference": (Fraction(-3), Fraction(1)),
        "gradient.square": (Fraction(-2), Fraction(0)),
        "gradient.one_plus": only(-2),
        "gradient.denominator": only(-1),
        "gradient.numerator": only(1),
        "gradient.ratio": only(1),
    }


def test_a_gradient_at_rounded_weights_has_no_relative_enclosure() -> None:
    program = quadratic >> sgd
    slots = BF16.replace({"gradient.w": "e8m3"}).resolve(program)
    with pytest.raises(NoEnclosure, match=r"gradient.scale|update.scale|may cancel"):
        relative_factor(program, slots, "g", exact=("w", "center", "curvature"))
    with pytest.raises(NoEnclosure) as none:
        relative_factor(program, BF16.resolve(program), "g", exact=("w", "curvature"))
    assert "may cancel" in none.value.reason


def test_a_power_of_two_only_shifts() -> None:
    program = quadratic >> sgd
    slots, shift = BF16.resolve(program), {"scalar.lr": 2.0**-4}
    factor = relative_factor(program, slots, "update.scale", exact=("w", "center", "curvature"), scalars=shift)
    assert set(factor.exponents) == {"gradient.difference", "gradient.scale"}
    assert "update.scale" in factor.underflow_slots
    narrow = BF16.replace({"update.scale": "e8m3"}).resolve(program)
    factor = relative_factor(program, narrow, "update.scale", exact=("w", "center", "curvature"), scalars=shift)
    assert "update.scale" in factor.exponents


def test_second_moment_is_the_sandwich() -> None:
    """T1: decay (1+delta)^2, injection (1+delta)^3."""
    composed = compose(rmsprop, BF16.resolve(rmsprop), "v ->", exact=("v", "g"), nonnegative=("v",))
    decay, inject = composed.terms
    assert decay.exponents == {"v.decay": only(1), "v.add": only(1)}
    assert inject.exponents == {"v.square": only(1), "v.inject": only(1), "v.add": only(1)}
    assert decay.nonnegative
    assert inject.nonnegative
    assert set(composed.underflow_slots) == {"v.decay", "v.square", "v.inject"}


def test_storing_in_a_narrower_format_is_one_more_factor() -> None:
    slots = Precision.storage(v="bfloat16").resolve(rmsprop)
    composed = compose(rmsprop, slots, "v ->", exact=("v", "g"), nonnegative=("v",))
    assert all(term.exponents["v"] == only(1) for term in composed.terms)
    assert "v" in composed.underflow_slots


def test_adam_update_factor() -> None:
    """T4 with bias correction: [l^3/h^(5/2), h^3/l^(5/2)]."""
    slots = BF16.resolve(adam)
    factor = relative_factor(adam, slots, "update.scale", exact=("m.add", "v.add"), nonnegative=("v.add",))
    u = Fraction(1, 256)
    low, high = 1 / (1 + u), (1 + 2 * u) / (1 + u)
    assert factor.high_value[0] <= float(high) ** 3 / float(low) ** 2.5 <= factor.high_value[1] * (1 + 1e-14)
    assert (
        factor.low_value[0] * (1 - 1e-14) <= float(low) ** 3 / float(high) ** 2.5 <= factor.low_value[1] * (1 + 1e-14)
    )


def test_max_abs_fma_and_sums() -> None:
    @step
    def program(a: Value, b: Value) -> dict[str, Value]:
        product = slot("product", a * b)
        largest = maximum(absolute(product), absolute(b))
        root = slot("root", sqrt(slot("fused", fma(largest, largest, largest))))
        return {"a": root}

    slots = BF16.resolve(program)
    factor = relative_factor(program, slots, "root", exact=("a", "b"))
    assert factor.exponents["product"] == (Fraction(0), Fraction(1))
    assert factor.exponents["fused"] == only(Fraction(1, 2))

    @step
    def summed(a: Value) -> dict[str, Value]:
        return {"a": slot("norm", total(a))}

    with pytest.raises(NoEnclosure, match="norm: how many terms are summed is not known"):
        relative_factor(summed, BF16.resolve(summed), "norm", exact=("a",))


def test_where_no_relative_enclosure_follows_the_slot_is_named() -> None:
    @step(shapes={"m": ("n", "d")}, shared=("m",))
    def shaped(a: Value, m: Value) -> dict[str, Value]:
        margins = slot("margins", total(slot("terms", m * a), axis=1))
        return {
            "p": slot("p", sigmoid(margins)),
            "l": slot("l", where(slot("less", less(a, 1)), a, 0)),
        }

    slots, given = BF16.resolve(shaped), {"exact": ("a", "m"), "lengths": {"d": 4}}
    for name, reason in (
        ("margins", "margins: the rounded terms a.m of the sum may cancel"),
        ("p", "margins: the rounded terms"),
        ("less", "less: a comparison: its outcome is exact beyond a margin only"),
        ("l", "less: a comparison"),
    ):
        with pytest.raises(NoEnclosure, match=reason):
            relative_factor(shaped, slots, name, **given)
    with pytest.raises(NoEnclosure, match="p: the relative condition number of sigmoid"):
        relative_factor(shaped, slots, "p", exact=("a",), lengths={"d": 1})


@pytest.mark.parametrize("mode", ["nearest_even", "toward_zero", "up", Stochastic(16)], ids=str)
@pytest.mark.parametrize("fmt", slow_but(["bfloat16", "e5m10", "e4m3", "e5m2", "e3m2"], "bfloat16", "e3m2"))
@pytest.mark.parametrize("gradient", [quadratic, rational], ids=lambda g: g.name)
@pytest.mark.parametrize("lr", slow_but([0.09, 0.125], 0.09))
def test_computed_values_lie_in_their_enclosure(
    lr: float, gradient: Program, fmt: str, mode: object, machine: SimpleNamespace
) -> None:
    """|computed| between low |exact| - absolute and high |exact| + absolute, underflow included."""
    program, draw, shape = gradient >> sgd.bind(lr=lr), np.random.default_rng(7), (6, 80)
    precision = Precision.uniform(fmt, mode)
    scale = precision.default[0].max ** 0.25
    given = {name: draw.normal(size=shape) * scale ** draw.uniform(-4, 1, size=shape) for name in program.inputs}
    result = machine.run(program, precision, {"w": given.pop("w")}, given, 1)
    reach = []
    for name in ("g", "update.scale"):
        factor = relative_factor(program, result.slots, name, exact=("w", *given), scalars=result.scalars)
        model = model_values(result.slots, {*factor.exponents, *factor.underflow_slots})
        wanted = sorted(factor.exact.free_symbols | factor.absolute.free_symbols - set(model), key=str)
        columns = [column(result, str(s)) * np.ones(shape) for s in wanted]
        formulas = (factor.exact, factor.low, factor.high, factor.absolute)
        functions = [compile_expression(e, [*model, *wanted]) for e in formulas]
        with ctx.workprec(200):
            numbers = [ball(x) for x in model.values()]
            for i in np.ndindex(*shape):
                exact, low, high, absolute = (f([*numbers, *(ball(c[i]) for c in columns)]) for f in functions)
                computed = abs(ball(result.values[name][i]))
                if absolute.is_finite():
                    assert not computed < low * abs(exact) - absolute
                    assert not computed > high * abs(exact) + absolute
                if absolute < abs(exact) * (high - 1) / 100:
                    reach.append(float(computed / abs(exact) - 1) / float(high - 1))
    if gradient is quadratic and fmt != "e3m2":  # four roundings add up often; in e3m2 nearly everything underflows
        assert max(map(abs, reach)) > 0.3


def column(result: SimpleNamespace, name: str) -> np.ndarray:
    """Measured values of a symbol: an array at the start, a scalar, or an extreme of a computed value."""
    kind, _, inner = name.rstrip("]").partition("[")
    if name.startswith("scalar."):
        return np.asarray(result.scalars[name])
    if inner:
        return {"size": result.max_abs, "least": result.min_abs}[kind][inner]
    return result.start[name] if name in result.start else result.values[name]


def test_no_underflow_means_no_absolute_part() -> None:
    program = rational >> sgd
    factor = relative_factor(program, BF16.resolve(program), "update.scale", exact=("w", "center", "twice_scale"))
    assert factor.absolute.subs({eta(s): 0 for s in factor.underflow_slots}) == 0
