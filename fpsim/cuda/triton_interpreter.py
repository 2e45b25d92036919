"""What Triton's interpreter lacks, or does unlike a card.

Before version 3.9 its fused multiply-add multiplied and then added, with two roundings. Every residual that an
operation takes would be zero by that, and results wrong that are right on a card. Of instructions that Triton has no
name for, the roundings of binary32 that are not to nearest, it knows none. Both are computed by the CPU machine here.

Version 3.6 counts loops by ``int(array)`` of an array of one dimension, which NumPy refuses from 2.4 on: the steps of
a printed program.
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
    """Mend the fused multiply-add, give inline instructions a meaning, and count loops in 3.6."""
    import triton
    from triton.runtime import interpreter

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < (3, 7):
        _count_loops(interpreter)

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
    if version >= (3, 9):
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


def _count_loops(interpreter: Any) -> None:
    """The interpreter gives Triton's tensors their methods before every launch: ``__index__`` once more after it."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
