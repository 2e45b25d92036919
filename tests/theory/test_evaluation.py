"""What the theorems evaluate is what their derivations end with: the number against the SymPy statement."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from flint import arb

from fpsim.number_format import Format
from fpsim.optim import rmsprop, sgd
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from theory.rounding_model import gap_toward
from theory.theorems import _floor_root, _mean_rounding, t06_nearest_gd, t08_stochastic_gd, t12_rmsprop
from theory.theorems import _rmsprop_lemmas as lemmas
from theory.theorems import _rmsprop_numbers as numbers
from theory.theorems._adam_gradient import gradient_bound

CLOSE = 1e-12


def test_root_is_the_statement_of_its_derivation() -> None:
    """One coordinate: y^2 a <= b y + c and G^2 <= k y^2, so B = b/sqrt(a), C = c, K = k/a."""
    generator = np.random.default_rng(1)
    for a, b, c, k in generator.uniform(0.1, 3.0, (50, 4)):
        values = {_floor_root.B: b / math.sqrt(a), _floor_root.C: c, _floor_root.K: k / a}
        root = _floor_root.weighted_root(*([arb(float(x))] for x in (a, b)), arb(float(c)), [arb(float(k))])
        assert float(root) == pytest.approx(float(_floor_root.quadratic_root.statement.right.subs(values)), rel=CLOSE)


def test_t6_evaluates_its_limit(machine: Any) -> None:
    generator = np.random.default_rng(2)
    fmt, lr, d, seeds = Format(8, 5), 0.07, 5, 3
    w = generator.uniform(1.0, 9.0, (d, seeds))
    result = machine.run(
        sgd.bind(lr=lr), Precision.uniform(fmt, "nearest_even"), {"w": w}, {}, 2,
        every_step=lambda k, state: {"g": np.full((d, seeds), 1e-6)},
    )  # fmt: skip
    error = generator.uniform(0.0, 1e-3, d)
    window = machine.window(result, gradient_error=error, end_gradient=np.ones((d, seeds)), halted=np.ones(seeds, bool))
    bound = t06_nearest_gd.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    t = t06_nearest_gd
    low = 1 / (1 + 2.0**-6) ** 2  # two roundings to nearest: storing g and the product
    half = gap_toward(result.end["w"], -np.ones((d, seeds)), fmt) / 2
    for seed in range(seeds):
        square = sum(
            float(
                t.STATEMENT.right.subs(
                    {t._half: half[k, seed], t._A: 0, t._low: low, t._lr: result.scalars["scalar.lr"], t._E: error[k]}
                )
            )
            for k in range(d)
        )
        assert bound.per_seed is not None
        assert bound.per_seed[seed] == pytest.approx(math.sqrt(square), rel=CLOSE)


def test_t8_evaluates_its_coefficients(machine: Any) -> None:
    fmt, bits, lr = Format(8, 4), 3, 2.0**-3
    start = {"w": np.full((1, 4), 1.5)}
    result = machine.run(
        sgd.bind(lr=lr), Precision.uniform(fmt, Stochastic(bits)), start, {}, 40,
        every_step=lambda k, state: {"g": 0.7 * (state["w"] - 4 / 3)},
    )  # fmt: skip
    loss = np.array([0.3, 0.1, 0.2, 0.4])
    known = {"curvature": np.array([0.7]), "gradient_error": np.array([1e-3]), "loss_start": loss}
    window = machine.window(result, optimizer="sgd", **known)
    bound = t08_stochastic_gd.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    t, z, b = t08_stochastic_gd, Fraction(1, 16), Fraction(1, 8)
    # g and the product are rounded: rho and kappa of two slots
    moment = {t.rho: (1 - b * z) ** 2, t.mu: 1, t.kappa: (1 + z**2 / 4) ** 2}
    values = {t.e: 1e-3, t.D: 2.0**-4, t.b: b, t.alpha: lr, t.L: 0.7, t.rest: 0, **moment}
    roots = []
    for weight in (0, sp.Rational(1, 2), 1):
        square, linear, constant = (float(x.subs(t.lam, weight).subs(values)) for x in (t.SQUARE, t.LINEAR, t.CONSTANT))
        total = constant + loss.mean() / (lr * window.steps)
        roots.append(
            float(
                _floor_root.ROOT.subs(
                    {_floor_root.K: 1 / square, _floor_root.B: linear / math.sqrt(square), _floor_root.C: total}
                )
            )
        )
    assert bound.upper == pytest.approx(min(roots), rel=1e-9)


def rmsprop_window(machine: Any, noise: str, **fields: Any) -> Any:
    generator = np.random.default_rng(3)
    d, seeds = 3, 4
    start = {"w": np.full((d, seeds), 1.5), "v": np.full((d, seeds), 0.25)}
    result = machine.run(
        rmsprop.bind(lr=2.0**-6, beta2=0.9, eps=1e-3), Precision.uniform(Format(8, 9), Stochastic(16)), start, {}, 50,
        every_step=lambda k, state: {"g": state["w"] - 4 / 3 + 0.5 * generator.normal(size=(d, seeds))},
    )  # fmt: skip
    return machine.window(
        result, optimizer="rmsprop", noise=noise, gradient_bound=np.array([0.3, 0.4, 0.5]),
        gradient_error=np.full(d, 1e-6), loss_start=np.ones(seeds), curvature=np.ones(d),
        hyperparameters={"sigma": 0.5}, **fields,
    )  # fmt: skip


def test_t12_treats_noise_as_its_lemmas_say(machine: Any) -> None:
    """V, e and tau of every alternative against the right sides of the three lemmas about the preconditioner."""
    window = rmsprop_window(machine, "gaussian")
    signal = t12_rmsprop._signal(window)
    average, extreme = numbers.shares(window)
    off = t12_rmsprop._underflow(window)
    assert all(x == 0 for x in (off.moment.off, off.gradient, off.step, off.mean_step))  # nothing underflowed
    errors = t12_rmsprop._gradient_error(window, off)
    first, second, third = t12_rmsprop._alternatives(window, signal, errors, off, average, extreme)
    steep = gradient_bound(window, off.longest)
    kept, injection, eps = (window.scalars[f"scalar.{name}"] for name in ("beta2", "one_minus_beta2", "eps"))
    stretch = float(numbers.before_rounding(numbers.gradient_roundings(window)))
    for k in range(window.dimension):
        p, most = float(average[k]), float(extreme[k])
        v_min, v_max = (float(x[k]) for x in (window.min_abs["v"].min(axis=1), window.max_abs["v"].max(axis=1)))
        size = float(window.max_abs["g"].max(axis=1)[k]) * stretch
        error = window.gradient_error[k] + 2.0**-53 * size
        bottom, top = math.sqrt(kept * v_min) + eps, math.sqrt(kept * v_max) + eps
        assert steep[k] <= window.gradient_bound[k]
        grad = min(steep[k] + error, size) + error
        share, h = 1 / (1 + math.sqrt(1 - most)), math.sqrt(1 - most)
        # variation: right side R/D0 w (1 - h^2), linear in the share, times |grad|
        right = lemmas.variation.statement.right
        value = right.subs({lemmas.R: size, lemmas.D0: bottom, lemmas.w: share, lemmas.h: sp.sqrt(1 - p)})
        assert float(first.constant[k]) == pytest.approx(grad * float(value), rel=CLOSE)
        assert float(first.slope[k]) == 1.0
        # its square: right side w^2 p^3 sqrt(x)/(c h), once with the share's average and twice with its largest value
        right = lemmas.variation_square.statement.right
        value = right.subs(
            {lemmas.w: share, lemmas.h: h, lemmas.c: injection, lemmas.root: math.sqrt(kept * v_max) / h}
        )
        spread = error / math.sqrt(bottom) + math.sqrt(float(value) * p / most)
        assert float(second.linear[k]) == pytest.approx(spread, rel=CLOSE)
        # slope: left side h^3/(h root + eps) = h^3/D0, h^2 = B v/(B v + c Y^2)
        square = (0.5 * (1 + 2.0**-47)) ** 2 + min(steep[k] + error, size) ** 2 / 3
        h = math.sqrt(kept * v_min / (kept * v_min + injection * square))
        value = lemmas.slope.statement.left.subs({lemmas.h: h, lemmas.root: (bottom - eps) / h, lemmas.eps: eps})
        assert float(third.slope[k]) == pytest.approx(float(value) * bottom, rel=CLOSE)
        assert float(third.constant[k]) == 0.0
        assert float(third.denominator[k]) == pytest.approx(top, rel=CLOSE)


def test_moments_are_the_statements_of_their_lemmas() -> None:
    x, z, b = _mean_rounding, sp.Rational(1, 16), sp.Rational(1, 8)
    m = x.moments(Format(8, 4), Stochastic(3))
    # the worst t of each lemma's right side is already in it; divide by what the lemma multiplies
    second = (x.second_moment.statement.right / x.X**2).subs(x.z, z)
    assert float(m.second) == pytest.approx(float(second), rel=CLOSE)
    inverse = x.inverse_mean.statement.right.subs({x.z: z, x.b: b})
    assert float(m.inverse_high) == pytest.approx(float(inverse), rel=CLOSE)
    assert float(m.inverse_low) == float(x.inverse_mean_low.statement.left)
    twice = x.inverse_second.statement.right.subs({x.m: inverse, x.z: z})
    assert float(m.inverse_second) == pytest.approx(float(twice), rel=CLOSE)
    assert float(m.log_loss) == pytest.approx(float(x.log_below_reciprocal.statement.right.subs(x.r, 1 / inverse)))


def test_rounding_the_gradient_costs_what_the_curvature_lemma_allows() -> None:
    """y^2 |phi''| <= 4/5 phi and a variance of at most z^2/4 of lo^2: half their product is z^2/10."""
    factor = lemmas.bend.statement.right / lemmas.PHI
    z = sp.Symbol("z", positive=True)
    assert sp.simplify(factor * (z**2 / 4) / 2 - z**2 / 10) == 0


def test_growth_of_a_second_moment_that_never_falls(machine: Any) -> None:
    """Stored beta2 = 1: the bound of the mean rise is at least the mean seen, and not 0 where none was seen."""
    d, seeds = 2, 8
    start = {"w": np.full((d, seeds), 1.5), "v": np.full((d, seeds), 1.0)}
    for gradient, moved in ((1e-3, False), (0.5, True)):
        result = machine.run(
            rmsprop.bind(beta2=0.9999), Precision.uniform(Format(8, 5), Stochastic(16)), start, {}, 60,
            every_step=lambda k, state, gradient=gradient: {"g": np.full((d, seeds), gradient)},
        )  # fmt: skip
        window = machine.window(result, optimizer="rmsprop", noise="none")
        assert window.scalars["scalar.beta2"] == 1.0
        kept, injection = (arb(window.scalars[f"scalar.{name}"]) for name in ("beta2", "one_minus_beta2"))
        seen = np.mean(np.log(result.end["v"] / result.start["v"]), axis=1)
        limits = [float(x) for x in numbers._rises(window, kept, injection)]
        assert np.any(seen > 0) == moved
        assert np.all(np.array(limits) > seen)
        assert np.all(np.array(limits) > 2.0**-5 / seeds)


def test_supermartingale_of_the_rises() -> None:
    """The confidence bound of sum E X from sum X holds in at least 99.9 % of many rare, random rises."""
    generator = np.random.default_rng(4)
    missed = 0
    for chance in (1e-3, 1e-2, 0.1, 0.6):
        jumps = generator.random((5000, 100)) < chance
        seen = np.sum(jumps, axis=1)
        certain = math.log(len(numbers.TILTS) / float(numbers.MISSED))
        limit = np.min([(seen + certain / float(x)) * float(x) / (1 - math.exp(-x)) for x in numbers.TILTS], axis=0)
        missed += int(np.sum(limit < 100 * chance))
    assert missed <= 20


def test_the_gap_around_zero_counts_without_subnormals(machine: Any) -> None:
    fmt = Format(5, 4, subnormals=False)
    result = machine.run(
        sgd.bind(lr=0.125), Precision.uniform(fmt, Stochastic(8)), {"w": np.full((1, 2), 2.0**-13)}, {}, 1,
        every_step=lambda k, state: {"g": np.zeros((1, 2))},
    )  # fmt: skip
    (gap,) = _floor_root.gaps_visited(machine.window(result))
    assert float(gap) == fmt.smallest_normal


def test_a_step_that_is_flushed_away_is_no_stop(machine: Any) -> None:
    """w = 0 stays if w - a is flushed, however many subnormal gaps |a| spans: nothing follows from the grid."""
    tiny = Format(4, 3, tiny="flush")
    mixed = Precision.uniform("binary32", "nearest_even").replace({"w.sub": tiny, "w": tiny})
    start = {"w": np.zeros((1, 2)), "v": np.ones((1, 2))}
    for program, theorem in ((sgd, t06_nearest_gd), (rmsprop.bind(eps=1e-3), t12_rmsprop)):
        result = machine.run(
            program.bind(lr=0.5), mixed, {name: start[name] for name in program.state}, {}, 3,
            every_step=lambda k, state: {"g": np.full((1, 2), tiny.smallest_normal)},
        )  # fmt: skip
        window = machine.window(result, halted=np.ones(2, bool))
        assert theorem.THEOREM.evaluate(window).reason.startswith("tiny results are rounded, not flushed: 2 in w.sub")
        spared = machine.window(result, halted=np.ones(2, bool), underflow={**result.underflow, "w.sub": 0, "w": 0})
        assert "flushed" not in theorem.THEOREM.evaluate(spared).reason
