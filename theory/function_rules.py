"""What a rounded argument does to an elementary function, and to an opaque one of which an axiom says enough.

The argument is computed as x F + e, with F a product of rounding factors and |e| <= absolute. Where the elasticity
x f'(x)/f(x) lies in [0, 1], f(xF)/f(x) is a power of F with an exponent in [0, 1]: a relative enclosure. Elsewhere only
an absolute one follows, from E >= |computed - x|:

exp       e^x (e^E - 1)               exp2   2^x (2^E - 1)           expm1  e^x (e^E - 1)
sin, cos  E                           tanh   E                       erf    E 1129/1000 (> 2/sqrt(pi))
sigmoid   E/4                         log1p  E/(1 - E) for x >= 0
log       |log F| + e/(least - e) for x > 0: an argument with relative errors has a logarithm with absolute ones

Relative: tanh, erf, log1p for x >= 0; pow with an exact exponent r that is a constant, F^r. The result is correctly
rounded: it adds the factor of its own slot. Where no derivative is bounded, an underflow of the argument counts with an
unknown slope[SLOT].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import sympy as sp

from fpsim.program import Operation
from theory.factors import Composed, Exponents, NoEnclosure, Term, combined, factor_bounds, hull, least

_EXACT: Mapping[str, Callable[[sp.Expr], sp.Expr]] = {
    "exp": sp.exp,
    "exp2": lambda x: 2**x,
    "expm1": lambda x: sp.exp(x) - 1,
    "log": sp.log,
    "log2": lambda x: sp.log(x) / sp.log(2),
    "log1p": lambda x: sp.log(1 + x),
    "sin": sp.sin,
    "cos": sp.cos,
    "tanh": sp.tanh,
    "sigmoid": lambda x: 1 / (1 + sp.exp(-x)),
    "erf": sp.erf,
}
_POSITIVE = ("exp", "exp2", "sigmoid")
_ERF_SLOPE = sp.Rational(1129, 1000)


@dataclass(frozen=True)
class OpaqueAxiom:
    """What a user vouches for about one opaque operation: f(x F) lies between f(x) F^a and f(x) F^b for every factor F.

    Parameters
    ----------
    name : of the axiom, printed with every enclosure that rests on it
    elasticity : (a, b), bounds of x f'(x)/f(x)
    citation : why that is so
    nonnegative : whether f >= 0
    lipschitz : bound of |f'|, for arguments with an absolute error; None: there is no bound, and underflow in the
        argument leaves one in the unknown symbol slope[SLOT]
    """

    name: str
    elasticity: tuple[Fraction, Fraction]
    citation: str
    nonnegative: bool = False
    lipschitz: Fraction | None = None


def function(o: Operation, x: Composed, *, absolute: bool) -> Composed:
    """An elementary function of one argument before its own rounding.

    Raises
    ------
    NoEnclosure
        No relative enclosure follows (or, with ``absolute``, none at all).
    """
    f = _EXACT[o.kind]
    exact = f(x.exact)
    kept = all(term.nonnegative for term in x.terms)
    nonnegative = o.kind in _POSITIVE or (kept and o.kind in ("tanh", "erf", "expm1", "log1p"))
    if not x.inexact:
        return Composed((Term(exact, {}, nonnegative),), sp.Integer(0), x.underflow_slots)
    if o.kind in ("tanh", "erf") or (o.kind == "log1p" and kept):
        try:
            exponents = hull({}, x.merged(o.slot).exponents)
        except NoEnclosure:
            if not absolute:
                raise
        else:
            return Composed((Term(exact, exponents, nonnegative),), _slope(o.kind, x.absolute), x.underflow_slots)
    if not absolute:
        raise NoEnclosure(o.slot, f"the relative condition number of {o.kind} at a rounded argument has no bound")
    return Composed((Term(exact, {}, nonnegative),), _error(o, x, kept), x.underflow_slots)


def power(o: Operation, x: Composed, y: Composed, exponent: float | None) -> Composed:
    """x^y before its own rounding; ``exponent`` is y where that is a known constant."""
    tiny = tuple(dict.fromkeys((*x.underflow_slots, *y.underflow_slots)))
    if not x.inexact and not y.inexact:
        positive = all(term.nonnegative for term in x.terms)
        return Composed((Term(x.exact**y.exact, {}, positive),), sp.Integer(0), tiny)
    if exponent is None or y.inexact:
        raise NoEnclosure(o.slot, "pow of a rounded argument needs an exponent that is an exact constant")
    term, r = x.merged(o.slot), Fraction(exponent)
    if not term.nonnegative and r.denominator != 1:
        raise NoEnclosure(o.slot, f"pow with exponent {exponent:g} of a value that may be negative")
    error = _steepest(o, x.absolute, "pow has no bounded derivative")
    even = r.denominator == 1 and r.numerator % 2 == 0
    raised = Term(term.exact ** sp.Rational(r), combined({}, term.exponents, r), term.nonnegative or even)
    return Composed((raised,), error, tiny)


def opaque(o: Operation, x: Composed, axiom: OpaqueAxiom | None) -> Composed:
    """An opaque operation before its own rounding, by the axiom given for its slot."""
    if axiom is None:
        raise NoEnclosure(o.slot, "opaque: an enclosure needs an axiom, axioms={slot: OpaqueAxiom(...)}")
    term = x.merged(o.slot)
    sign = {"nonnegative": True} if axiom.nonnegative else {"real": True}
    applied = sp.Function(o.slot, **sign)(term.exact)
    ends: list[Exponents] = [combined({}, term.exponents, k) for k in axiom.elasticity]
    if axiom.lipschitz is not None:
        error = sp.Rational(axiom.lipschitz) * x.absolute
    else:
        error = _steepest(o, x.absolute, f"axiom {axiom.name!r} bounds no derivative")
    return Composed((Term(applied, hull(*ends), axiom.nonnegative),), error, x.underflow_slots)


def _steepest(o: Operation, error: sp.Expr, reason: str) -> sp.Expr:
    """An absolute error of the argument times a slope that nobody knows: 0 where it is all underflow that never was."""
    if error.subs({s: 0 for s in error.free_symbols if str(s).startswith("eta[")}) != 0:
        raise NoEnclosure(o.slot, f"{reason}, and the argument has an absolute error")
    return error * sp.Symbol(f"slope[{o.slot}]", positive=True) if error != 0 else sp.Integer(0)


def _slope(kind: str, error: sp.Expr) -> sp.Expr:
    """Bound of the change under an absolute error of the argument; of log1p for arguments >= 0."""
    if error == 0:
        return sp.Integer(0)
    if kind == "log1p":
        return error / sp.Max(0, 1 - error)
    return error * {"tanh": 1, "sin": 1, "cos": 1, "sigmoid": sp.Rational(1, 4), "erf": _ERF_SLOPE}[kind]


def _error(o: Operation, x: Composed, kept: bool) -> sp.Expr:
    error = x.error()
    if o.kind in ("exp", "expm1"):
        return sp.exp(x.exact) * (sp.exp(error) - 1)
    if o.kind == "exp2":
        return 2**x.exact * (2**error - 1)
    if o.kind in ("log", "log2"):
        if not kept:
            raise NoEnclosure(o.slot, f"{o.kind} of rounded terms that may cancel")
        lower, upper = factor_bounds(x.merged(o.slot).exponents)
        change = sp.Max(sp.log(upper), -sp.log(lower))
        if x.absolute != 0:
            change += x.absolute / sp.Max(0, least(o.operands[0]) - x.absolute)
        return change if o.kind == "log" else change / sp.log(2)
    if o.kind == "log1p" and not kept:
        raise NoEnclosure(o.slot, "log1p of an argument that may come near -1")
    return _slope(o.kind, error)
