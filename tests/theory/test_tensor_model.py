"""Tensor-level constants: as counted by hand, found for optimizers of one's own, and never exceeded by any rounding."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp

import fpsim
from fpsim import exact
from fpsim.number_format import Format
from fpsim.optim import adam, momentum, rmsprop, sgd, signum
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, absolute, fma, less, maximum, slot, sqrt, step, where
from theory.tensor_model import Constant, Moment, TensorConstants, constants


def by_hand(fmt: Format) -> tuple[Fraction, Fraction]:
    u = Fraction(1, 2**fmt.precision)
    return 1 / (1 + u), (1 + 2 * u) / (1 + u)


def inside(constant: Constant, value: Fraction) -> bool:
    return Fraction(constant.value[0]) <= value <= Fraction(constant.value[1])


def test_adam_by_hand() -> None:
    fmt = fpsim.format("binary16")
    found = constants(adam.bind(beta1=0.9, beta2=0.99), Precision.uniform(fmt))
    low, h = by_hand(fmt)
    v, m = found.moments["v"], found.moments["m"]
    a, b = (Fraction(float(fpsim.round(x, fmt))) for x in (0.99, 0.01))
    assert (v.second, m.second) == (True, False)
    assert (str(v.injected), str(m.injected)) == ("g**2", "g")
    assert inside(v.decay_low, a * low**2) and inside(v.decay_high, a * h**2)
    assert inside(v.injection_low, b * low**3) and inside(v.injection_high, b * h**3)
    assert inside(v.one_step, h**3 - 1)
    assert inside(m.one_step, h**2 - 1)
    assert inside(v.steady, h**3 * (1 - a) / (1 - a * h**2) - 1)
    assert inside(found.gradient, h - 1)
    assert inside(found.weights["w"], h - 1)
    # h^3/l^(5/2) - 1, squared
    below, above = (Fraction(x) + 1 for x in found.update["w"].value)
    assert below**2 <= h**6 / low**5 <= above**2
    assert str(found).splitlines()[0] == "tensor-level constants of adam"
    assert "q_U <= 0.00268" in str(found)


def units(expression: sp.Expr) -> sp.Expr:
    return expression.subs({s: 1 for s in expression.free_symbols if str(s).startswith("u[")})


def test_first_order_of_the_steady_constants() -> None:
    """u (3 - A)/(1 - A) for the second moment, 2u/(1 - A) for the first; derivatives of the closed forms."""
    found = constants(adam, Precision.uniform("binary32"))
    beta1, beta2 = (sp.Symbol(f"scalar.{name}", positive=True) for name in ("beta1", "beta2"))
    assert sp.simplify(units(found.moments["v"].steady.first_order) - (3 - beta2) / (1 - beta2)) == 0
    assert sp.simplify(units(found.moments["m"].steady.first_order) - 2 / (1 - beta1)) == 0
    u = sp.Symbol("u", positive=True)
    for moment in found.moments.values():
        closed = moment.steady.closed
        (upper,) = (x for x in closed.args if str(x).count("h["))  # the other end has l only
        model = {s: (1 + 2 * u) / (1 + u) for s in closed.free_symbols if str(s).startswith("h[")}
        slope = sp.diff(upper.subs(model), u).subs(u, 0)
        assert sp.simplify(slope - units(moment.steady.first_order)) == 0


def test_where_no_steady_constant_exists_the_reason_is_given() -> None:
    found = constants(adam.bind(beta2=0.999), Precision.uniform("bfloat16"))
    assert found.moments["v"].steady.value == (np.inf, np.inf)
    assert "stored decay is 1" in found.moments["v"].steady.reason
    found = constants(rmsprop.bind(beta2=0.99), Precision.uniform("e8m5"))
    assert "a_+ = 1.0" in found.moments["v"].steady.reason
    assert "rounding may undo the decay" in str(found)
    found = constants(rmsprop.bind(beta2="1 - 1/(t + 1)"), Precision.uniform("e8m10"))
    assert "scalar.beta2" in found.moments["v"].steady.reason
    with pytest.raises(ValueError, match="gradient='grad'; admissible: w, g, update"):
        constants(sgd, Precision.uniform("bfloat16"), gradient="grad")


@step
def own(
    x: Value, buf: Value, h: Value, acc: Value, g: Value, *, lr: Any = 0.1, b: Any = 0.75, c: Any = 0.9, wd: Any = 0.99
) -> dict[str, Value]:
    """Heavy-ball buffer, moving average of |g|, sum of squares, decoupled decay, an epsilon inside the root."""
    buf = slot("b.add", slot("b.keep", b * buf) + g)
    h = slot("h.add", fma(h, c, slot("h.new", (1 - c) * absolute(g))))
    acc = slot("acc.add", acc + slot("acc.square", g * g))
    root = slot("root", sqrt(slot("shift", acc + slot("hh", h * h))))
    kept = slot("x.keep", x * wd)
    return {"x": slot("x.sub", kept - slot("s", lr * slot("d", buf / root))), "buf": buf, "h": h, "acc": acc}


def test_an_optimizer_of_ones_own() -> None:
    found = constants(own, Precision.uniform("bfloat16"))
    assert set(found.moments) == {"buf", "h", "acc"}
    assert {k: (v.second, str(v.injected)) for k, v in found.moments.items()} == {
        "buf": (False, "g"), "h": (True, "Abs(g)"), "acc": (True, "g**2"),
    }  # fmt: skip
    h = by_hand(fpsim.format("bfloat16"))[1]
    # 0.75 is a short number but no power of two; heavy ball injects g with one rounding
    assert inside(found.moments["buf"].decay_high, Fraction(3, 4) * h**2)
    assert inside(found.moments["buf"].injection_high, h)
    # a fused average: one rounding on the decay, two on what is new
    assert units(found.moments["h"].one_step.first_order) == 2
    assert "average itself grows" in found.moments["acc"].steady.reason
    assert set(found.update) == {"x"}
    # d = buf/root: s, d, root, half of shift, which has the square of h on one side: half of hh
    assert units(found.update["x"].first_order) == 4
    assert inside(found.weights["x"], h - 1)
    assert isinstance(found, TensorConstants)


def test_adding_an_operation_changes_the_constants_by_itself() -> None:
    @step
    def clipped(w: Value, v: Value, g: Value, *, lr: Any = 0.1, beta2: Any = 0.9, most: Any = 2.5) -> dict[str, Value]:
        v = slot("v.add", slot("v.decay", beta2 * v) + slot("v.inject", (1 - beta2) * slot("v.square", g * g)))
        step_ = slot("scaled", most * slot("div", g / slot("sqrt", sqrt(maximum(v, lr)))))
        return {"w": slot("w.sub", w - slot("scale", lr * step_)), "v": v}

    plain = constants(rmsprop.bind(beta2=0.9), Precision.uniform("bfloat16"))
    more = constants(clipped, Precision.uniform("bfloat16"))
    assert units(plain.update["w"].first_order) == 4
    assert units(more.update["w"].first_order) == 4  # no epsilon to add, one product more
    assert more.moments["v"].one_step.value == plain.moments["v"].one_step.value
    finer = constants(clipped, Precision.uniform("bfloat16").replace({"scaled": "binary32"}))
    assert finer.update["w"].value[1] < more.update["w"].value[1]


def test_steps_and_weights_without_a_constant_say_why() -> None:
    @step
    def signed(w: Value, m: Value, g: Value, *, lr: Any = 0.1, b: Any = 0.9) -> dict[str, Value]:
        mixed = slot("mixed", slot("kept", b * m) + slot("new", (1 - b) * g))
        return {"w": slot("w.sub", w - slot("s", lr * where(slot("neg", less(mixed, 0)), g, mixed))), "m": mixed}

    @step
    def nesterov(w: Value, m: Value, g: Value, *, lr: Any = 0.1, b: Any = 0.9) -> dict[str, Value]:
        m = slot("m.add", slot("m.keep", b * m) + g)
        return {"w": slot("w.sub", w - slot("s", lr * slot("ahead", g + slot("look", b * m)))), "m": m}

    chosen = constants(signed, Precision.uniform("bfloat16")).update["w"]
    assert chosen.margins == ("neg",)
    assert units(chosen.first_order) == 1
    assert str(chosen).endswith("where the margin of neg suffices")
    assert "may cancel" in constants(nesterov, Precision.uniform("bfloat16")).update["w"].reason

    @step
    def scaled(w: Value, g: Value) -> dict[str, Value]:
        return {"w": slot("w.mul", w * g)}

    found = constants(scaled, Precision.uniform("bfloat16"))
    assert "no sum ends the update of w" in found.weights["w"].reason


def test_the_step_of_a_sign_is_off_by_its_last_product() -> None:
    found = constants(signum, Precision.uniform("bfloat16"))
    assert set(found.moments) == {"m"}
    assert len(found.update["w"].margins) == 1
    assert units(found.update["w"].first_order) == 1


def test_a_gradient_in_the_machine() -> None:
    @step
    def quadratic(w: Value, center: Value, curvature: Value) -> dict[str, Value]:
        return {"g": slot("scale", curvature * slot("difference", w - center))}

    found = constants(quadratic >> momentum, Precision.uniform("bfloat16"))
    assert units(found.gradient.first_order) == 2
    assert set(found.moments) == {"m"}
    narrow = constants(quadratic >> momentum, Precision.uniform("bfloat16").replace({"gradient.w": "e8m3"}))
    assert "may cancel" in narrow.gradient.reason


# Brute force


def neighbours(x: Fraction, fmt: Format, faithful: bool) -> list[Fraction]:
    """What an adversary may make of an exact result: either neighbour, or the nearest (both at a tie)."""
    q = exact.quantum(abs(x), fmt) if x else Fraction(1)
    lower = (x / q).__floor__() * q
    both = [lower] if lower == x else [lower, lower + q]
    if faithful or len(both) == 1:
        return both
    return [y for y in both if abs(y - x) == min(abs(z - x) for z in both)]


@pytest.mark.parametrize("mode", ["nearest_even", "toward_zero", Stochastic(8)], ids=str)
@pytest.mark.parametrize("fmt", [Format(6, 2), Format(6, 3)], ids=lambda f: f.name)
def test_one_step_against_every_adversary(fmt: Format, mode: object) -> None:
    """All v and g of two binades, every choice of neighbour in every operation."""
    found = constants(rmsprop.bind(beta2=0.8), Precision.uniform(fmt, mode))
    bound, faithful = Fraction(found.moments["v"].one_step.value[1]), mode != "nearest_even"
    a, b = (Fraction(float(fpsim.round(x, fmt, "toward_zero" if mode == "toward_zero" else "nearest_even")))
            for x in (0.8, Fraction(1, 5).__float__()))  # fmt: skip
    worst = Fraction(0)
    grid = [Fraction(k, 2**fmt.mantissa_bits) for k in range(2**fmt.mantissa_bits, 4 * 2**fmt.mantissa_bits)]
    for v, g in itertools.product(grid, grid):
        ideal = a * v + b * g * g
        for decay in neighbours(a * v, fmt, faithful):
            for square in neighbours(g * g, fmt, faithful):
                for new in neighbours(b * square, fmt, faithful):
                    for total in neighbours(decay + new, fmt, faithful):
                        error = abs(total / ideal - 1)
                        assert error <= bound
                        worst = max(worst, error)
    assert worst > bound / 3


@pytest.mark.parametrize(("program", "state"), [(rmsprop, "v"), (momentum, "m")], ids=["v", "m"])
@pytest.mark.parametrize("beta", [0.8, 0.9])
def test_steady_constant_against_an_adversary_that_rounds_one_way(
    program: Program, state: str, beta: float, machine: Any
) -> None:
    """Every result rounded to the larger or the smaller neighbour, constant and random gradients: within Q."""
    fmt, shares = Format(8, 6), []
    name = "beta2" if state == "v" else "beta1"
    draw = np.random.default_rng(1)
    for mode in ("up", "down"):
        precision = Precision.uniform(fmt, mode).replace({"scalar.*": (fmt, "nearest_even")})
        found = constants(program.bind(**{name: beta}), precision)
        moment = found.moments[state]
        assert isinstance(moment, Moment)
        a = Fraction(float(fpsim.round(beta, fmt)))
        b = Fraction(float(fpsim.round(1 - beta, fmt)))
        size = 1 + draw.random((1, 40)) * np.ones((300, 1))  # 40 constant sequences
        gradients = np.concatenate([size, 1 + draw.random((300, 40))], axis=1)[:, None, :]
        gradients = fpsim.round(gradients, fmt, "nearest_even")
        state0 = {k: np.zeros((1, 80)) for k in program.state}
        result = machine.run(
            program.bind(**{name: beta}), precision, state0, {}, 300, every_step=lambda t, _, g=gradients: {"g": g[t]}
        )
        exactly, largest = np.zeros(80), np.max(gradients[:, 0] ** (2 if state == "v" else 1), axis=0)
        for t in range(300):
            f = gradients[t, 0] ** (2 if state == "v" else 1)
            exactly = float(a) * exactly + float(b) * f
            unit = largest * float(b / (1 - a))
            error = np.abs(result.history[t + 1][state][0] - exactly) / unit
            assert np.all(error <= moment.steady.value[1])
        shares.append(np.max(error) / moment.steady.value[1])
    assert max(shares) > 0.3


def test_a_negative_decay_or_injection_makes_no_moment() -> None:
    for beta1 in (-0.5, 1.25):
        found = constants(momentum.bind(beta1=beta1), Precision.uniform("bfloat16"))
        assert not found.moments
        assert "may cancel" in found.update["w"].reason
