"""The first moment of a step, by composition: m' = D1 b m + D2 c ghat + e, with the stored decay b and injection c."""

from __future__ import annotations

import math
from dataclasses import dataclass

import sympy as sp

from theory.composition import Composed, NoEnclosure, compose, factor_bounds, model_values, relative_factor
from theory.composition import symbol as named
from theory.enclosure import Ball, ball, evaluate
from theory.theorems._underflow import absolute_part
from theory.window import Window


@dataclass(frozen=True)
class FirstMoment:
    """Numbers of the first moment, as balls.

    Attributes
    ----------
    fresh : the value that is stored in m
    decay, injection : b and c
    kept, fed : least and largest D1, and D2 (which holds the roundings of the gradient too)
    absolute : bound of |e|; 0 where nothing underflowed, not finite where the sizes are not known
    underflow_slots : where it comes from
    held : whether m is stored in a format that holds the fresh value
    """

    fresh: str
    decay: Ball
    injection: Ball
    kept: tuple[Ball, Ball]
    fed: tuple[Ball, Ball]
    absolute: Ball
    underflow_slots: tuple[str, ...]
    held: bool


def first_moment(window: Window) -> FirstMoment:
    """Of a step that stores ``m``; ``NoEnclosure`` where that is not a decayed m and a multiple of the gradient."""
    program, slots, scalars = window.program, window.slots, window.scalars
    exact = ("w", *window.exact_constants)
    fresh = dict(program.outputs)["m"]
    composed = compose(program, slots, "m ->", exact=(*exact, "m"), scalars=scalars)
    kept = [t for t in composed.terms if t.exact.has(named("m"))]
    fed = tuple(t for t in composed.terms if not t.exact.has(named("m")))
    if len(kept) != 1 or not fed:
        raise NoEnclosure("m", "not a decayed m and something else")
    handed = relative_factor(program, slots, "g", exact=exact, scalars=scalars)
    added = Composed(fed, sp.Integer(0), ()).merged(fresh)
    bounds = []
    for term in (kept[0], added):
        values = model_values(slots, tuple(term.exponents))
        least, most = factor_bounds(term.exponents)
        bounds.append((evaluate(least, values), evaluate(most, values)))
    return FirstMoment(
        fresh=fresh,
        decay=_scalar(window, sp.cancel(kept[0].exact / named("m")), "m.decay"),
        injection=_scalar(window, sp.cancel(added.exact / handed.exact), "m.inject"),
        kept=bounds[0],
        fed=bounds[1],
        absolute=absolute_part(window, composed.absolute, composed.underflow_slots),
        underflow_slots=composed.underflow_slots,
        held="m" not in kept[0].exponents,
    )


def _scalar(window: Window, coefficient: sp.Expr, slot: str) -> Ball:
    """The value of a coefficient made of stored scalars; ``NoEnclosure`` if it is anything else, or negative."""
    known = {s: window.scalars.get(str(s), math.nan) for s in coefficient.free_symbols}
    value = evaluate(coefficient, known) if all(map(math.isfinite, known.values())) else ball(-1)
    if not value >= 0:
        raise NoEnclosure(slot, f"the coefficient {coefficient} is no constant that is known to be nonnegative")
    return value
