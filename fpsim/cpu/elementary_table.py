"""The elementary functions as preparations: compiled kernels, and the specification for what they leave open.

An element that a kernel does not decide (a result within the error bound of a 53-bit number: about one in 10^4; an
exact result; an argument near the ends of binary64) is computed by ``fpsim.elementary``, each distinct one once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim import elementary
from fpsim.cpu import elementary_circle as circle
from fpsim.cpu import elementary_constants as constants
from fpsim.cpu import elementary_erf as error_function
from fpsim.cpu import elementary_exponential as exponential
from fpsim.cpu import elementary_logarithm as logarithm
from fpsim.cpu import elementary_power as power
from fpsim.cpu import jit
from fpsim.cpu.prepared import Preparation
from fpsim.exact import round_value
from fpsim.formats import BINARY64

_Floats = npt.NDArray[np.float64]


@jit.kernel
def _unary(element: Any, x: Any, table: Any, result: Any, left: Any) -> Any:
    """How many elements are left open; their indices begin ``left``."""
    count = 0
    for i in range(len(x)):
        y, known = element(x[i], table)
        result[i] = y
        left[count] = i
        count += 0 if known else 1
    return count


@jit.kernel
def _binary(element: Any, x: Any, y: Any, table: Any, result: Any, left: Any) -> Any:
    count = 0
    for i in range(len(x)):
        z, known = element(x[i], y[i], table)
        result[i] = z
        left[count] = i
        count += 0 if known else 1
    return count


def _make(sources: int) -> dict[str, Any]:
    """The entries. Each names its element: one that is captured would have another cache entry in every process."""

    @jit.entry
    def exp(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(exponential.exp, x, table, result, left), sources

    @jit.entry
    def exp2(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(exponential.exp2, x, table, result, left), sources

    @jit.entry
    def expm1(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(exponential.expm1, x, table, result, left), sources

    @jit.entry
    def sigmoid(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(exponential.sigmoid, x, table, result, left), sources

    @jit.entry
    def tanh(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(exponential.tanh, x, table, result, left), sources

    @jit.entry
    def log(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(logarithm.log, x, table, result, left), sources

    @jit.entry
    def log2(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(logarithm.log2, x, table, result, left), sources

    @jit.entry
    def log1p(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(logarithm.log1p, x, table, result, left), sources

    @jit.entry
    def sin(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(circle.sin, x, table, result, left), sources

    @jit.entry
    def cos(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(circle.cos, x, table, result, left), sources

    @jit.entry
    def erf(x: Any, table: Any, result: Any, left: Any) -> Any:
        return _unary(error_function.erf, x, table, result, left), sources

    @jit.entry
    def pow(x: Any, y: Any, table: Any, result: Any, left: Any) -> Any:
        return _binary(power.power, x, y, table, result, left), sources

    return {entry.__name__: entry for entry in (exp, exp2, expm1, sigmoid, tanh, log, log2, log1p, sin, cos, erf, pow)}


KERNELS = _make(jit.SOURCES)


@cache
def power_table() -> _Floats:
    return np.concatenate([constants.exponential(), constants.logarithm()])


TABLES: dict[str, Callable[[], _Floats]] = {
    **dict.fromkeys(("exp", "exp2", "expm1", "sigmoid", "tanh"), constants.exponential),
    **dict.fromkeys(("log", "log2", "log1p"), constants.logarithm),
    **dict.fromkeys(("sin", "cos"), constants.circle),
    "erf": constants.error_function,
    "pow": power_table,
}


def to_odd(kind: str, operands: tuple[float, ...]) -> float:
    """The specification's result, rounded to odd at 53 bits."""
    return round_value(elementary.value(kind, operands), BINARY64, "to_odd")


def compute(kind: str, *operands: _Floats) -> _Floats:
    """Results to odd. Operands: contiguous, one axis, equal lengths."""
    result = np.empty(len(operands[0]))
    left = np.empty(len(result), dtype=np.int64)
    count, _ = KERNELS[kind](*operands, TABLES[kind](), result, left)
    if count:
        known: dict[bytes, float] = {}
        for i in left[:count].tolist():
            case = tuple(float(x[i]) for x in operands)
            pattern = struct.pack(f"{len(case)}d", *case)  # -0 and 0 are one key otherwise
            if pattern not in known:
                known[pattern] = to_odd(kind, case)
            result[i] = known[pattern]
    return result


ELEMENTARY: dict[str, Preparation] = {
    kind: Preparation(2 if kind == "pow" else 1, False, partial(compute, kind), partial(elementary.value, kind))
    for kind in elementary.KINDS
}
