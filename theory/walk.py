"""The walk through a program: one rule for every kind of operation. ``composition`` says what the result means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeAlias

import sympy as sp

from fpsim.number_format import Format
from fpsim.program import ELEMENTARY, Operation, Program
from fpsim.rounding import Rounding
from theory.factors import (
    Composed,
    NoEnclosure,
    Term,
    combined,
    deviation,
    eta,
    high,
    hull,
    least,
    magnitude,
    moved,
    negated,
    size,
    symbol,
)
from theory.function_rules import OpaqueAxiom, function, opaque, power
from theory.reductions import roundings

Slots: TypeAlias = Mapping[str, tuple[Format, Rounding]]

_LINEAR = {"add": 1, "sub": -1}
_NONE = {
    "rem": "the quotient's nearest integer jumps under any rounding of the operands",
    "matmul": "its accumulator belongs to a machine's matrix unit; write total_of_products",
    "draw": "a random word is no function of the exact values",
}


class Undecided(NoEnclosure):
    """A comparison decides what is computed; ``outcomes`` are its possible results."""

    def __init__(self, slot: str, outcomes: tuple[int, ...]) -> None:
        super().__init__(slot, "a comparison: its outcome is exact beyond a margin only; enclosure() splits the cases")
        self.outcomes = outcomes


@dataclass(frozen=True)
class Condition:
    """A comparison comes out alike in exact and in computed values if ``margin`` > ``error`` (>= if not ``strict``).

    It is about one element; a value that a reduction, expand or gather made of many supposes it at all of them.
    ``outcome``: 1 or 0 for less and for a condition of where, 1 or -1 for sign. ``margin`` is in exact values.
    """

    slot: str
    outcome: int
    margin: sp.Expr
    error: sp.Expr
    strict: bool

    def __str__(self) -> str:
        return f"{self.slot} = {self.outcome} where {self.margin} {'>' if self.strict else '>='} {self.error}"


@dataclass(frozen=True)
class Question:
    """What is asked of a program: the arguments of ``composition.compose``, and the outcomes of comparisons."""

    program: Program
    slots: Slots
    exact: frozenset[str] = frozenset()
    nonnegative: frozenset[str] = frozenset()
    scalars: Mapping[str, float] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    axioms: Mapping[str, OpaqueAxiom] = field(default_factory=dict)
    absolute: bool = False
    outcomes: Mapping[str, int] = field(default_factory=dict)


class Walk:
    """Values of a program in terms of exact ones, each composed once."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.program, self.slots, self.scalars = question.program, question.slots, question.scalars
        self.known: dict[str, Composed] = {}
        self.conditions: dict[str, Condition] = {}

    def value(self, name: str) -> Composed:
        if name.endswith(" ->"):
            return self._stored(name.removesuffix(" ->"))
        if name not in self.known:
            composed = self._value(name)
            if any(term.exact.has(sp.zoo, sp.nan, sp.oo) for term in composed.terms):
                raise NoEnclosure(name, "exact arithmetic gives no number here: a division by zero, say")
            self.known[name] = composed
        return self.known[name]

    def _value(self, name: str) -> Composed:
        atom = symbol(name, nonnegative=name in self.question.nonnegative)
        if name.startswith("scalar.") and self.scalars.get(name, 1.0) < 0:
            atom = sp.Symbol(name, negative=True)
        term = Term(atom, {}, bool(atom.is_nonnegative))
        if name in self.question.exact or name.startswith("scalar.") or name in self.program.indices:
            return Composed((term,), sp.Integer(0), ())
        if name in self.program.inputs:
            return Composed((term.rounded(name),), eta(name), (name,))
        return self._operation(self.program.operation(name))

    def _stored(self, array: str) -> Composed:
        source = dict(self.program.outputs)[array]
        computed = self.value(source)
        if array not in self.slots or self._holds(array, source):  # what is no input is handed on as it is
            return computed
        return self._rounding(array, computed, tiny=True)

    def _operation(self, o: Operation) -> Composed:
        if o.kind in _NONE:
            raise NoEnclosure(o.slot, f"no enclosure of {o.kind}: {_NONE[o.kind]}")
        if o.kind in ("less", "sign", "where"):
            return self._choice(o)
        parts = [self.value(name) for name in o.operands]
        tiny = tuple(dict.fromkeys(s for part in parts for s in part.underflow_slots))
        if o.kind == "round":
            if self._holds(o.slot, o.operands[0]):
                return parts[0]
            return self._rounding(o.slot, parts[0], tiny=True)
        if o.kind in _LINEAR:
            return self._rounding(o.slot, self._sum(parts, _LINEAR[o.kind], tiny), tiny=not self._aligned(o))
        if o.kind == "fma":
            product = self._product(o.operands[:2], parts[:2], tiny)
            return self._rounding(o.slot, self._sum([product, parts[2]], 1, tiny), tiny=True)
        if o.kind == "mul":
            return self._scaled(o, self._product(o.operands, parts, tiny))
        if o.kind == "div":
            return self._scaled(o, self._quotient(o, parts, tiny))
        if o.kind == "sqrt":
            one = self._single(parts[0], o.slot)
            root = Term(sp.sqrt(one.exact), combined({}, one.terms[0].exponents, Fraction(1, 2)), True)
            return self._rounding(o.slot, Composed((root,), sp.sqrt(one.absolute), tiny), tiny=True)
        if o.kind == "neg":
            return Composed(tuple(negated(t) for t in parts[0].terms), parts[0].absolute, tiny)
        if o.kind == "abs":
            one = self._single(parts[0], o.slot)
            return Composed((Term(magnitude(one.exact), one.terms[0].exponents, True),), one.absolute, tiny)
        if o.kind in ("max", "min"):
            return self._extreme(o, parts, tiny)
        if o.kind in ("expand", "gather"):
            return self._moved(o, parts[0])
        if o.kind in ("sum", "dot"):
            return self._reduced(o, parts, tiny)
        if o.kind == "pow":
            exponent = self.scalars.get(o.operands[1])
            raised = power(o, parts[0], parts[1], exponent)
            return self._rounding(o.slot, raised, tiny=True)
        if o.kind in ELEMENTARY:
            return self._rounding(o.slot, function(o, parts[0], absolute=self.question.absolute), tiny=True)
        if o.kind == "opaque":
            return self._rounding(o.slot, opaque(o, parts[0], self.question.axioms.get(o.slot)), tiny=True)
        raise NoEnclosure(o.slot, f"no composition rule for {o.kind}")

    def _rounding(self, slot: str, x: Composed, *, tiny: bool) -> Composed:
        absolute = x.absolute * high(slot) + (eta(slot) if tiny else 0)
        names = (*x.underflow_slots, slot) if tiny else x.underflow_slots
        return Composed(tuple(term.rounded(slot) for term in x.terms), absolute, tuple(dict.fromkeys(names)))

    def _single(self, x: Composed, slot: str) -> Composed:
        """The value as one term: merged, or with its relative errors made absolute where that is allowed."""
        try:
            return Composed((x.merged(slot),), x.absolute, x.underflow_slots)
        except NoEnclosure:
            if not self.question.absolute:
                raise
            return x.collapsed()

    def _sum(self, parts: list[Composed], sign: int, tiny: tuple[str, ...]) -> Composed:
        x, y = parts
        second = y.terms if sign > 0 else tuple(negated(t) for t in y.terms)
        terms = (*x.terms, *second)
        if not any(term.exponents for term in terms):
            terms = (Term(sp.Add(*(t.exact for t in terms)), {}, all(t.nonnegative for t in terms)),)
        return Composed(terms, x.absolute + y.absolute, tiny)

    def _product(self, names: tuple[str, ...], parts: list[Composed], tiny: tuple[str, ...]) -> Composed:
        x, y = parts
        square = names[0] == names[1]
        if square or min(len(x.terms), len(y.terms)) > 1:
            x, y = (self._single(z, name) for z, name in zip(parts, names, strict=True))
        terms = tuple(
            Term(a.exact * b.exact, combined(a.exponents, b.exponents, 1), square or (a.nonnegative and b.nonnegative))
            for a in x.terms
            for b in y.terms
        )
        absolute = x.absolute * self._size(names[1]) + (self._size(names[0]) + x.absolute) * y.absolute
        return Composed(terms, absolute, tiny)

    def _quotient(self, o: Operation, parts: list[Composed], tiny: tuple[str, ...]) -> Composed:
        x, y = parts[0], self._single(parts[1], o.slot)
        below = y.terms[0]
        terms = tuple(
            Term(t.exact / below.exact, combined(t.exponents, below.exponents, -1), t.nonnegative and below.nonnegative)
            for t in x.terms
        )
        # x/y - (x-e_x)/(y-e_y) = e_x/y - (x-e_x)/(y-e_y) e_y/y for the computed x, y and their absolute parts
        top, bottom = self._size(o.operands[0]), self._size(o.operands[1], least)
        absolute = x.absolute / bottom
        if y.absolute != 0:
            # infinite where the absolute part may be all there is of y
            absolute += (top + x.absolute) * y.absolute / (bottom * sp.Max(0, bottom - y.absolute))
        return Composed(terms, absolute, tiny)

    def _extreme(self, o: Operation, parts: list[Composed], tiny: tuple[str, ...]) -> Composed:
        one, two = (self._single(part, o.slot) for part in parts)
        first, second = one.terms[0], two.terms[0]
        # max(x F, y G) with F, G > 0 is max(x, y) times something between F and G, whatever the signs of x and y
        exponents = hull(first.exponents, second.exponents)
        choose = sp.Max if o.kind == "max" else sp.Min
        if o.kind == "max":
            nonnegative = first.nonnegative or second.nonnegative
        else:
            nonnegative = first.nonnegative and second.nonnegative
        term = Term(choose(first.exact, second.exact), exponents, nonnegative)
        return Composed((term,), one.absolute + two.absolute, tiny)

    def _moved(self, o: Operation, x: Composed) -> Composed:
        terms = tuple(Term(_applied(o.slot, t.exact), moved(t.exponents, o.slot), t.nonnegative) for t in x.terms)
        return Composed(terms, _applied(o.slot, x.absolute), x.underflow_slots)

    def _reduced(self, o: Operation, parts: list[Composed], tiny: tuple[str, ...]) -> Composed:
        """A sum over many elements: every term has its own roundings, and each addition is one more."""
        count, attributes = self._count(o), dict(o.attributes)
        fewest, most = roundings(o.kind, attributes, count)
        inside = parts[0] if o.kind == "sum" else self._product(o.operands, parts, tiny)
        one = self._single(inside, o.slot)
        term = one.terms[0]
        exponents = dict(moved(term.exponents, o.slot))
        if most:
            exponents[o.slot] = (Fraction(fewest), Fraction(most))
        absolute = _total(o.slot, one.absolute, count) * high(o.slot) ** most
        names = one.underflow_slots
        if o.kind == "dot" or (most and not self._aligned(o)):
            additions = count if o.kind == "dot" else count - 1
            absolute += additions * eta(o.slot) * high(o.slot) ** (most - 1)
            names = (*names, o.slot)
        names = tuple(dict.fromkeys(names))
        total = _applied(o.slot, term.exact, count=count)
        if term.nonnegative or count == 1:
            return Composed((Term(total, exponents, term.nonnegative),), absolute, names)
        if not exponents:
            return Composed((Term(total, {}, False),), absolute, names)
        if not self.question.absolute:
            raise NoEnclosure(o.slot, f"the rounded terms {term.exact} of the sum may cancel")
        spread = _applied(o.slot, magnitude(term.exact), count=count) * deviation(exponents)
        return Composed((Term(total, {}, False),), absolute + spread, names)

    def _count(self, o: Operation) -> int:
        """How many terms a reduction adds up."""
        shapes = [self.program.shape(name) for name in o.operands if not name.startswith("scalar.")]
        axis = dict(o.attributes).get("axis")
        if axis is None:
            dimensions = shapes[0]
        else:
            longest = max(map(len, shapes))
            aligned = [(1,) * (longest - len(shape)) + tuple(shape) for shape in shapes]
            dimensions = (next((s[axis] for s in aligned if s[axis] != 1), 1),)
        missing = [d for d in dimensions if isinstance(d, str) and d not in self.question.lengths]
        if missing:
            raise NoEnclosure(o.slot, f"how many terms are summed is not known: lengths={{{missing[0]!r}: ...}}")
        return math.prod(self.question.lengths[d] if isinstance(d, str) else d for d in dimensions)

    def _choice(self, o: Operation) -> Composed:
        """A comparison or a selection, by the outcome that the case at hand supposes."""
        if o.kind == "where":
            taken = self._outcome(o.operands[0], (1, 0))
            return self.value(o.operands[1] if taken else o.operands[2])
        outcome = self._outcome(o.slot, (1, 0) if o.kind == "less" else (1, -1))
        return Composed((Term(sp.Integer(outcome), {}, outcome >= 0),), sp.Integer(0), ())

    def _outcome(self, name: str, outcomes: tuple[int, ...]) -> int:
        operation = next((o for o in self.program.operations if o.slot == name), None)
        kind = operation.kind if operation is not None and name not in self.question.exact else ""
        if name not in self.question.outcomes:
            raise Undecided(name, (1, 0, -1) if kind == "sign" and outcomes == (1, 0) else outcomes)
        outcome = self.question.outcomes[name]
        if name not in self.conditions:
            inner = Walk(replace(self.question, absolute=True))
            operands = operation.operands if operation is not None and kind in ("less", "sign") else (name,)
            parts = [inner.value(operand) for operand in operands]
            error = sp.Add(*(part.error() for part in parts))
            self.conditions |= inner.conditions
            if kind == "less":
                below, above = (part.exact for part in parts)
                margin, strict = (above - below, True) if outcome else (below - above, False)
            elif kind == "sign" and outcome:
                margin, strict = outcome * parts[0].exact, True
            else:  # 0 is computed for sure only where 0 is exact and nothing was rounded
                margin, strict = (magnitude(parts[0].exact), True) if outcome else (-magnitude(parts[0].exact), False)
            self.conditions[name] = Condition(name, outcome, margin, error, strict)
        return outcome

    def _size(self, name: str, of: Callable[[str], sp.Symbol] = size) -> sp.Expr:
        """The largest, or least, |computed value| of a name; of a scalar its own modulus."""
        return magnitude(self.value(name).exact) if name.startswith("scalar.") else of(name)

    def _grids(self, name: str) -> tuple[Format | None, ...]:
        """Formats one of whose grids holds the named value; None for the grid of 0 and 1."""
        if name.startswith("scalar.") or name in self.program.inputs:
            return (self.slots[name][0],)
        o = self.program.operation(name)
        if o.kind == "sum":  # a sum of one term is that term
            return (self.slots[name][0], *self._grids(o.operands[0]))
        if name in self.slots:
            return (self.slots[name][0],)
        if o.kind in ("less", "sign"):
            return (None,)
        sources = {"where": o.operands[1:], "gather": o.operands[:1]}.get(o.kind, o.operands)
        return tuple(dict.fromkeys(fmt for source in sources for fmt in self._grids(source)))

    def _holds(self, slot: str, source: str) -> bool:
        return all(fmt is not None and self.slots[slot][0].holds(fmt) for fmt in self._grids(source))

    def _scaled(self, o: Operation, x: Composed) -> Composed:
        """The rounding of a product or quotient; none but underflow by a power of two."""
        if not self._shifts(o):
            return self._rounding(o.slot, x, tiny=True)
        names = tuple(dict.fromkeys((*x.underflow_slots, o.slot)))
        return replace(x, absolute=x.absolute + eta(o.slot), underflow_slots=names)

    def _shifts(self, o: Operation) -> bool:
        """Whether a product or quotient only changes the exponent."""
        orders = (o.operands[::-1],) if o.kind == "div" else (o.operands, o.operands[::-1])
        for scalar, other in orders:
            value = self.scalars.get(scalar, 0.0)
            if math.isfinite(value) and math.frexp(value)[0] == 0.5:
                needed = [fmt.precision if fmt is not None else 1 for fmt in self._grids(other)]
                return self.slots[o.slot][0].precision >= max(needed)
        return False

    def _aligned(self, o: Operation) -> bool:
        """Whether a tiny sum is exact: operands are multiples of the result's smallest subnormal number."""
        fmt = self.slots[o.slot][0]
        if not fmt.subnormals or fmt.tiny == "flush":
            return False
        grids = [grid for name in o.operands for grid in self._grids(name)]
        return all(grid is not None and unit_of_grid(grid) >= fmt.smallest_subnormal for grid in grids)


def unit_of_grid(fmt: Format) -> float:
    """A number of which every value of the format is a multiple: the quantum of its smallest binade."""
    return float(2.0 ** (fmt.emin - fmt.mantissa_bits))


def _uniform(atom: sp.Symbol) -> bool:
    """Whether a symbol has one value for all elements of an array."""
    return str(atom).startswith(("scalar.", "l[", "h[", "eta[", "size[", "least[", "slope["))


def _applied(name: str, expression: sp.Expr, count: int = 1) -> sp.Expr:
    """``name(expression)``, a linear function of arrays; what is the same for all elements stands before it."""
    parts = []
    for part in sp.Add.make_args(expression):
        varying = [s for s in part.free_symbols if not _uniform(s)]
        if not varying:
            parts.append(count * part)
            continue
        constant, rest = part.as_independent(*varying, as_Add=False)
        sign = {"nonnegative": True} if rest.is_nonnegative else {"real": True}
        parts.append(constant * sp.Function(name, **sign)(rest))
    return sp.Add(*parts)


def _total(name: str, expression: sp.Expr, count: int) -> sp.Expr:
    return sp.Integer(0) if expression == 0 else _applied(name, expression, count)


__all__ = ["Condition", "Question", "Slots", "Undecided", "Walk", "unit_of_grid"]
