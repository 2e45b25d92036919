"""The coefficients of a stored moment in the old state and the gradient, from its composed terms."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import sympy as sp

from theory.composition import Composed, NoEnclosure, eta, factor_bounds, model_values
from theory.enclosure import Ball, ball, evaluate
from theory.factors import Exponents
from theory.window import Window


def parts(
    window: Window, composed: Composed, monomials: tuple[sp.Expr, ...]
) -> Iterator[tuple[int, sp.Expr, Exponents]]:
    """(number of a monomial, its coefficient in the scalars, exponents of its rounding factors), part by part.

    Raises
    ------
    NoEnclosure
        A part of the value is no nonnegative multiple of a monomial.
    """
    for term in composed.terms:
        for part, number, coefficient in _multiples(term.exact, monomials):
            if coefficient is None or not exact_value(window, coefficient) >= 0:  # a decay, say, below 0
                raise NoEnclosure(str(part), "not a nonnegative multiple of " + " or ".join(map(str, monomials)))
            yield number, coefficient, term.exponents


@functools.lru_cache(maxsize=1 << 10)
def _multiples(exact: sp.Expr, monomials: tuple[sp.Expr, ...]) -> tuple[tuple[sp.Expr, int, sp.Expr | None], ...]:
    """(part, number of its monomial, coefficient), part by part; without a coefficient where it is no multiple."""
    result: list[tuple[sp.Expr, int, sp.Expr | None]] = []
    for part in sp.Add.make_args(sp.expand(exact)):
        quotients = [sp.cancel(part / monomial) for monomial in monomials]
        found = [k for k, q in enumerate(quotients) if all(str(s).startswith("scalar.") for s in q.free_symbols)]
        result.append((part, found[0], quotients[found[0]]) if found else (part, -1, None))
    return tuple(result)


def coefficients(window: Window, composed: Composed, monomials: tuple[sp.Expr, ...], *, upper: bool) -> list[Ball]:
    """Upper or lower end of the coefficient of each monomial; ``NoEnclosure`` if the value has any other part."""
    totals = [ball(0) for _ in monomials]
    for k, coefficient, exponents in parts(window, composed, monomials):
        values = dict(model_values(window.slots, tuple(exponents)))
        totals[k] += evaluate(coefficient * factor_bounds(exponents)[upper], {**values, **_stored(window, coefficient)})
    return totals


def exact_value(window: Window, coefficient: sp.Expr) -> Ball:
    """A coefficient at the stored scalars."""
    return evaluate(coefficient, _stored(window, coefficient))


def absolute_part(window: Window, composed: Composed, *, counted: bool) -> Ball:
    """What underflow adds in one step.

    Parameters
    ----------
    counted : whether the window's counts are about the steps in question; then a slot without an underflow adds nothing

    Raises
    ------
    NoEnclosure
        The size of a value enters that is not known.
    """
    tiny = [s for s in composed.underflow_slots if not counted or window.underflow.get(s, 1)]
    absolute = sp.sympify(composed.absolute).subs({eta(s): 0 for s in composed.underflow_slots if s not in tiny})
    if absolute == 0:
        return ball(0)
    names = {str(x).partition("[")[2].rstrip("]") for x in absolute.free_symbols} & set(window.slots)
    values = {**model_values(window.slots, names), **_stored(window, absolute)}
    unknown = [x for x in absolute.free_symbols if x not in values]
    if unknown:
        raise NoEnclosure(", ".join(tiny), f"underflow adds a multiple of {unknown[0]}")
    return evaluate(absolute, values)


def _stored(window: Window, expression: sp.Expr) -> dict[sp.Symbol, Ball]:
    known = {s: str(s) for s in expression.free_symbols if str(s).startswith("scalar.")}
    missing = [name for name in known.values() if name not in window.scalars]
    if missing:
        raise NoEnclosure(missing[0], "it changes from step to step")
    return {s: ball(window.scalars[name]) for s, name in known.items()}
