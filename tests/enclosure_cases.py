"""Holding the values of bit-exact runs to the enclosures of ``theory.composition``.

What a program computes without rounding is found operation by operation, in balls; the enclosure's own expression of it
is evaluated beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp
from flint import arb, ctx

import fpsim
from fpsim.precision import Precision, scalar_values
from fpsim.program import Operation, Program
from fpsim.rounding import Stochastic
from theory.composition import (
    AbsoluteError,
    Enclosure,
    Factor,
    enclosure,
    model_values,
)
from theory.enclosure import ball

MODES = ["nearest_even", "toward_zero", "up", "to_odd", Stochastic(8)]
BITS = 300


# What is computed without any rounding, in balls


def _sigmoid(x: arb) -> arb:
    return 1 / (1 + (-x).exp())


UNARY: dict[str, Any] = {
    "exp": arb.exp, "exp2": lambda x: (x * arb(2).log()).exp(), "expm1": arb.expm1, "log": arb.log,
    "log2": lambda x: x.log() / arb(2).log(), "log1p": arb.log1p, "sin": arb.sin, "cos": arb.cos, "tanh": arb.tanh,
    "sigmoid": _sigmoid, "erf": arb.erf, "sqrt": arb.sqrt, "neg": lambda x: -x, "abs": abs, "round": lambda x: x,
}  # fmt: skip
BINARY: dict[str, Any] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": lambda x, y: x / y,
    "max": lambda x, y: x.max(y), "min": lambda x, y: x.min(y), "pow": lambda x, y: x**y,
    "less": lambda x, y: arb(1 if x < y else 0),
}  # fmt: skip


def moved(operation: Operation, x: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """expand, gather and sum of an array of one run."""
    attributes = dict(operation.attributes)
    if operation.kind == "expand":
        return np.expand_dims(x, attributes["axis"] % (x.ndim + 1))
    if operation.kind == "gather":
        return np.take(x, arrays[operation.operands[1]].astype(int), axis=attributes["axis"])
    if attributes.get("axis") is None:
        return np.full(x.shape, np.sum(x))
    return np.sum(x, axis=attributes["axis"])


def unrounded(program: Program, arrays: Mapping[str, np.ndarray], scalars: Mapping[str, float]) -> dict[str, Any]:
    values = {name: np.vectorize(ball, otypes=[object])(x) for name, x in arrays.items()}
    values |= {name: np.array(ball(x), dtype=object) for name, x in scalars.items()}
    for o in program.operations:
        given = [values[name] for name in o.operands]
        if o.kind in ("sum", "expand", "gather"):
            values[o.slot] = moved(o, given[0], arrays)
        elif o.kind == "dot":
            values[o.slot] = np.sum(given[0] * given[1], axis=dict(o.attributes)["axis"])
        elif o.kind == "fma":
            values[o.slot] = given[0] * given[1] + given[2]
        elif o.kind == "where":
            values[o.slot] = np.where(np.vectorize(lambda c: c != 0)(given[0]), given[1], given[2])
        else:
            rule = UNARY.get(o.kind) or BINARY[o.kind]
            values[o.slot] = np.vectorize(rule, otypes=[object])(*given)
    return values


def upstream(program: Program, name: str) -> list[Operation]:
    """The operations that a value is computed by."""
    found = [o for o in program.operations if o.slot == name]
    return found + [o for one in found for operand in one.operands for o in upstream(program, operand)]


def evaluated(expression: Any, program: Program, values: Mapping[str, np.ndarray], given: Mapping[str, Any]) -> Any:
    """A SymPy expression of an enclosure on arrays of balls."""

    def at(e: Any) -> Any:
        if isinstance(e, sp.Symbol):
            return given[str(e)] if str(e) in given else values[str(e)]
        if isinstance(e, sp.Rational):
            return ball(Fraction(int(e.p), int(e.q)))
        if e is sp.E:
            return arb(1).exp()
        parts = [at(x) for x in e.args]
        if isinstance(e, sp.Add):
            return sum(parts[1:], parts[0])
        if isinstance(e, sp.Mul):
            return math.prod(parts[1:], start=parts[0])
        if isinstance(e, (sp.Max, sp.Min)):
            join = np.vectorize(arb.max if isinstance(e, sp.Max) else arb.min, otypes=[object])
            result = parts[0]
            for part in parts[1:]:
                result = join(result, part)
            return result
        if isinstance(e, sp.Pow) and e.exp == sp.Rational(1, 2):
            return np.vectorize(arb.sqrt, otypes=[object])(parts[0])
        if isinstance(e, sp.Pow) and e.exp.is_Integer:
            return parts[0] ** int(e.exp)
        if isinstance(e, sp.Pow):
            return np.vectorize(lambda x, y: x**y, otypes=[object])(parts[0], parts[1])
        name = type(e).__name__
        if name in UNARY or name == "Abs":
            return np.vectorize(UNARY[name.lower()], otypes=[object])(parts[0])
        operation = program.operation(name)
        if operation.kind == "dot":
            return np.sum(parts[0], axis=dict(operation.attributes)["axis"])
        inner = np.broadcast_to(parts[0], np.shape(values[operation.operands[0]]))
        return moved(operation, inner, {k: np.vectorize(float)(v) for k, v in values.items()})

    return at(expression)


def held(
    program: Program, precision: Precision, given: Mapping[str, np.ndarray], names: list[str], seed: int = 0,
    nonnegative: tuple[str, ...] = (),
) -> dict[tuple[str, int, str], list[float]]:  # fmt: skip
    """Run a program and hold values to their enclosures: (value, case, kind) -> how much of each was used, in 0..1."""
    slots = precision.resolve(program)
    used: dict[tuple[str, int, str], list[float]] = {}
    with ctx.workprec(BITS):
        computed, values, scalars, lengths = run_twice(program, precision, given, seed)
        for name in names:
            answer = enclosure(program, slots, name, program.inputs, nonnegative, scalars, lengths)
            assert isinstance(answer, Enclosure), answer
            for number, case in enumerate(answer.cases):
                found = _held_case(program, slots, case, name, computed, values)
                used |= {(name, number, kind): shares for kind, shares in found.items()}
    return used


def run_twice(
    program: Program, precision: Precision, given: Mapping[str, np.ndarray], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, float], dict[str, int]]:
    """Computed values, the same without rounding, scalars and lengths."""
    slots = precision.resolve(program)
    result = fpsim.run(
        program, {k: given[k] for k in program.state}, {k: given[k] for k in program.inputs if k not in program.state},
        precision, fpsim.Key(seed), record=[o.slot for o in program.operations], device="exact",
    )  # fmt: skip
    arrays = {name: rounded(given[name], *slots[name]) for name in program.inputs}
    computed = {**arrays, **{name: x[0, ..., 0] for name, x in result.records.items()}}
    scalars = {name: float(x.flat[0]) for name, x in scalar_values(program, precision, range(1)).items()}
    return computed, unrounded(program, arrays, scalars), scalars, program.lengths(arrays)


def _held_case(
    program: Program, slots: Any, case: Any, name: str, every: Mapping[str, np.ndarray], values: Any
) -> dict[str, list[float]]:  # fmt: skip
    computed = every[name]
    model = {str(k): ball(v) for k, v in model_values(slots, program.slots).items()}
    with np.errstate(all="ignore"):
        for key, x in every.items():
            if np.min(np.abs(x)) >= slots.get(key, slots[program.inputs[0]])[0].smallest_normal:
                model |= {f"slope[{o.slot}]": arb(0) for o in program.operations if key in o.operands}
            model[f"size[{key}]"], model[f"least[{key}]"] = ball(np.max(np.abs(x))), ball(np.min(np.abs(x)))

    def number(expression: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(evaluated(expression, program, values, model), dtype=object), computed.shape)

    supposed = np.ones(computed.shape, dtype=bool)
    everywhere = any(o.kind in ("sum", "dot", "expand", "gather") for o in upstream(program, name))
    for condition in case.conditions:
        margin, error = (evaluated(x, program, values, model) for x in (condition.margin, condition.error))
        compare = (lambda x, y: x > y) if condition.strict else (lambda x, y: x >= y)
        true = np.vectorize(compare, otypes=[bool])(margin, error)
        supposed &= np.all(true) if everywhere else true
    shares: dict[str, list[float]] = {}
    if isinstance(case.relative, Factor):
        exact, wide = number(case.relative.exact), number(case.relative.absolute)
        low, high = (ball(x) for x in (case.relative.low_value[0], case.relative.high_value[1]))
        shares["relative"] = []
        for y, x, e in zip(computed[supposed], exact[supposed], wide[supposed], strict=True):
            if not e.is_finite() or not x.is_finite():
                continue
            least, most = (x * low).min(x * high) - e, (x * low).max(x * high) + e
            assert not ball(y) < least
            assert not ball(y) > most
            if x != 0:
                shares["relative"].append(float(abs(ball(y) - x) / (abs(x) * (high - 1).max(1 - low) + e + 1e-99)))
    if isinstance(case.absolute, AbsoluteError):
        exact, bound = number(case.absolute.exact), number(case.absolute.bound)
        shares["absolute"] = []
        for y, x, e in zip(computed[supposed], exact[supposed], bound[supposed], strict=True):
            if not e.is_finite() or not x.is_finite():
                continue
            assert not abs(ball(y) - x) > e, (y, x, e)
            shares["absolute"].append(float(abs(ball(y) - x) / (e + 1e-99)))
    return shares


def rounded(x: np.ndarray, fmt: Any, mode: Any) -> np.ndarray:
    """As the machine sets up a start state or a constant."""
    return np.asarray(fpsim.round(x, fmt, "nearest_even" if isinstance(mode, Stochastic) else mode))


def sample(draw: np.random.Generator, *shape: int, spread: float = 2.0) -> np.ndarray:
    return np.asarray(draw.normal(size=shape) * 2.0 ** draw.uniform(-spread, spread, shape))
