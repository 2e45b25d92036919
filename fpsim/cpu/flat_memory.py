"""Memory as the flat kernels see it: addresses that become pointers, and a buffer on the stack.

Numba compiles a function anew for an array that is read-only or strided. The array functions hand over addresses, which
are integers, and keep the arrays alive; so one compilation serves every caller.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _pointer_at(element: Any) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def at(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), generate

    return at


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def floats_at(typing_context: Any, address: Any, width: Any) -> Any:
    """A pointer to float32 or float64: ``width`` is a constant, 4 or 8."""
    element = {4: types.float32, 8: types.float64}[width.literal_value]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(element)(types.int64, width), generate


@intrinsic  # type: ignore[untyped-decorator]
def put(typing_context: Any, pointer: Any, i: Any, x: Any) -> Any:
    """pointer[i] = x for a float64 x, in the dtype of the pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]])
        value = arguments[2]
        if pointer.dtype == types.float32:
            value = builder.fptrunc(value, ir.FloatType())
        builder.store(value, place)
        return context.get_dummy_value()

    return types.void(pointer, types.uint64, types.float64), generate


def stack(element: Any, count: int) -> Any:
    """A function that gives the address of a buffer of ``count`` elements, aligned to a cache line."""

    @intrinsic  # type: ignore[untyped-decorator]
    def buffer(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = ir.ArrayType(context.get_data_type(element), count)
            room = cgutils.alloca_once(builder, array)
            room.align = 64
            return builder.ptrtoint(room, ir.IntType(64))

        return types.int64(), generate

    return buffer


float64_at = _pointer_at(types.float64)
uint32_at = _pointer_at(types.uint32)
int64_at = _pointer_at(types.int64)
