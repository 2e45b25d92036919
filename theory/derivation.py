"""Derivations as data: a chain of claims, each justified in a way that a machine checks.

A derivation states its ``givens`` (hypotheses) and its ``steps``. Every step is a ``Claim`` (left == right,
left <= right or left < right) with one of five justifications:

Given()
    the claim is one of the derivation's hypotheses
Identity()
    an equation; left - right simplifies to zero, by itself or after replacing symbols by earlier equations
Sign()
    an inequality; right - left is proven >= 0 (or > 0) on the domain (``theory.decision``)
Combine({i: c, ...})
    the claim's gap (right - left) is *identically* the sum of c_i times the gap of step i; each c_i is proven >= 0
    where step i is an inequality. This is how inequalities are chained.
Instance(of, {...})
    an ``Axiom`` or another ``Derivation`` (a lemma) with its symbols replaced; the replaced conclusion is identically
    the claim, every replaced hypothesis is an earlier step or a provable sign, and every symbol keeps its range

``check`` raises ``DerivationError`` naming the step. It also demands that every step is used and that the last one is
the statement, so that a step cannot be weakened unnoticed: ``theory.mutation`` changes every constant and sign of every
step, and the tests expect each change to fail.

>>> import sympy as sp
>>> x, y = sp.symbols("x y", positive=True)
>>> claim = le(2 * x * y, x**2 + y**2)
>>> Derivation("two squares", givens=(), steps=(Step(claim, Sign()),), statement=claim).check()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import sympy as sp

from theory.decision import Domain, has_sign, interval_of, is_identity

Relation: TypeAlias = Literal["==", "<=", "<"]


class DerivationError(Exception):
    """A step that is not justified; the message names derivation and step."""


@dataclass(frozen=True)
class Claim:
    """left relation right. Unlike SymPy's relational it is never evaluated to True or False."""

    left: sp.Expr
    relation: Relation
    right: sp.Expr

    @property
    def gap(self) -> sp.Expr:
        """right - left: zero, >= 0 or > 0."""
        return self.right - self.left

    @property
    def symbols(self) -> set[sp.Symbol]:
        return set(self.left.free_symbols | self.right.free_symbols)

    def replace(self, mapping: Mapping[sp.Symbol, Any]) -> Claim:
        """The claim with symbols replaced simultaneously."""
        return Claim(substitute(self.left, mapping), self.relation, substitute(self.right, mapping))

    @property
    def relational(self) -> sp.Rel:
        """The claim as an unevaluated SymPy relational."""
        kind = {"==": sp.Eq, "<=": sp.Le, "<": sp.Lt}[self.relation]
        return kind(self.left, self.right, evaluate=False)

    def latex(self) -> str:
        return str(sp.latex(self.relational))

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"


def eq(left: Any, right: Any) -> Claim:
    return Claim(sp.sympify(left), "==", sp.sympify(right))


def le(left: Any, right: Any) -> Claim:
    return Claim(sp.sympify(left), "<=", sp.sympify(right))


def lt(left: Any, right: Any) -> Claim:
    return Claim(sp.sympify(left), "<", sp.sympify(right))


@dataclass(frozen=True)
class Axiom:
    """What algebra cannot see: a named fact with a citation and the test that exercises it numerically.

    ``conditions`` are its hypotheses; ``domain`` restricts symbols beyond their SymPy assumptions.
    """

    name: str
    conclusion: Claim
    conditions: tuple[Claim, ...] = ()
    citation: str = ""
    test: str = ""
    domain: Domain = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Given:
    """The claim is a hypothesis of the derivation."""


@dataclass(frozen=True)
class Identity:
    """The equation holds identically, once the symbols on the left of the earlier equations ``using`` are replaced."""

    using: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sign:
    """The inequality holds everywhere on the domain.

    ``anchor`` (symbol, point): prove it by monotonicity instead. The gap is >= 0 at the point and its derivative in the
    symbol is >= 0 to the right and <= 0 to the left of it (for logarithms, whose derivatives are rational).
    """

    anchor: tuple[sp.Symbol, sp.Expr] | None = None


@dataclass(frozen=True)
class Combine:
    """The claim's gap is identically the sum of multiplier times gap over earlier steps (counted from 0)."""

    multipliers: Mapping[int, Any] = field(hash=False)


@dataclass(frozen=True)
class Instance:
    """An axiom or a proven derivation with its symbols replaced; symbols that are not listed stand for themselves."""

    of: Axiom | Derivation
    mapping: Mapping[sp.Symbol, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of_names(cls, of: Axiom | Derivation, **replacements: Any) -> Instance:
        """The same with symbols given by their names; ``KeyError`` if ``of`` has no symbol of a name."""
        symbols = {str(s): s for claim in (of.conclusion, *of.conditions) for s in claim.symbols}
        return cls(of, {symbols[name]: value for name, value in replacements.items()})


Justification: TypeAlias = Given | Identity | Sign | Combine | Instance


@dataclass(frozen=True)
class Step:
    """One claim, why it holds, and a line of prose for the reader."""

    claim: Claim
    by: Justification
    text: str = ""


def cited(*rules: Axiom | Derivation) -> tuple[Step, ...]:
    """Axioms and lemmas as they stand, one step each."""
    return tuple(Step(rule.conclusion, Instance(rule)) for rule in rules)


@dataclass(frozen=True)
class Derivation:
    """A lemma or the proof of a theorem.

    Attributes
    ----------
    name : unique among lemmas and theorems
    givens : hypotheses
    steps : the chain; the last claim is ``statement``
    statement : what is proven
    domain : intervals of symbols, beyond their SymPy assumptions
    """

    name: str
    givens: tuple[Claim, ...]
    steps: tuple[Step, ...]
    statement: Claim
    domain: Domain = field(default_factory=dict, hash=False)

    @property
    def conclusion(self) -> Claim:
        return self.statement

    @property
    def conditions(self) -> tuple[Claim, ...]:
        return self.givens

    def check(self) -> None:
        """Check every step, lemmas included; what was found to hold is not checked again in this process.

        Raises
        ------
        DerivationError
            A step is not justified or not used, or the last claim is not the statement.
        """
        if "_checked" in self.__dict__:
            return
        if not self.steps or not _same(self.steps[-1].claim, self.statement, self.domain):
            raise DerivationError(f"{self.name}: the last step is not the statement {self.statement}")
        used: set[int] = {len(self.steps) - 1}
        for number, step in enumerate(self.steps):
            reason = self._fault(number, step, used)
            if reason:
                raise DerivationError(f"{self.name}, step {number}: {step.claim}: {reason}")
        idle = sorted(set(range(len(self.steps))) - used)
        if idle:
            raise DerivationError(f"{self.name}, step {idle[0]}: no later step uses it")
        object.__setattr__(self, "_checked", True)  # a copy with a changed step has none

    def axioms(self) -> Iterator[Axiom]:
        """The axioms that the derivation rests on, lemmas included, each once."""
        seen: set[str] = set()
        for step in self.steps:
            if isinstance(step.by, Instance):
                for axiom in (step.by.of,) if isinstance(step.by.of, Axiom) else tuple(step.by.of.axioms()):
                    if axiom.name not in seen:
                        seen.add(axiom.name)
                        yield axiom

    def _fault(self, number: int, step: Step, used: set[int]) -> str:
        """Why the step is not justified; empty if it is."""
        claim, by = step.claim, step.by
        if isinstance(by, Given):
            return "" if any(_same(claim, given, self.domain) for given in self.givens) else "not a given"
        if isinstance(by, Identity):
            return self._identity_fault(number, claim, by, used)
        if isinstance(by, Sign):
            return self._sign_fault(claim, by)
        if isinstance(by, Combine):
            return self._combine_fault(number, claim, by, used)
        return self._instance_fault(number, claim, by, used)

    def _identity_fault(self, number: int, claim: Claim, by: Identity, used: set[int]) -> str:
        if claim.relation != "==":
            return "Identity justifies equations only"
        difference = claim.gap
        for earlier in reversed(by.using):
            known = self.steps[earlier].claim
            if earlier >= number or known.relation != "==" or not isinstance(known.left, sp.Symbol):
                return f"step {earlier} is not an earlier equation for a symbol"
            difference = substitute(difference, {known.left: known.right})
            used.add(earlier)
        return "" if is_identity(difference, self.domain) else "the difference does not vanish"

    def _sign_fault(self, claim: Claim, by: Sign) -> str:
        if claim.relation == "==":
            return "Sign justifies inequalities only"
        strict = claim.relation == "<"
        if by.anchor is None:
            return "" if has_sign(claim.gap, self.domain, strict=strict) else "the sign is not proven"
        symbol, point = by.anchor
        here = interval_of(symbol, self.domain)
        slope = sp.diff(claim.gap, symbol)
        right = {**self.domain, symbol: sp.Interval(point, here.end, False, here.right_open)}
        left = {**self.domain, symbol: sp.Interval(here.start, point, here.left_open, False)}
        if not has_sign(sp.simplify(claim.gap.subs(symbol, point)), self.domain, strict=strict):
            return f"the sign at {symbol} = {point} is not proven"
        if here.end != point and not has_sign(slope, right):
            return f"growth to the right of {symbol} = {point} is not proven"
        if here.start != point and not has_sign(-slope, left):
            return f"growth to the left of {symbol} = {point} is not proven"
        return ""

    def _combine_fault(self, number: int, claim: Claim, by: Combine, used: set[int]) -> str:
        total: sp.Expr = sp.Integer(0)
        strict = False
        facts = self._facts(number)
        for earlier, given_multiplier in by.multipliers.items():
            multiplier = sp.sympify(given_multiplier)
            if not 0 <= earlier < number:
                return f"step {earlier} is not an earlier step"
            used.add(earlier)
            known = self.steps[earlier].claim
            total += multiplier * known.gap
            if known.relation == "==":
                continue
            if claim.relation == "==":
                return f"an equation does not follow from the inequality of step {earlier}"
            if not self._nonnegative(multiplier, False, facts, used):
                return f"the multiplier {multiplier} of step {earlier} is not proven nonnegative"
            if known.relation == "<" and self._nonnegative(multiplier, True, facts, used):
                strict = True
        if claim.relation == "<" and not strict:
            return "strictness does not follow"
        return "" if is_identity(claim.gap - total, self.domain) else "the gaps do not add up"

    def _instance_fault(self, number: int, claim: Claim, by: Instance, used: set[int]) -> str:
        if isinstance(by.of, Derivation):
            by.of.check()
        source = by.of
        facts = self._facts(number)
        claims = (source.conclusion, *source.conditions)
        for symbol in sorted(set().union(*(c.symbols for c in claims)), key=str):
            value = sp.sympify(by.mapping.get(symbol, symbol))
            if not self._in_range(value, interval_of(symbol, source.domain), facts, used):
                return f"{source.name}: {symbol} := {value} may leave its range"
        if not _same(claim, source.conclusion.replace(by.mapping), self.domain):
            return f"not {source.name} with these replacements: {source.conclusion.replace(by.mapping)}"
        for condition in (c.replace(by.mapping) for c in source.conditions):
            earlier = [k for k in range(number) if _implies(self.steps[k].claim, condition, self.domain)]
            used.update(earlier[:1])
            if not earlier and not self._evident(condition, facts, used):
                return f"{source.name}: condition {condition} is neither an earlier step nor a provable sign"
        return ""

    def _evident(self, claim: Claim, facts: list[tuple[int, sp.Expr, bool]], used: set[int]) -> bool:
        if claim.relation == "==":
            return is_identity(claim.gap, self.domain)
        return self._nonnegative(claim.gap, claim.relation == "<", facts, used)

    def _facts(self, number: int) -> list[tuple[int, sp.Expr, bool]]:
        earlier = [(k, self.steps[k].claim) for k in range(number)]
        return [(k, c.gap, c.relation == "<") for k, c in earlier if c.relation != "=="]

    def _nonnegative(
        self, expression: sp.Expr, strict: bool, facts: list[tuple[int, sp.Expr, bool]], used: set[int]
    ) -> bool:
        if has_sign(expression, self.domain, strict=strict):
            return True
        for k, fact, positive in facts:
            if has_sign(expression, self.domain, strict=strict, facts=[(fact, positive)]):
                used.add(k)
                return True
        return False

    def _in_range(
        self, value: sp.Expr, interval: sp.Interval, facts: list[tuple[int, sp.Expr, bool]], used: set[int]
    ) -> bool:
        if isinstance(value, sp.Symbol) and interval_of(value, self.domain).is_subset(interval):
            return True
        low, high = interval.start, interval.end
        above = low == -sp.oo or self._nonnegative(value - low, bool(interval.left_open), facts, used)
        return above and (high == sp.oo or self._nonnegative(high - value, bool(interval.right_open), facts, used))


def substitute(expression: sp.Expr, mapping: Mapping[sp.Symbol, Any]) -> sp.Expr:
    """Replace symbols simultaneously."""
    return sp.sympify(expression).subs({key: sp.sympify(value) for key, value in mapping.items()}, simultaneous=True)


def _same(a: Claim, b: Claim, domain: Domain) -> bool:
    """Whether two claims are the same up to rewriting either side: same relation, identical sides."""
    if a.relation != b.relation:
        return False
    return is_identity(a.left - b.left, domain) and is_identity(a.right - b.right, domain)


def _implies(known: Claim, wanted: Claim, domain: Domain) -> bool:
    weaker = known.relation == wanted.relation or (known.relation == "<" and wanted.relation == "<=")
    return weaker and is_identity(known.gap - wanted.gap, domain)
