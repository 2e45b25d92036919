"""The fused multiply-add of Triton's interpreter, where it is none.

Before version 3.9 the interpreter multiplied and then added, with two roundings. Every residual that an operation takes
would be zero by that, and results wrong that are right on a card.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fpsim.cpu.flat import perform
from fpsim.cpu.tiers import Range
from fpsim.formats import BINARY64

_ANY = (Range.of_format(BINARY64),) * 3


@cache
def correct() -> None:
    """Put a fused multiply-add in the place of one that rounds twice."""
    from triton.runtime import interpreter

    x = interpreter.TensorHandle(np.array([1 + 2.0**-30]), interpreter.tl.float64)
    z = interpreter.TensorHandle(np.array([-1 - 2.0**-29]), interpreter.tl.float64)
    if interpreter.interpreter_builder.create_fma(x, x, z).data[0] == 2.0**-60:
        return

    def create_fma(_: Any, x: Any, y: Any, z: Any) -> Any:
        operands = [np.ascontiguousarray(handle.data) for handle in (x, y, z)]
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        result = np.empty(shape)
        perform("fma", operands, _ANY, BINARY64, "nearest_even", None, shape, result)
        return interpreter.TensorHandle(result, z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = create_fma
