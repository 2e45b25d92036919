"""The digest of a theorem's derivations: it changes with any claim, justification or axiom, and with nothing else.

Prose may be improved without changing it. It depends neither on the version of SymPy nor on the order in which SymPy
keeps the terms of a sum.

>>> from theory.theorems import theorem
>>> len(derivation_digest(theorem("T6")))
32
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import sympy as sp

from theory.derivation import Axiom, Derivation, Step
from theory.theorem import Theorem

_ASSUMPTIONS = ("real", "positive", "nonnegative", "negative", "nonpositive", "integer", "nonzero", "finite")
_UNORDERED = (sp.Add, sp.Mul, sp.Max, sp.Min, sp.And, sp.Or, sp.FiniteSet, sp.Union)


def derivation_digest(theorem: Theorem) -> str:
    """32 hex digits of the statement and of all derivations, their lemmas and axioms included."""
    known: dict[int, str] = {}
    return _hash([_content(theorem.statement, known), [_content(d, known) for d in theorem.derivations]])


def _content(value: Any, known: dict[int, str]) -> Any:
    """Nested lists of texts that differ where values differ."""
    if isinstance(value, (Derivation, Axiom)):  # the same lemma many times over is hashed once
        if id(value) not in known:
            known[id(value)] = _hash(_fields(value, known))
        return known[id(value)]
    if isinstance(value, sp.Basic):
        return _expression(value)
    if dataclasses.is_dataclass(value):
        return _fields(value, known)
    if isinstance(value, Mapping):
        return sorted(([_content(key, known), _content(item, known)] for key, item in value.items()), key=str)
    if isinstance(value, (tuple, list)):
        return [_content(item, known) for item in value]
    return _content(sp.sympify(value), known) if isinstance(value, (int, float)) else str(value)


def _fields(value: Any, known: dict[int, str]) -> list[Any]:
    names = [f.name for f in dataclasses.fields(value) if not (isinstance(value, Step) and f.name == "text")]
    return [type(value).__name__, *([name, _content(getattr(value, name), known)] for name in names)]


def _expression(e: sp.Basic) -> list[Any]:
    if isinstance(e, sp.Symbol):
        return ["symbol", e.name, [a for a in _ASSUMPTIONS if getattr(e, f"is_{a}")]]
    if not e.args:
        return [str(e)]
    parts = [_expression(argument) for argument in e.args]
    return [type(e).__name__, *(sorted(parts, key=str) if isinstance(e, _UNORDERED) else parts)]


def _hash(content: Any) -> str:
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()
