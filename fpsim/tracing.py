"""An optimizer step as data: a plain Python function, traced into a list of named operations.

A step is written once with ordinary operators. Positional parameters are arrays, keyword-only parameters with a default
are hyperparameters with their declared value, and a keyword-only ``t`` is the number of the step, counted from 1:

>>> @step
... def sgd(w, g, *, lr=0.1):
...     return {"w": slot("w.sub", w - slot("update.scale", lr * g))}
>>> sgd.slots
('update.scale', 'w.sub', 'w', 'g', 'scalar.lr')
>>> sgd.state
('w',)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from fpsim.program import Operation, Program, Scalar
from fpsim.scalars import STEP, Number, ScalarExpression


class Value:
    """A traced array: operators append operations to the trace."""

    def __init__(self, trace: _Trace, name: str) -> None:
        self.trace, self.name = trace, name

    def _with(self, kind: str, other: Any, swapped: bool = False) -> Value:
        operands = (other, self) if swapped else (self, other)
        return self.trace.append(kind, operands)

    def __add__(self, other: Any) -> Value:
        return self._with("add", other)

    def __radd__(self, other: Any) -> Value:
        return self._with("add", other, swapped=True)

    def __sub__(self, other: Any) -> Value:
        return self._with("sub", other)

    def __rsub__(self, other: Any) -> Value:
        return self._with("sub", other, swapped=True)

    def __mul__(self, other: Any) -> Value:
        return self._with("mul", other)

    def __rmul__(self, other: Any) -> Value:
        return self._with("mul", other, swapped=True)

    def __truediv__(self, other: Any) -> Value:
        return self._with("div", other)

    def __rtruediv__(self, other: Any) -> Value:
        return self._with("div", other, swapped=True)

    def __neg__(self) -> Value:
        return self.trace.append("neg", (self,))

    def __bool__(self) -> bool:
        raise TypeError("a traced array has no truth value: a branch on data is not a program")


class _Trace:
    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.scalars: dict[str, ScalarExpression] = {}

    def append(self, kind: str, operands: Iterable[Any]) -> Value:
        names = tuple(self._name(operand) for operand in operands)
        taken = {operation.slot for operation in self.operations}
        slot = kind
        for i in range(1, len(taken) + 2):
            if slot not in taken:
                break
            slot = f"{kind}_{i}"
        self.operations.append(Operation(kind, slot, names))
        return Value(self, slot)

    def rename(self, old: str, new: str) -> Value:
        last = self.operations[-1] if self.operations else None
        if last is None or last.slot != old:
            raise ValueError(f"slot {new!r}: name a value in the expression that computes it")
        if any(operation.slot == new for operation in self.operations):
            raise ValueError(f"slot {new!r} is used twice")
        self.operations[-1] = replace(last, slot=new)
        return Value(self, new)

    def _name(self, operand: Any) -> str:
        if isinstance(operand, Value):
            if operand.trace is not self:
                raise ValueError(f"{operand.name!r} belongs to another step")
            return operand.name
        if isinstance(operand, NamedScalar):
            name, expression = f"scalar.{operand.name}", operand.expression
        elif isinstance(operand, (ScalarExpression, int, float, Fraction)):
            expression = ScalarExpression.of(operand)
            name = f"scalar.{_scalar_name(expression)}"
        else:
            raise TypeError(f"operand {operand!r}: a traced array, a hyperparameter or a number is needed")
        if self.scalars.setdefault(name, expression) != expression:
            raise ValueError(f"{name} stands for two expressions: {self.scalars[name]}, {expression}")
        return name


@dataclass(frozen=True)
class NamedScalar:
    """A scalar expression with the name its slot shall have; arrays combine with it, scalars do not."""

    name: str
    expression: ScalarExpression


def scalar(name: str, expression: ScalarExpression | Number) -> NamedScalar:
    """Name a scalar expression: its slot is ``scalar.NAME``."""
    return NamedScalar(name, ScalarExpression.of(expression))


def slot(name: str, value: Value) -> Value:
    """Name the operation that ``value`` is the result of, in the expression that computes it.

    Parameters
    ----------
    name : str, such as ``"update.scale"``; not the name of an array or of another slot
    value : what an operator of this step has just returned

    Returns
    -------
    the value, under its new name

    Raises
    ------
    TypeError
        ``value`` is not a traced value (an array has no slot outside a step).
    ValueError
        ``value`` is not the latest operation, or the name is taken.

    Examples
    --------
    >>> step(lambda w, g: {"w": slot("w.sub", w - g)}, name="plain").slots
    ('w.sub', 'w', 'g')
    """
    if not isinstance(value, Value):
        raise TypeError(f"slot {name!r}: {value!r} is not a traced value; slots are named inside a step")
    return value.trace.rename(value.name, name)


def sqrt(x: Value) -> Value:
    return x.trace.append("sqrt", (x,))


def fma(a: Value, b: Any, c: Any) -> Value:
    """a * b + c with one rounding."""
    return a.trace.append("fma", (a, b, c))


def maximum(a: Value, b: Any) -> Value:
    return a.trace.append("max", (a, b))


def minimum(a: Value, b: Any) -> Value:
    return a.trace.append("min", (a, b))


def absolute(a: Value) -> Value:
    return a.trace.append("abs", (a,))


def total(a: Value) -> Value:
    """Sum over the elements of a run, sequentially from index 0, every addition rounded; the result is broadcast.

    The random bits of the k-th addition (k = 1..d-1, which adds element k) are those of element k of the slot.
    """
    return a.trace.append("sum", (a,))


def step(function: Callable[..., Mapping[str, Value]] | None = None, *, name: str | None = None) -> Any:
    """Decorator: trace a plain function into a ``Program``.

    Parameters
    ----------
    function : positional parameters are arrays, ``[d]`` per run; keyword-only parameters with a default are
        hyperparameters; a keyword-only ``t`` without one is the number of the step, counted from 1. It returns a dict:
        array name -> the value stored there at the end of the step.
    name : str, the program's name; default: the function's

    Raises
    ------
    TypeError
        A branch on data, an operator that programs do not have, or a result that is not a dict of traced values.
    ValueError
        A hyperparameter without default, a positional parameter with one, ``*args``, or a name used twice.

    Examples
    --------
    >>> @step
    ... def descent(w, g, *, lr=0.5):
    ...     return {"w": slot("w.sub", w - slot("update.scale", lr * g))}
    >>> descent.inputs, descent.state, dict(descent.hyperparameters)
    (('w', 'g'), ('w',), {'lr': 0.5})
    """
    if function is None:
        return lambda f: step(f, name=name)
    arrays, declared, symbols = [], {}, {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            symbols[parameter.name] = ScalarExpression.symbol(parameter.name)
            if parameter.default is not inspect.Parameter.empty:
                declared[parameter.name] = parameter.default
            elif parameter.name != STEP:
                raise ValueError(f"hyperparameter {parameter.name!r} needs a default, its declared value")
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"parameter {parameter}: every array and hyperparameter of a step has a name")
        elif parameter.default is not inspect.Parameter.empty:
            raise ValueError(
                f"parameter {parameter}: arrays have no default; a hyperparameter stands behind *, in (w, g, *, lr=0.1)"
            )
        else:
            arrays.append(parameter.name)
    trace = _Trace()
    results = function(*(Value(trace, array) for array in arrays), **symbols)
    if not isinstance(results, Mapping) or not all(isinstance(value, Value) for value in results.values()):
        raise TypeError(f"the step returns {results!r}; a dict is needed: array name -> the traced value stored there")
    if not results:
        raise ValueError("the step returns an empty dict: it stores nothing")
    return Program(
        name=name or function.__name__,
        inputs=tuple(arrays),
        outputs=tuple((array, value.name) for array, value in results.items()),
        scalars=tuple(Scalar(key, expression) for key, expression in trace.scalars.items()),
        operations=tuple(trace.operations),
        hyperparameters=declared,
        variant=inspect.getdoc(function) or "",
    )


def _scalar_name(expression: ScalarExpression) -> str:
    words = {0: "zero", 1: "one", 2: "two", 3: "three"}
    if expression.kind == "symbol":
        return expression.name
    if expression.number in words:
        return words[int(expression.number)]
    left, right = expression.left, expression.right
    if (
        expression.kind == "-"
        and left is not None
        and right is not None
        and left.number == 1
        and right.kind == "symbol"
    ):
        return f"one_minus_{right.name}"
    raise ValueError(f"scalar expression {expression}: give it a name with scalar(NAME, expression)")
