"""The constants of the tensor-level model, q_G, q_M, q_V, q_U and q_W, of any optimizer at any precision.

The literature models a low-precision optimizer as exact arithmetic on tensors that are then off by a relative error.
For a program that rounds every operation those errors are not free: they follow from its operations (``composition``).

Roles are found in the program, not by names. With the gradient cut off as a given value,

* a *moment* is a state s' = sum (decay s) + sum (injection f(g)), f(g) > 0 or odd in g, both not negative: first
  moment if f(g) = g, second if f(g) >= 0;
* every other state is a *weight*: its last operation adds a *step* to it.

One moment, with the stored decay A and injection B (never 1 - A), terms rounded k times by composition:

    a_- s + b_- f <= s' <= a_+ s + b_+ f  (s, f >= 0),     a_-+ = A prod l | h,  b_-+ = B prod l | h
    one step  q = largest |factor - 1|:        |s' - (A s + B f)| <= q (A |s| + B |f|)
    steady    1 + Q_+ = (b_+/(1 - a_+)) / (B/(1 - A)),  1 - Q_- the same with a_-, b_-

Q bounds the error of the state against the exact average of the same sequence f(g_t) <= F, divided by F B/(1 - A); for
f >= 0 and constant f it is the relative error. It exists while a_+ < 1. To first order Q is (k_i + k_d A/(1 - A)) u,
with k_d, k_i roundings of decay and injection: u (3 - A)/(1 - A) for v' = fl(fl(A v) + fl(B fl(g g))), where the square
counts; one step is off by 3u then, not 2u.

q_G: storing g (or computing it in the machine). q_U: the step, given the stored moments and g. q_W: adding the step and
storing the weight, relative to the new weight. All of them suppose that nothing overflows or underflows.

>>> from fpsim.optim.adam import adam
>>> from fpsim.precision import Precision
>>> found = constants(adam, Precision.uniform("bfloat16"))
>>> found.update["w"].first_order.subs(dict.fromkeys(found.update["w"].first_order.free_symbols, 1))
11/2
>>> found.moments["v"].steady.reason
'the stored decay is 1: the exact average itself grows without bound'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

import sympy as sp

from fpsim.precision import Precision, scalar_values
from fpsim.program import Program
from theory.composition import NoEnclosure, Slots, Term, compose, enclosure, factor_bounds, model_values
from theory.enclosure import enclose
from theory.factors import Exponents, deviation, first_order, symbol
from theory.roles import last_sum, step_of

_NOTHING = sp.Integer(0)
_Parts: TypeAlias = list[tuple[sp.Expr, Term]]  # (coefficient of scalars, term)


@dataclass(frozen=True)
class Constant:
    """One constant.

    Attributes
    ----------
    name : ``"q_V"``, ``"a_+[v]"``
    closed : exact bound, in l[slot], h[slot] and scalars; None if there is none
    first_order : the same to first order, in u[slot] (u to nearest, 2u otherwise) and scalars
    value : certified enclosure of ``closed`` for the formats and stored scalars; (inf, inf) if there is no bound
    reason : why there is none, or no number; else empty
    margins : comparisons on the way; the constant holds where their exact margins exceed the errors of what is compared
    """

    name: str
    closed: sp.Expr | None
    first_order: sp.Expr | None
    value: tuple[float, float]
    reason: str = ""
    margins: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.reason:
            return f"{self.name} = none: {self.reason}"
        rough = "" if self.first_order is None else f"  ~ {self.first_order}"
        margins = f"  where the margin of {', '.join(self.margins)} suffices" if self.margins else ""
        return f"{self.name} <= {self.value[1]:.6g}{rough}{margins}"


@dataclass(frozen=True)
class Moment:
    """A moment's constants; ``injected`` is f(g)."""

    state: str
    injected: sp.Expr
    second: bool
    decay_low: Constant
    decay_high: Constant
    injection_low: Constant
    injection_high: Constant
    one_step: Constant
    steady: Constant


@dataclass(frozen=True)
class TensorConstants:
    """What a program at a precision is in the tensor-level model: q_G, the moments, q_U and q_W by weight."""

    program: str
    gradient: Constant
    moments: Mapping[str, Moment]
    update: Mapping[str, Constant]
    weights: Mapping[str, Constant]

    def __str__(self) -> str:
        lines = [f"tensor-level constants of {self.program}", f"  {self.gradient}"]
        for moment in self.moments.values():
            kind = "second" if moment.second else "first"
            lines.append(f"  {moment.state}: {kind} moment of {moment.injected}")
            lines += [
                f"    {moment.decay_low.name} = {moment.decay_low.value[0]:.6g}, "
                f"{moment.decay_high.name} = {moment.decay_high.value[1]:.6g}, "
                f"{moment.injection_low.name} = {moment.injection_low.value[0]:.6g}, "
                f"{moment.injection_high.name} = {moment.injection_high.value[1]:.6g}",
                f"    {moment.one_step}",
                f"    {moment.steady}",
            ]
        lines += [f"  {constant}" for table in (self.update, self.weights) for constant in table.values()]
        return "\n".join(lines)


def constants(
    program: Program, precision: Precision, *, gradient: str = "g", lengths: Mapping[str, int] | None = None
) -> TensorConstants:
    """The constants of an optimizer's program.

    Parameters
    ----------
    program : a step, or ``gradient >> step``
    precision : Precision
    gradient : name of the array or slot that holds the gradient
    lengths : of the dimensions that reductions sum over

    Raises
    ------
    ValueError
        The program has no value of the gradient's name.

    Examples
    --------
    >>> from fpsim.optim.rmsprop import rmsprop
    >>> found = constants(rmsprop.bind(beta2=0.9), Precision.uniform("e8m10")).moments["v"].steady.first_order
    >>> found.subs({s: 1 for s in found.free_symbols if str(s).startswith("u[")})
    2*scalar.beta2/(1 - scalar.beta2) + 3
    """
    model = _Model(program, precision, gradient, lengths or {})
    return TensorConstants(
        program.name, model.gradient_constant(), model.moments, model.updates(), model.weight_constants()
    )


class _Model:
    def __init__(self, program: Program, precision: Precision, gradient: str, lengths: Mapping[str, int]) -> None:
        known = (*program.inputs, *(o.slot for o in program.operations))
        if gradient not in known:
            raise ValueError(f"gradient={gradient!r}; admissible: {', '.join(known)}")
        self.program, self.gradient, self.lengths = program, gradient, lengths
        self.slots: Slots = precision.resolve(program)
        values = scalar_values(program, precision, range(1))
        varying = {s.name for s in program.scalars if program.varies(s)}
        self.scalars = {k: float(x.flat[0]) for k, x in values.items() if k not in varying and x.size == 1}
        self.sources = dict(program.outputs)
        self.moments: dict[str, Moment] = {}
        for state in program.state:
            found = self._moment(state)
            if found is not None:
                self.moments[state] = found
        self.weights = [state for state in program.state if state not in self.moments]

    # moments

    def _moment(self, state: str) -> Moment | None:
        others = tuple(name for name in self.program.inputs if name != self.gradient)
        try:
            composed = compose(
                self.program, self.slots, f"{state} ->", exact=(*others, self.gradient), nonnegative=(state,),
                scalars=self.scalars, lengths=self.lengths,
            )  # fmt: skip
        except NoEnclosure:
            return None
        kept, fresh = symbol(state, nonnegative=True), symbol(self.gradient)
        decay: _Parts = []
        inject: _Parts = []
        injected = set()
        for term in composed.terms:
            coefficient, rest = _split(term.exact)
            if coefficient.is_negative:  # a stored decay or injection below 0
                return None
            if rest == kept:
                decay.append((coefficient, term))
            elif rest.free_symbols == {fresh} and not coefficient.could_extract_minus_sign():
                inject.append((coefficient, term))
                injected.add(rest)
            else:
                return None
        if not decay or len(injected) != 1:
            return None
        (f,) = injected
        second = bool(f.is_nonnegative)
        if not second and sp.expand(f.subs(fresh, -fresh) + f) != 0:
            return None
        return self._numbers(state, f, second, decay, inject)

    def _numbers(self, state: str, f: sp.Expr, second: bool, decay: _Parts, inject: _Parts) -> Moment:
        exponents = [term.exponents for _, term in (*decay, *inject)]
        (a_low, a_high), (b_low, b_high) = (
            [sp.Add(*(c * factor_bounds(term.exponents)[upper] for c, term in part)) for upper in (0, 1)]
            for part in (decay, inject)
        )
        a, b = (sp.Add(*(c for c, _ in part)) for part in (decay, inject))
        letter = "V" if second else "M" if f == symbol(self.gradient) else state
        slots = list(dict.fromkeys(name for e in exponents for name in e))
        one_step = self._constant(
            f"q_{letter}", sp.Max(_NOTHING, *(deviation(e) for e in exponents)), slots,
            sp.Max(_NOTHING, *(first_order(e) for e in exponents)),
        )  # fmt: skip
        rough = _weighted(inject, b) + _weighted(decay, a) * a / (1 - a)
        closed = sp.Max(b_high / (1 - a_high) * (1 - a) / b - 1, 1 - b_low / (1 - a_low) * (1 - a) / b)
        kept_low, kept_high, new_low, new_high = (
            self._constant(f"{name}[{state}]", expression, slots, None)
            for name, expression in (("a_-", a_low), ("a_+", a_high), ("b_-", b_low), ("b_+", b_high))
        )
        steady = self._steady(f"Q_{letter}", closed, rough, slots, a, kept_high)
        return Moment(state, f, second, kept_low, kept_high, new_low, new_high, one_step, steady)

    def _steady(
        self, name: str, closed: sp.Expr, rough: sp.Expr, slots: list[str], a: sp.Expr, decay_high: Constant
    ) -> Constant:
        if decay_high.reason:
            return _none(name, decay_high.reason)
        exact = self._value(a, [])
        if exact[1] >= 1:
            return _none(name, f"the stored decay is {exact[1]:g}: the exact average itself grows without bound")
        if decay_high.value[1] >= 1:
            return _none(name, f"a_+ = {decay_high.value[1]:.6g} >= 1: rounding may undo the decay")
        return self._constant(name, closed, slots, rough)

    # gradient, steps and weights

    def gradient_constant(self) -> Constant:
        if self.gradient in self.program.inputs:
            return self._factor("q_G", self.gradient, ())
        return self._factor("q_G", self.gradient, self.program.inputs)

    def updates(self) -> dict[str, Constant]:
        moments = [self.sources[name] for name in self.moments]
        second = [name for state, m in self.moments.items() if m.second for name in (state, self.sources[state])]
        given = (*self.program.inputs, self.gradient, *moments)
        result = {}
        for state in self.weights:
            name = f"q_U[{state}]" if len(self.weights) > 1 else "q_U"
            try:
                found = step_of(self.program, state, self.gradient)
            except NoEnclosure as none:
                result[state] = _none(name, str(none))
            else:
                result[state] = self._factor(name, found, given, tuple(second))
        return result

    def weight_constants(self) -> dict[str, Constant]:
        result = {}
        for state in self.weights:
            name = f"q_W[{state}]" if len(self.weights) > 1 else "q_W"
            operation = last_sum(self.program, state)
            if operation is None:
                result[state] = _none(name, f"{self.sources[state]}: no sum ends the update of {state}")
            else:
                result[state] = self._factor(name, f"{state} ->", operation.operands)
        return result

    # numbers

    def _factor(self, name: str, value: str, exact: tuple[str, ...], nonnegative: tuple[str, ...] = ()) -> Constant:
        """The largest factor of a value over the outcomes of its comparisons."""
        answer = enclosure(self.program, self.slots, value, exact, nonnegative, self.scalars, self.lengths)
        if isinstance(answer, NoEnclosure):
            return _none(name, str(answer))
        exponents: list[Exponents] = []
        for case in answer.cases:
            if isinstance(case.relative, NoEnclosure):
                return _none(name, str(case.relative))
            exponents.append(case.relative.exponents)
        slots = list(dict.fromkeys(slot for e in exponents for slot in e))
        compared = dict.fromkeys(condition.slot for case in answer.cases for condition in case.conditions)
        found = self._constant(
            name, sp.Max(*(deviation(e) for e in exponents)), slots, sp.Max(*(first_order(e) for e in exponents))
        )
        return replace(found, margins=tuple(compared))

    def _constant(self, name: str, closed: sp.Expr, slots: list[str], rough: sp.Expr | None) -> Constant:
        names = sorted(str(s) for s in closed.free_symbols if str(s).startswith("scalar."))
        unknown = [scalar for scalar in names if scalar not in self.scalars]
        if unknown:
            reason = f"{', '.join(unknown)} is not one number for all steps and runs"
            return Constant(name, closed, rough, (math.inf, math.inf), reason)
        return Constant(name, closed, rough, self._value(closed, slots))

    def _value(self, expression: sp.Expr, slots: list[str]) -> tuple[float, float]:
        values: dict[sp.Symbol, float | Fraction] = dict(model_values(self.slots, slots))
        values |= {s: self.scalars[str(s)] for s in expression.free_symbols if str(s) in self.scalars}
        return enclose(expression, values)


def _split(exact: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """A product as (what scalars and numbers make of it, the rest)."""
    arrays = [s for s in exact.free_symbols if not str(s).startswith("scalar.")]
    coefficient, rest = exact.as_independent(*arrays, as_Add=False) if arrays else (exact, sp.Integer(1))
    return coefficient, rest


def _weighted(parts: _Parts, total: sp.Expr) -> sp.Expr:
    """First-order error of a sum of terms of one kind, relative to the sum."""
    return sp.Add(*(c / total * first_order(term.exponents) for c, term in parts))


def _none(name: str, reason: str) -> Constant:
    return Constant(name, None, None, (math.inf, math.inf), reason)
