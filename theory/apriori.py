"""Absolute errors before any run: measured sizes replaced by what composition knows about them.

``composition.absolute_error`` carries underflow along with size[name] and least[name], the extremes of computed values
on a run. Here both are bounded by the exact values themselves, element by element: with |computed - exact| <= E,

    |computed| <= |exact| + E,        |computed| >= max(0, |exact| - E),

E by composition again, down to the exact values. A denominator that E may reach gives an infinite bound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sympy as sp

from fpsim.program import Program
from theory.composition import AbsoluteError, NoEnclosure, OpaqueAxiom, Slots
from theory.factors import magnitude
from theory.roles import upstream
from theory.walk import Question, Walk

_MOVES = ("sum", "dot", "expand", "gather")


def apriori_error(
    program: Program,
    slots: Slots,
    value: str,
    exact: Collection[str] = (),
    nonnegative: Collection[str] = (),
    scalars: Mapping[str, float] | None = None,
    axioms: Mapping[str, OpaqueAxiom] | None = None,
) -> AbsoluteError:
    """The absolute error of a value in exact values, l, h and eta alone; arguments as for ``composition.compose``.

    Raises
    ------
    NoEnclosure
        As for ``absolute_error``; or an element of the value is made of other elements, whose sizes it does not know.

    Examples
    --------
    >>> from fpsim.optim.rmsprop import rmsprop
    >>> from fpsim.precision import Precision
    >>> slots = Precision.uniform("binary16").resolve(rmsprop)
    >>> error = apriori_error(rmsprop, slots, "update.div", exact=("v", "g"), nonnegative=("v",))
    >>> any(str(s).startswith(("size", "least")) for s in error.bound.free_symbols)
    False
    """
    for operation in upstream(program, [value], exact):
        if operation.kind in _MOVES:
            raise NoEnclosure(operation.slot, f"{operation.kind} reads other elements: their sizes are not those here")
    question = Question(
        program, slots, frozenset(exact), frozenset(nonnegative), scalars or {}, {}, axioms or {}, absolute=True
    )
    walk = Walk(question)
    composed = walk.value(value)
    return AbsoluteError(composed.exact, _resolved(composed.error(), walk, {}), composed.underflow_slots)


def _resolved(expression: sp.Expr, walk: Walk, known: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    """The expression with every size[..] and least[..] replaced by its bound."""
    for unknown in sorted(expression.free_symbols, key=str):
        kind, _, name = str(unknown).rstrip("]").partition("[")
        if kind in ("size", "least") and unknown not in known:
            composed = walk.value(name)
            size, error = magnitude(composed.exact), _resolved(composed.error(), walk, known)
            known[unknown] = size + error if kind == "size" else sp.Max(0, size - error)
    return expression.subs({s: known[s] for s in expression.free_symbols if s in known}, simultaneous=True)
