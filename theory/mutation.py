"""Deliberately wrong claims: every constant and every sign of a claim, changed one at a time.

A derivation that still checks after such a change would not have been checked at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import sympy as sp

from theory.decision import Domain, is_identity
from theory.derivation import Claim, Derivation, Step

_FACTORS = (sp.Rational(65, 64), sp.Rational(63, 64), sp.Integer(-1))


def mutants(claim: Claim, domain: Domain | None = None) -> Iterator[Claim]:
    """The claim with its sides exchanged, a number or term multiplied by 65/64, 63/64 or -1, or an exponent off by 1.

    Changes that leave both sides as they were (a factor on a zero) are left out; equal changes come once.
    """
    if claim.relation != "==":
        yield Claim(claim.right, claim.relation, claim.left)
    for left in dict.fromkeys(_changed(claim.left)):
        if not is_identity(left - claim.left, domain):
            yield Claim(left, claim.relation, claim.right)
    for right in dict.fromkeys(_changed(claim.right)):
        if not is_identity(right - claim.right, domain):
            yield Claim(claim.left, claim.relation, right)


def mutated_derivations(derivation: Derivation) -> Iterator[tuple[int, Derivation]]:
    """(step number, derivation with that step's claim changed); the statement stays what it was."""
    for number, step in enumerate(derivation.steps):
        for claim in mutants(step.claim, derivation.domain):
            steps: tuple[Step, ...] = (
                *derivation.steps[:number],
                replace(step, claim=claim),
                *derivation.steps[number + 1 :],
            )
            yield number, replace(derivation, steps=steps)


def _changed(expression: sp.Expr) -> Iterator[sp.Expr]:
    for factor in _FACTORS:
        yield expression * factor
    yield from _changed_inside(expression)


def _changed_inside(expression: sp.Expr) -> Iterator[sp.Expr]:
    for index, argument in enumerate(expression.args):
        before, after = expression.args[:index], expression.args[index + 1 :]
        if isinstance(expression, sp.Pow) and index == 1 and argument.is_number:
            # another power of the same root: 65/64 of an exponent would make a field that takes minutes to decide in
            for exponent in (argument + 1, argument - 1):
                yield expression.func(*before, exponent)
            continue
        # a factor on a factor is a factor on the product: only terms of sums and bare numbers are changed here
        if argument.is_number or isinstance(expression, sp.Add):
            for factor in _FACTORS:
                yield expression.func(*before, argument * factor, *after)
        for changed in _changed_inside(argument):
            yield expression.func(*before, changed, *after)
