"""What all roundings of a program together can do to one of its values, read off the program itself.

A computed value is written as a sum of terms and an absolute part,

    computed = sum_i exact_i * prod_s (1 + delta_s)^{k_is}  +  e,      |e| <= absolute,

with l_s <= 1 + delta_s <= h_s for every slot s (R1, R2 of ``rounding_model``) and k_is in a known interval. Rules:

* products add exponents, quotients subtract, square roots halve, a power with a constant exponent multiplies;
* a sum of terms of one sign is one term: a weighted mean of the factors lies between two of them, and what lies
  between two products prod (1+delta_s)^{k_s} and prod (1+delta_s)^{k'_s} is such a product with exponents in between;
* a sum or difference of values that carry no rounding yet is a new exact value; other sums of terms of unknown sign
  stay apart. Whoever needs one factor for them gets ``NoEnclosure``, naming the slot (``relative_factor``), or turns
  the relative errors into an absolute one, sum |exact_i| |factor_i - 1| (``absolute_error``);
* neg, abs, max, min are exact and monotone; so are a product with and a quotient by a scalar whose stored value is a
  power of two, up to underflow, if the result has the precision of the other operand;
* a reduction adds 1 .. depth roundings to each of its terms, in the accumulator's order (``reductions``);
* expand and gather are exact; a moved element carries the factors of the place that it comes from (``factors``);
* elementary and opaque functions: ``function_rules``. rem, matmul and draw have no enclosure;
* comparisons and where split into cases: the outcome is that of exact arithmetic where the exact margin exceeds the
  accumulated error (``enclosure``);
* underflow (R3) enters the absolute part and is carried along with the measured sizes of the other operands.

``exact`` names the values that are the reference: stored states, the stored gradient. Any other array contributes the
factor of its own slot, the error of storing it. The rules themselves are in ``walk``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import sympy as sp

from fpsim.precision import Precision
from fpsim.program import Program
from theory.enclosure import enclose
from theory.factors import (
    Composed,
    Exponents,
    NoEnclosure,
    Term,
    coefficients,
    eta,
    factor_bounds,
    first_order,
    high,
    least,
    low,
    size,
    slot_of,
    symbol,
    unit,
)
from theory.function_rules import OpaqueAxiom
from theory.known_walks import walked
from theory.rounding_model import low_high, underflow_unit
from theory.walk import Condition, Question, Slots, Undecided, Walk

__all__ = [
    "AbsoluteError",
    "Case",
    "Composed",
    "Condition",
    "Enclosure",
    "Factor",
    "NoEnclosure",
    "OpaqueAxiom",
    "Slots",
    "Term",
    "absolute_error",
    "compose",
    "enclosure",
    "enclosures",
    "eta",
    "factor_bounds",
    "high",
    "least",
    "low",
    "model_values",
    "relative_factor",
    "size",
    "symbol",
    "unit",
]

MOST_CASES = 64


@dataclass(frozen=True)
class Factor:
    """low <= computed/exact <= high where no underflow happened; |computed - exact * factor| <= absolute in general.

    Attributes
    ----------
    exact : what is computed, in the names of the exact values
    exponents : slot -> interval of the exponent of its (1 + delta)
    low, high : in the symbols l(slot), h(slot)
    low_value, high_value : enclosures (lower end, upper end) of the two numbers for the given formats
    absolute : in the symbols eta(slot), size(name), least(name); 0 where every eta is
    underflow_slots : slots whose eta appears in ``absolute``
    """

    exact: sp.Expr
    exponents: Exponents
    low: sp.Expr
    high: sp.Expr
    low_value: tuple[float, float]
    high_value: tuple[float, float]
    absolute: sp.Expr
    underflow_slots: tuple[str, ...]

    @property
    def coefficients(self) -> dict[str, Fraction]:
        """slot -> first-order coefficient of its unit u[slot] (u to nearest, 2u otherwise) in the relative error."""
        return coefficients(self.exponents)

    @property
    def first_order(self) -> sp.Expr:
        """The relative error to first order, in the symbols u[slot]."""
        return first_order(self.exponents)


@dataclass(frozen=True)
class AbsoluteError:
    """|computed - exact| <= bound.

    Attributes
    ----------
    exact : what is computed, in the names of the exact values
    bound : in the symbols of the exact values, l(slot), h(slot), eta(slot), size(name), least(name)
    underflow_slots : slots whose eta appears in ``bound``
    """

    exact: sp.Expr
    bound: sp.Expr
    underflow_slots: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One way in which the comparisons of a program can come out.

    Attributes
    ----------
    conditions : hypotheses; under them computed and exact comparisons agree
    relative : the factor, or why there is none
    absolute : the absolute enclosure, or why there is none
    """

    conditions: tuple[Condition, ...]
    relative: Factor | NoEnclosure
    absolute: AbsoluteError | NoEnclosure


@dataclass(frozen=True)
class Enclosure:
    """All cases of one value; a single one without conditions if nothing is compared on the way."""

    value: str
    cases: tuple[Case, ...]

    def __str__(self) -> str:
        lines = []
        for case in self.cases:
            lines.append(f"{self.value}" + "".join(f"\n  if {condition}" for condition in case.conditions))
            if isinstance(case.relative, Factor):
                x = case.relative
                lines.append(f"  = {x.exact} times [{x.low}, {x.high}], 1 +- ({x.first_order})")
                if x.absolute != 0:
                    lines.append(f"  +- {x.absolute}")
            else:
                lines.append(f"  no relative enclosure: {case.relative}")
                if isinstance(case.absolute, AbsoluteError):
                    lines.append(f"  = {case.absolute.exact} +- {case.absolute.bound}")
                else:
                    lines.append(f"  no absolute enclosure: {case.absolute}")
        return "\n".join(lines)


def model_values(slots: Slots, names: Collection[str]) -> dict[sp.Symbol, Fraction]:
    """l, h and eta of the named slots as exact rationals."""
    values: dict[sp.Symbol, Fraction] = {}
    for name in dict.fromkeys(map(slot_of, names)):
        fmt, rounding = slots[name]
        l_, h_ = low_high(fmt, rounding)
        values[low(name)] = Fraction(int(l_.p), int(l_.q))
        values[high(name)] = Fraction(int(h_.p), int(h_.q))
        values[eta(name)] = underflow_unit(fmt, rounding)
    return values


def compose(
    program: Program,
    slots: Slots,
    value: str,
    *,
    exact: Collection[str] = (),
    nonnegative: Collection[str] = (),
    scalars: Mapping[str, float] | None = None,
    lengths: Mapping[str, int] | None = None,
    axioms: Mapping[str, OpaqueAxiom] | None = None,
) -> Composed:
    """The terms of a value.

    Parameters
    ----------
    value : name of an array, a scalar, an operation, or ``"NAME ->"`` for what is stored in state NAME after the step
    exact : names taken as the reference; the walk stops there
    nonnegative : those of them that are known to be >= 0
    scalars : stored values; a scalar without one may be anything positive
    lengths : of the dimensions that reductions sum over, ``{"d": 64}``
    axioms : slot of an opaque operation -> what is known of it

    Raises
    ------
    NoEnclosure
        A quotient by, or a root of, terms that may cancel; a kind of operation without a rule.

    Examples
    --------
    >>> from fpsim.optim.sgd import sgd
    >>> slots = Precision.uniform("bfloat16").resolve(sgd)
    >>> compose(sgd, slots, "w ->", exact=("w", "g")).terms[0].exact
    w
    """
    return walked(_question(program, slots, exact, nonnegative, scalars, lengths, axioms), value)


def relative_factor(
    program: Program,
    slots: Slots,
    value: str,
    exact: Collection[str] = (),
    nonnegative: Collection[str] = (),
    scalars: Mapping[str, float] | None = None,
    lengths: Mapping[str, int] | None = None,
    axioms: Mapping[str, OpaqueAxiom] | None = None,
) -> Factor:
    """The value as one exact expression times a factor; arguments as for ``compose``.

    Raises
    ------
    NoEnclosure
        The value is a sum of rounded terms that may cancel, or as for ``compose``.
    """
    composed = compose(
        program, slots, value, exact=exact, nonnegative=nonnegative, scalars=scalars, lengths=lengths, axioms=axioms
    )
    return _factor(composed, slots, value)


def absolute_error(
    program: Program,
    slots: Slots,
    value: str,
    exact: Collection[str] = (),
    nonnegative: Collection[str] = (),
    scalars: Mapping[str, float] | None = None,
    lengths: Mapping[str, int] | None = None,
    axioms: Mapping[str, OpaqueAxiom] | None = None,
) -> AbsoluteError:
    """The value as one exact expression up to an absolute error; arguments as for ``compose``.

    Terms that may cancel are no obstacle here: each contributes its own size times its relative error.

    Raises
    ------
    NoEnclosure
        A kind of operation without a rule, or a function whose change under a rounded argument has no bound.

    Examples
    --------
    >>> from fpsim.tracing import slot, step
    >>> @step
    ... def difference(a, b):
    ...     return {"a": slot("s", slot("p", a * b) - a)}
    >>> slots = Precision.uniform("bfloat16").resolve(difference)
    >>> print(absolute_error(difference, slots, "s", exact=("a", "b")).exact)
    a*b - a
    """
    question = _question(program, slots, exact, nonnegative, scalars, lengths, axioms)
    return _absolute(walked(replace(question, absolute=True), value))


def enclosure(
    program: Program,
    slots: Slots,
    value: str,
    exact: Collection[str] = (),
    nonnegative: Collection[str] = (),
    scalars: Mapping[str, float] | None = None,
    lengths: Mapping[str, int] | None = None,
    axioms: Mapping[str, OpaqueAxiom] | None = None,
) -> Enclosure | NoEnclosure:
    """Everything that follows about a value, case by case; never raises. Arguments as for ``compose``.

    Returns
    -------
    Enclosure, or a NoEnclosure with the slot and the reason where neither a relative nor an absolute enclosure follows
        in any case
    """
    question = _question(program, slots, exact, nonnegative, scalars, lengths, axioms)
    pending: list[dict[str, int]] = [{}]
    cases: list[Case] = []
    while pending:
        if len(pending) + len(cases) > MOST_CASES:
            return NoEnclosure(value, f"more than {MOST_CASES} cases")
        outcomes = pending.pop(0)
        case = _case(replace(question, outcomes=outcomes), value)
        if isinstance(case, Undecided):
            pending += [{**outcomes, case.slot: outcome} for outcome in case.outcomes]
        else:
            cases.append(case)
    failures = [case.absolute for case in cases if isinstance(case.absolute, NoEnclosure)]
    if len(failures) == len(cases) and not any(isinstance(case.relative, Factor) for case in cases):
        return failures[0]
    return Enclosure(value, tuple(cases))


def enclosures(
    program: Program,
    precision: Precision,
    *,
    scalars: Mapping[str, float] | None = None,
    lengths: Mapping[str, int] | None = None,
    nonnegative: Collection[str] = (),
    axioms: Mapping[str, OpaqueAxiom] | None = None,
) -> dict[str, Enclosure | NoEnclosure]:
    """For every output of a program what is stored there, against exact arithmetic on the stored inputs.

    Examples
    --------
    >>> from fpsim.optim.sgd import sgd
    >>> case = enclosures(sgd, Precision.uniform("bfloat16"))["w"].cases[0]
    >>> print(case.relative)
    w ->: the rounded terms w, -g*scalar.lr may cancel
    >>> sorted(str(s) for s in case.absolute.bound.free_symbols if "[" not in str(s))
    ['g', 'scalar.lr', 'w']
    """
    slots = precision.resolve(program)
    return {
        name: enclosure(program, slots, f"{name} ->", program.inputs, nonnegative, scalars, lengths, axioms)
        for name, _ in program.outputs
    }


def _question(
    program: Program,
    slots: Slots,
    exact: Collection[str],
    nonnegative: Collection[str],
    scalars: Mapping[str, float] | None,
    lengths: Mapping[str, int] | None,
    axioms: Mapping[str, OpaqueAxiom] | None,
) -> Question:
    return Question(
        program, slots, frozenset(exact), frozenset(nonnegative), scalars or {}, lengths or {}, axioms or {}
    )


def _factor(composed: Composed, slots: Slots, value: str) -> Factor:
    term = composed.merged(value)
    lower, upper = factor_bounds(term.exponents)
    values = model_values(slots, tuple(term.exponents))
    return Factor(
        exact=term.exact,
        exponents=term.exponents,
        low=lower,
        high=upper,
        low_value=enclose(lower, values),
        high_value=enclose(upper, values),
        absolute=composed.absolute,
        underflow_slots=composed.underflow_slots,
    )


def _absolute(composed: Composed) -> AbsoluteError:
    return AbsoluteError(composed.exact, composed.error(), composed.underflow_slots)


def _case(question: Question, value: str) -> Case | Undecided:
    """One case, or the comparison that it still depends on."""
    relative: Factor | NoEnclosure
    absolute: AbsoluteError | NoEnclosure
    walk, wide = Walk(question), Walk(replace(question, absolute=True))
    try:
        relative = _factor(walk.value(value), question.slots, value)
    except NoEnclosure as none:
        relative = none
    try:
        absolute = _absolute(wide.value(value))
    except NoEnclosure as none:
        absolute = none
    for found in (relative, absolute):
        if isinstance(found, Undecided):
            return found
    return Case(tuple({**walk.conditions, **wide.conditions}.values()), relative, absolute)
