"""T22: the sum of the gradient's moduli under Adam with exact gradients: the D-lemma.

Model and notation as in T20, X as there. Let a and b be what v' is at most in the mean, E v' <= a v + b g^2, and q the
right side.

Statement. avg E sum |grad_i| <= rho X sqrt(n0 + n1 X^2) + sum e_i, where n0 + n1 X^2 >= avg E sum 1/eta: with t >=
1/(eta sqrt(v')) and a < 1,

    avg E sum sqrt(v') <= (sqrt(a) first + w b t X^2)/(1 - sqrt(a)),   w = 1/(1 + sqrt(1 - p_max)),

or, whichever is less, the largest v that was seen (n1 = 0). Without rounding w b/(1 - sqrt(a)) -> 1 as beta2 -> 1: no
denominator is left, and the sum of moduli is of the order of X^2.

Why. sqrt(q) <= sqrt(a v) + w b g^2/sqrt(q), an identity with w = 1/(1 + sqrt(a v/q)): divided by sqrt(v') and not by
the root before the step, the new gradient needs no bound of v'/v. |g| = (|g| sqrt(eta)) / sqrt(eta) and Cauchy-Schwarz.

Where rounding upward outweighs the decay of v (a >= 1: a narrow format to nearest), n1 = 0 remains.

Tightness: upper. Source: derived here.
"""

from __future__ import annotations

import numpy as np
from flint import arb

from theory.enclosure import BITS, Ball, ball, compile_expression, ends, largest, working_precision
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems import _adam_energy as lemmas
from theory.theorems import _adam_numbers as numbers
from theory.theorems import _adam_roundings as roundings
from theory.theorems import t20_adam_exact as t20
from theory.window import FloatArray, Window

QUANTITY = "average over the window and seeds of the sum of |grad_i|"


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks, energy = t20.energy_of(window)
    if energy is None:
        return Bound("T22", QUANTITY, checks)
    checks = (*checks, Hypothesis("the sum of moduli was recorded", "l1_gradient" in window.samples))
    if not checks[-1].ok:
        return Bound("T22", QUANTITY, checks)
    with working_precision(BITS):
        moduli = compile_expression(lemmas.MODULI, [lemmas.top, lemmas.X, lemmas.n0, lemmas.n1, lemmas.E0])
        error = sum((row[lemmas.error] for row in energy.rows), arb(0))
        found = [ends(moduli([energy.top, energy.X, n0, n1, error])) for n0, n1 in denominators(window)]
    lower, upper = min(found, key=lambda pair: pair[1])
    return Bound("T22", QUANTITY, checks, lower, upper)


def denominators(window: Window) -> list[tuple[Ball, Ball]]:
    """(n0, n1) with avg E sum 1/eta <= n0 + n1 X^2: from the largest v, and from the D-lemma where a < 1."""
    s, c = numbers.scalars(window), roundings.corrections(window)
    scale = c.c1[1] / (numbers.updated(window).middle * s.lr)
    eps, root = scale * s.eps * window.dimension, scale / c.c2[0].sqrt()
    most = sum((ball(x).sqrt() for x in np.max(window.max_abs["v"], axis=1)), arb(0))
    result = [(root * most + eps, arb(0))]
    a, wb = growth(window)
    if a < 1:
        starts = sum((ball(x).sqrt() for x in window.start["v"].flat), arb(0)) / (window.seeds * window.steps)
        inverse = scale * (1 / c.c2[0].sqrt() + s.eps / ball(np.min(window.min_abs["v"])).sqrt())
        names = [lemmas.ra, lemmas.first, lemmas.wb, lemmas.inv, lemmas.free, lemmas.X]
        roots = compile_expression(lemmas.ROOTS, names)
        values = [a.sqrt(), starts, wb, inverse, 1 - a.sqrt()]
        constant = roots([*values, arb(0)])
        result.append((root * constant + eps, root * (roots([*values, arb(1)]) - constant)))
    return result


def growth(window: Window) -> tuple[Ball, Ball]:
    """(a, w b): E v' <= a v + b g^2, to nearest always; underflow counts as one more factor."""
    s = numbers.scalars(window)
    tiny = roundings.second_moment_underflow(window, s.kept * ball(np.min(window.min_abs["v"])))
    at = {name: roundings.rounding(window, name).mean.high for name in numbers.SQUARES}
    after = at["v.add"] * roundings.storing(window, "v", "v.add").mean.high * tiny.mean.high
    a, b = s.kept * at["v.decay"] * after, s.injection * at["v.square"] * at["v.inject"] * after
    shares = []
    for v, g in zip(np.min(window.min_abs["v"], axis=1), np.max(window.max_abs["g"], axis=1), strict=True):
        fresh = b * ball(g) ** 2
        shares.append(fresh / (a * ball(v) + fresh))
    return a, b / (1 + (1 - largest(shares)).sqrt())


def measured(window: Window) -> FloatArray:
    """Window average of the sum of moduli of the true gradient, [S]."""
    samples = window.samples.get("l1_gradient")
    return np.full(window.seeds, np.nan) if samples is None else np.asarray(np.mean(samples, axis=0), dtype=np.float64)


THEOREM = Theorem(
    identifier="T22",
    title="Adam with exact gradients: the sum of the gradient's moduli, without a denominator",
    quantity=QUANTITY,
    tightness="upper",
    source="derived here",
    statement=lemmas.moduli.statement,
    derivations=(lemmas.moduli, lemmas.second_moment_root, lemmas.growth, *t20.THEOREM.derivations),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("adam",),
)
