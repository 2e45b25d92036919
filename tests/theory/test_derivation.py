"""The checker accepts what follows and rejects what does not; every change to a step of every theorem is rejected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sympy as sp

from theory.decision import has_sign, is_identity
from theory.derivation import (
    Axiom,
    Claim,
    Combine,
    Derivation,
    DerivationError,
    Given,
    Identity,
    Instance,
    Sign,
    Step,
    eq,
    le,
    lt,
)
from theory.mutation import mutants, mutated_derivations
from theory.theorems import theorems

a, b, c = sp.symbols("a b c", nonnegative=True)
x, y = sp.symbols("x y", positive=True)
r = sp.Symbol("r", real=True)
ROOT = Path(__file__).parents[2]


def with_lemmas(derivation: Derivation) -> Iterator[Derivation]:
    yield derivation
    for one in derivation.steps:
        if isinstance(one.by, Instance) and isinstance(one.by.of, Derivation):
            yield from with_lemmas(one.by.of)


FOUND = (d for theorem in theorems().values() for proof in theorem.derivations for d in with_lemmas(proof))
DERIVATIONS = list({id(d): d for d in FOUND}.values())


def proof(*steps: Step, givens: tuple[Claim, ...] = (), **options: object) -> Derivation:
    return Derivation("test", givens, steps, steps[-1].claim, **options)


@pytest.mark.parametrize("derivation", DERIVATIONS, ids=lambda d: d.name)
def test_every_derivation_checks(derivation: Derivation) -> None:
    derivation.check()


@pytest.mark.parametrize("derivation", DERIVATIONS, ids=lambda d: d.name)
def test_a_change_to_every_step_is_detected(derivation: Derivation) -> None:
    touched: dict[int, Derivation] = {}
    for number, changed in mutated_derivations(derivation):
        if touched.setdefault(number, changed) is changed:
            with pytest.raises(DerivationError):
                changed.check()
    assert touched.keys() == set(range(len(derivation.steps)))


@pytest.mark.slow
@pytest.mark.parametrize("derivation", DERIVATIONS, ids=lambda d: d.name)
def test_every_change_to_every_step_is_detected(derivation: Derivation) -> None:
    for number, changed in mutated_derivations(derivation):
        try:
            changed.check()
        except DerivationError:
            continue
        pytest.fail(f"step {number}: {changed.steps[number].claim} was not found wrong")


@pytest.mark.parametrize("theorem", theorems().values(), ids=lambda t: t.identifier)
def test_statements_are_the_ends_of_derivations(theorem: object) -> None:
    assert theorem.derivations[0].statement == theorem.statement
    assert theorem.statement.latex()


@pytest.mark.parametrize("theorem", theorems().values(), ids=lambda t: t.identifier)
def test_every_axiom_is_cited_and_tested(theorem: object) -> None:
    for derivation in theorem.derivations:
        for axiom in derivation.axioms():
            assert axiom.citation
            file, _, test = axiom.test.partition("::")
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")


def test_identities() -> None:
    assert is_identity((a + b) ** 2 - a**2 - 2 * a * b - b**2)
    assert is_identity(1 / (1 - 1 / (1 + x)) - 1 - 1 / x)
    assert not is_identity((a + b) ** 2 - a**2 - b**2)


def test_signs_by_factors() -> None:
    unit = {a: sp.Interval(0, 1)}
    assert has_sign(a**2 + b**2 - 2 * a * b)
    assert has_sign(x / (1 + x), strict=True)
    assert has_sign(x + y - 2 * sp.sqrt(x) * sp.sqrt(y))
    assert has_sign(1 - a, unit)
    assert not has_sign(1 - a, unit, strict=True)
    assert has_sign(2 - a, unit, strict=True)
    assert has_sign(r**2 + r + 1, strict=True)
    assert not has_sign(r)
    assert not has_sign(a, strict=True)


def test_signs_by_subdivision() -> None:
    box = {x: sp.Interval(0, 3)}
    assert has_sign(sp.exp(x) - x - sp.Rational(1, 2), box, strict=True)
    assert not has_sign(sp.exp(x) - x - sp.Rational(11, 10), box, strict=True)


def test_sign_by_monotonicity() -> None:
    claim = le(sp.log(x), x - 1)
    proof(Step(claim, Sign(anchor=(x, sp.Integer(1))))).check()
    with pytest.raises(DerivationError, match="growth to the right"):
        proof(Step(le(2 * sp.log(x), x - 1), Sign(anchor=(x, sp.Integer(1))))).check()


def test_inequalities_are_chained() -> None:
    givens = (le(a, b), lt(b, c))
    first, second = Step(givens[0], Given()), Step(givens[1], Given())
    proof(first, second, Step(lt(a, c), Combine({0: 1, 1: 1})), givens=givens).check()
    proof(first, second, Step(lt(2 * a, b + c), Combine({0: 2, 1: 1})), givens=givens).check()
    with pytest.raises(DerivationError, match=r"step 2.*do not add up"):
        proof(first, second, Step(lt(a, 2 * c), Combine({0: 1, 1: 1})), givens=givens).check()
    with pytest.raises(DerivationError, match="not proven nonnegative"):
        proof(first, second, Step(lt(b - a, c - a), Combine({0: -1, 1: 1})), givens=givens).check()
    with pytest.raises(DerivationError, match="strictness"):
        proof(first, Step(lt(a, b), Combine({0: 1})), givens=givens).check()


def test_an_earlier_gap_may_be_a_multiplier() -> None:
    given = le(a, b)
    square = Step(le(2 * a * b, a**2 + b**2), Combine({0: b - a}))
    proof(Step(given, Given()), square, givens=(given,)).check()


def test_equations_are_substituted() -> None:
    given = eq(x, y + 1)
    proof(Step(given, Given()), Step(eq(x**2 - y**2, 2 * y + 1), Identity(using=(0,))), givens=(given,)).check()
    with pytest.raises(DerivationError, match="does not vanish"):
        proof(Step(given, Given()), Step(eq(x**2, y**2), Identity(using=(0,))), givens=(given,)).check()


def test_instances_keep_ranges_and_conditions() -> None:
    root = Axiom("root", le(a, b), conditions=(le(a**2, b**2),))
    given = le(x**2, (1 + y) ** 2)
    fits = Instance(root, {a: x, b: 1 + y})
    proof(Step(given, Given()), Step(le(x, 1 + y), fits), givens=(given,)).check()
    with pytest.raises(DerivationError, match="neither an earlier step nor"):
        proof(Step(le(x, 1 + y), fits)).check()
    with pytest.raises(DerivationError, match="may leave its range"):
        proof(Step(given, Given()), Step(le(x, y - 1), Instance(root, {a: x, b: y - 1})), givens=(given,)).check()
    with pytest.raises(DerivationError, match="not root with these"):
        proof(Step(given, Given()), Step(le(x, 2 + y), fits), givens=(given,)).check()


def test_lemmas_are_checked_too() -> None:
    wrong = Derivation("wrong", (), (Step(le(a, a / 2), Sign()),), le(a, a / 2))
    with pytest.raises(DerivationError, match="wrong, step 0"):
        proof(Step(le(x, x / 2), Instance(wrong, {a: x}))).check()


def test_idle_steps_and_wrong_ends_are_reported() -> None:
    idle = Step(le(0, a), Sign())
    with pytest.raises(DerivationError, match="step 0: no later step uses it"):
        proof(idle, Step(le(0, b), Sign())).check()
    with pytest.raises(DerivationError, match="not the statement"):
        Derivation("test", (), (idle,), le(0, b)).check()


def test_mutants_change_every_constant_and_sign() -> None:
    changed = {str(m) for m in mutants(le(a, 2 * b + 3))}
    assert {"2*b + 3 <= a", "-a <= 2*b + 3", "a <= -2*b + 3"} & changed
    assert "a <= 65*b/32 + 3" in changed
    assert "a <= 2*b + 195/64" in changed
    assert "a <= 2*b - 3" in changed
