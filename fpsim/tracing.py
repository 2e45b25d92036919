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

from fpsim.program import ELEMENTARY, Operation, Program, Scalar
from fpsim.scalars import STEP, Number, ScalarExpression
from fpsim.shapes import Shape


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

    def append(self, kind: str, operands: Iterable[Any], **attributes: Any) -> Value:
        names = tuple(self._name(operand) for operand in operands)
        taken = {operation.slot for operation in self.operations}
        slot = kind
        for i in range(1, len(taken) + 2):
            if slot not in taken:
                break
            slot = f"{kind}_{i}"
        self.operations.append(Operation(kind, slot, names, tuple(attributes.items())))
        return Value(self, slot)

    def rename(self, old: str, new: str) -> Value:
        last = self.operations[-1] if self.operations else None
        if last is None or last.slot != old:
            raise ValueError(f"slot {new!r}: name a value in the expression that computes it")
        if any(operation.slot == new for operation in self.operations[:-1]):
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


def sign(a: Value) -> Value:
    """1 where a > 0, -1 where a < 0, and a itself where it is +0, -0 or NaN; exact."""
    return a.trace.append("sign", (a,))


def total(a: Value, axis: int | None = None, order: str = "sequential", block: int | None = None) -> Value:
    """Sum over an axis, or over all elements of a run, every addition rounded.

    Parameters
    ----------
    a : traced array
    axis : int, the axis that is summed over and is gone in the result; None sums over all elements in C order, and the
        result is broadcast to the shape of ``a``
    order : ``"sequential"``: s = t_0, then s = rd(s + t_k) for k = 1, 2, ...; ``"blocked"``: the sequential sums S_j of
        every ``block`` terms, then M = S_0, M = rd(M + S_j); ``"pairwise"``: rd(left + right) over a tree that splits
        the terms lo .. hi - 1 at lo + the largest power of two below hi - lo
    block : int >= 1, for ``order="blocked"``

    Returns
    -------
    traced array

    Notes
    -----
    Orders and splits are those of ``fpsim.Accumulator``, but a sum starts from its first term, not from +0: n terms
    take n - 1 additions, and one term is its own sum. Each addition joins two neighbouring ranges of terms; its random
    bits are those of the slot at element e, the C-order index in ``a`` of the first term of the right range.

    A sum of products is two slots, the format of the products and that of the sum:

    >>> @step(shapes={"A": ("n", "d")}, shared=("A",))
    ... def margins(A, x):
    ...     return {"y": slot("sum", total(slot("product", A * x), axis=1))}
    >>> margins.shape("product"), margins.shape("sum")
    (('n', 'd'), ('n',))
    """
    if axis is None and order == "sequential" and block is None:
        return a.trace.append("sum", (a,))
    return a.trace.append("sum", (a,), axis=axis, order=order, block=block)


def total_of_products(a: Value, b: Any, axis: int) -> Value:
    """Sum of a b over an axis, with one rounding for each term: s = +0, then s = rd(s + a_k b_k) for k = 0, 1, ...

    ``a`` and ``b`` are broadcast first. The random bits of term k are those of its element in the product. Where the
    product is to have a rounding of its own, write ``total(a * b, axis)``.
    """
    return a.trace.append("dot", (a, b), axis=axis)


def expand(a: Value, axis: int) -> Value:
    """``a`` with a new axis of length 1, exact: ``expand(x, 1)`` is ``x[:, None]``, and ``expand(x, -1)`` too."""
    return a.trace.append("expand", (a,), axis=axis)


def column(a: Value) -> Value:
    """``a`` with a new last axis of length 1, so that it is multiplied with the rows of a matrix; exact."""
    return expand(a, -1)


def gather(a: Value, index: Value, axis: int = 0) -> Value:
    """Rows ``a[index]``, or other slices along ``axis``, exact.

    ``index`` is an input that the step only reads, of whole numbers 0 .. length - 1, shared or per run. It keeps
    binary64 whatever the precision says.
    """
    return a.trace.append("gather", (a, index), axis=axis)


def less(a: Value, b: Any) -> Value:
    """1 where a < b, else 0 (and for NaN); exact."""
    return a.trace.append("less", (a, b))


def where(condition: Value, a: Any, b: Any) -> Value:
    """a where the condition is not 0, else b; exact."""
    return condition.trace.append("where", (condition, a, b))


def remainder(a: Value, b: Any) -> Value:
    """a - n b with n the integer nearest to a / b, ties to even (IEEE 754 remainder), rounded once."""
    return a.trace.append("rem", (a, b))


def power(a: Value, b: Any) -> Value:
    """a to the power b, rounded once."""
    return a.trace.append("pow", (a, b))


def elementary(kind: str, a: Value) -> Value:
    """exp, exp2, expm1, log, log2, log1p, sin, cos, tanh, sigmoid or erf of ``a``, rounded once.

    Raises
    ------
    ValueError
        ``kind`` is none of these.
    """
    if kind not in ELEMENTARY or kind == "pow":
        admissible = ", ".join(name for name in ELEMENTARY if name != "pow")
        raise ValueError(f"kind={kind!r}; admissible: {admissible}")
    return a.trace.append(kind, (a,))


def sigmoid(a: Value) -> Value:
    """1 / (1 + e^-a), rounded once."""
    return elementary("sigmoid", a)


def opaque(function: str, a: Value, **attributes: Any) -> Value:
    """A named function of a whole run's array, in binary64, rounded where it is stored; who runs the step supplies it.

    Parameters
    ----------
    function : its name
    a : traced array; the result has its shape
    attributes : numbers about the function that theorems read, such as its accuracy
    """
    return a.trace.append("opaque", (a,), function=function, **attributes)


def step(
    function: Callable[..., Mapping[str, Value]] | None = None,
    *,
    name: str | None = None,
    shapes: Mapping[str, Shape] | None = None,
    shared: Iterable[str] = (),
) -> Any:
    """Decorator: trace a plain function into a ``Program``.

    Parameters
    ----------
    function : positional parameters are arrays; keyword-only parameters with a default are hyperparameters; a
        keyword-only ``t`` without one is the number of the step, counted from 1. It returns a dict: array name -> the
        value stored there at the end of the step.
    name : str, the program's name; default: the function's
    shapes : array -> symbolic shape, such as ``{"A": ("n", "d")}``, where it is not ``("d",)``; ``()`` is one number
    shared : arrays that all runs have in common; the others are per run

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
        return lambda f: step(f, name=name, shapes=shapes, shared=shared)
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
        shapes=shapes or {},
        shared=tuple(shared),
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
