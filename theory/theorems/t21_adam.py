"""T21."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import is_nearest
from theory.composition import NoEnclosure
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, working_precision
from theory.rounding_model import shrinks
from theory.theorem import Bound, Hypothesis, Theorem, no_events, not_flushed, one_format_of_weights, stored_scalar
from theory.theorems import _adam_lemmas as lemmas
from theory.theorems import _adam_numbers as numbers
from theory.theorems._floor_root import fall
from theory.theorems.t08_stochastic_gd import measured
from theory.window import Window

QUANTITY = "root mean square of the gradient norm over window and seeds"
MOST_ITERATIONS = 60


def _column(rows: Sequence[numbers.Values], expression: sp.Expr) -> list[Ball]:
    symbols = list(rows[0])
    function = compile_expression(expression, symbols)
    return [function([row[symbol] for symbol in symbols]) for row in rows]


def _norm(values: Sequence[Ball]) -> Ball:
    return sum((x * x for x in values), arb(0)).sqrt()


def _most(values: Sequence[Ball]) -> Ball:
    result = values[0]
    for x in values[1:]:
        result = result.max(x)
    return result


def _upper(x: Ball) -> Ball:
    return ball(ends(x)[1])


def solve(window: Window, rows, shifted_fall, debug=False):
    separable = numbers.curvatures(window)[1]
    col = lambda e: _column(rows, e)
    a, lin = col(lemmas.SQUARE), col(lemmas.LINEAR)
    disp, cross = col(lemmas.DISPLACED), col(lemmas.CROSS)
    m2, m1, c0 = col(lemmas.MOMENTUM2), col(lemmas.MOMENTUM1), col(lemmas.CONSTANT)
    if separable:
        weights = [ball(float((p + q) ** 2 / x)) for p, q, x in zip(disp, cross, a)]
        kappa = _most([(p + q) / (x * y).sqrt() for p, q, x, y in zip(disp, cross, a, weights)])
    else:
        weights = [arb(1)] * len(a)
        kappa = _most([p / x.sqrt() for p, x in zip(disp, a)]) + _most([p / x.sqrt() for p, x in zip(cross, a)])
    B = _norm([p / x.sqrt() for p, x in zip(lin, a)])
    g = _most([x / y for x, y in zip(m2, weights)])
    h = _norm([x / y.sqrt() for x, y in zip(m1, weights)])
    const = sum(c0, arb(0))
    K = _most([1 / (row[lemmas.s0] ** 2 * x) for row, x in zip(rows, a)])
    F = shifted_fall / window.steps
    floor = lambda S: (B + kappa * S + ((B + kappa * S) ** 2 + 4 * (F + g * S * S + h * S + const)).sqrt()) / 2

    def momentum(hold, xu, linear, gradient, constant, fallen):
        if any(not x > 0 for x in hold):
            return None
        theta = [w / x for w, x in zip(weights, hold)]
        if fallen and not separable:
            theta = [_most(theta)] * len(theta)
        # sum theta hold u^2 >= sum weights u^2
        cc = _most([t * x / (y * w).sqrt() for t, x, y, w in zip(theta, xu, a, weights)])
        dd = _norm([t * x / w.sqrt() for t, x, w in zip(theta, linear, weights)])
        jj = _norm([t * x / y.sqrt() for t, x, y in zip(theta, gradient, a)])
        con = sum((t * x for t, x in zip(theta, constant)), arb(0))
        if fallen:
            con += 2 * rows[0][lemmas.Gamma] * _most(theta) * fall(window) / window.steps
        return lambda Z: (cc * Z + dd + ((cc * Z + dd) ** 2 + 4 * (jj * Z + con)).sqrt()) / 2

    zero = [arb(0)] * len(a)
    free = momentum([1 - x for x in col(lemmas.decay)], col(lemmas.FREE_CROSS), col(lemmas.FREE_LINEAR), zero, col(lemmas.FREE), False)
    held = momentum(col(lemmas.HELD), col(lemmas.HELD_CROSS), col(lemmas.HELD_LINEAR), col(lemmas.HELD_GRADIENT), col(lemmas.HELD_CONSTANT), True)
    return a, weights, K, B, kappa, g, h, const, F, floor, free, held
