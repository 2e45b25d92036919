"""What Triton's interpreter does unlike a card, put right.

Before version 3.9 its fused multiply-add multiplied and then added, with two roundings. Every residual that an
operation takes would be zero by that, and results wrong that are right on a card. Version 3.6 counts loops by
``int(array)`` of an array of one dimension, which NumPy refuses from 2.4 on: the steps of a printed program.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fpsim.cpu.flat import perform
from fpsim.cpu.tiers import Range
from fpsim.formats import BINARY64, format

_ANY = (Range.of_format(BINARY64),) * 3
_FORMATS = {np.dtype(np.float32): format("binary32"), np.dtype(np.float64): BINARY64}


@cache
def correct() -> None:
    """Put what is right in the place of what is not, in the versions that need it."""
    import triton
    from triton.runtime import interpreter

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < (3, 9):
        interpreter.InterpreterBuilder.create_fma = _create_fma
    if version < (3, 7):
        _count_loops(interpreter)


def _create_fma(_: Any, x: Any, y: Any, z: Any) -> Any:
    from triton.runtime.interpreter import TensorHandle

    operands = [np.ascontiguousarray(handle.data) for handle in (x, y, z)]
    shape = np.broadcast_shapes(*(operand.shape for operand in operands))
    result = np.empty(shape, z.data.dtype)
    perform("fma", operands, _ANY, _FORMATS[result.dtype], "nearest_even", None, shape, result)
    return TensorHandle(result, z.dtype.scalar)


def _count_loops(interpreter: Any) -> None:
    """The interpreter gives Triton's tensors their methods before every launch: ``__index__`` once more after it."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
