"""What Triton's interpreter lacks: the fused multiply-add, and the roundings of binary32 that are not to nearest.

Before version 3.9 the interpreter multiplied and then added, with two roundings. Every residual that an operation takes
would be zero by that, and results wrong that are right on a card. Of instructions that Triton has no name for it knows
none. Both are computed by the CPU machine here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.cpu.flat import perform
from fpsim.cpu.tiers import Range
from fpsim.formats import BINARY64, format
from fpsim.rounding import Rounding

_BINARY32 = format("binary32")
_DIRECTIONS: dict[str, Rounding] = {"rz": "toward_zero", "rp": "up", "rm": "down"}


@cache
def correct() -> None:
    """Put a fused multiply-add in the place of one that rounds twice, and give inline instructions a meaning."""
    from triton.runtime import interpreter

    class Results:
        """What the frontend reads the results of an instruction from."""

        def __init__(self, result: Any) -> None:
            self.result = result

        def get_result(self, _: int) -> Any:
            return self.result

    def create_inline_asm(_: Any, text: str, constraints: str, values: Any, *rest: Any) -> Any:
        kind, direction, dtype = text.split()[0].split(".")
        assert dtype == "f32"
        result = _performed(kind, [x.data for x in values], _DIRECTIONS[direction])
        return Results(interpreter.TensorHandle(result, interpreter.tl.float32))

    interpreter.InterpreterBuilder.create_inline_asm = create_inline_asm
    x = interpreter.TensorHandle(np.array([1 + 2.0**-30]), interpreter.tl.float64)
    z = interpreter.TensorHandle(np.array([-1 - 2.0**-29]), interpreter.tl.float64)
    if interpreter.interpreter_builder.create_fma(x, x, z).data[0] == 2.0**-60:
        return

    def create_fma(_: Any, x: Any, y: Any, z: Any) -> Any:
        return interpreter.TensorHandle(_performed("fma", [x.data, y.data, z.data], "nearest_even"), z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = create_fma


def _performed(kind: str, operands: Sequence[npt.NDArray[Any]], rounding: Rounding) -> npt.NDArray[Any]:
    """The operation in the format of the operands' dtype."""
    fmt = BINARY64 if operands[0].dtype == np.float64 else _BINARY32
    shape = np.broadcast_shapes(*(operand.shape for operand in operands))
    result = np.empty(shape, dtype=operands[0].dtype)
    ranges = (Range.of_format(fmt),) * len(operands)
    perform(kind, [np.ascontiguousarray(x) for x in operands], ranges, fmt, rounding, None, shape, result)
    return result
