"""The compiled entry of ``flat_again``: it checks arrays by their C structures and calls a flat kernel.

A call on 2^15 elements takes a few microseconds, and so would the same checks in Python. The compiled entry is given
the arrays' identities and reads NumPy's C structures (numpy/ndarraytypes.h), which hold, 8 bytes each, behind the
object's head:

    array   data, number of axes, lengths, strides, base, dtype, flags
    dtype   type of a scalar; kind, letter, byte order, flags and number

Whether they do so is tried when this file is imported; if not, no call takes the short way. The arrays are alive while
the entry runs: the caller holds them. Nothing behind an object's head is read unless its type is exactly ndarray.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fpsim.cpu import flat, jit
from fpsim.cpu.flat_kernels import doubles_on_grid, singles_on_grid
from fpsim.cpu.flat_memory import int64_at
from fpsim.number_format import Format

Array = npt.NDArray[Any]

_HEAD = object.__basicsize__
_DATA, _AXES, _LENGTHS, _STRIDES, _BASE, _DTYPE, _FLAGS = range(7)
_C_ORDER, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400
_INT = 0xFFFFFFFF  # a C int in 8 bytes

# A row of a plan, one for each dtype: the kernel's address (0: none), that of the format's numbers, what is needed, and
# where the numbers of three operands' declared formats are (0: nothing is declared).
_KERNEL, _INTEGERS, _FLOATS, _BITS, _SCALAR, _LETTERS, _WIDTH, _DECLARED = range(8)
_ROW = _DECLARED + 6
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

_ARGUMENTS = (types.int64,) * 15


@intrinsic  # type: ignore[untyped-decorator]
def _call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the machine code of a flat kernel."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        convention = context.call_conv
        kind = convention.get_function_type(types.int64, _ARGUMENTS)
        function = builder.inttoptr(given[0], kind.as_pointer())
        values = cgutils.unpack_tuple(builder, given[1])
        status, result = convention.call_function(builder, function, types.int64, _ARGUMENTS, values)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    return types.int64(types.int64, types.UniTuple(types.int64, len(_ARGUMENTS))), generate


@jit.inline
def _fits(x: Any, head: int, ndarray: Any, like: Any, flags: Any, plan: Any) -> bool:
    """Whether an object is an array of the plan's dtype, with these flags and the axes of ``like``."""
    if int64_at(x + head - 8)[0] != ndarray:
        return False
    fields = int64_at(x + head)
    dtype = int64_at(fields[_DTYPE] + head)
    if dtype[0] != plan[_SCALAR] or dtype[1] != plan[_LETTERS] or (fields[_FLAGS] & flags) != flags:
        return False
    axes = fields[_AXES] & _INT
    if axes != like[_AXES] & _INT:
        return False
    these, those = int64_at(fields[_LENGTHS]), int64_at(like[_LENGTHS])
    differ = 0
    for i in range(axes):
        differ |= these[i] ^ those[i]
    return differ == 0


def _entry() -> Any:
    # Numbers only: they are part of the key of the cache on disk.
    sources, head = jit.SOURCES, _HEAD

    @jit.entry
    def run(
        x: int, y: int, z: int, out: int, ndarray: int, plans: int, check: int, key0: int, key1: int, threaded: int
    ) -> int:  # fmt: skip
        """0 if the arrays with these identities are as the plan wants them, and the results are in ``out``.

        ndarray : the type's identity;  plans : address of the rows;  check : whether to look at what is declared
        threaded : elements from which on threads pay
        """
        if int64_at(x + head - 8)[0] != ndarray or sources < 0:
            return 1
        like = int64_at(x + head)
        plan = int64_at(plans)
        if int64_at(like[_DTYPE] + head)[1] != plan[_LETTERS]:
            plan = int64_at(plans + 8 * _ROW)
        kernel = plan[_KERNEL]
        readable = _C_ORDER | _ALIGNED
        if kernel == 0 or not _fits(out, head, ndarray, like, readable | _WRITEABLE, plan):
            return 1
        if not (_fits(x, head, ndarray, like, readable, plan) and _fits(y, head, ndarray, like, readable, plan)):
            return 1
        if not _fits(z, head, ndarray, like, readable, plan):
            return 1
        size = 1
        for i in range(like[_AXES] & _INT):
            size *= int64_at(like[_LENGTHS])[i]
        if size < 2 or size >= threaded:
            return 1
        a, b, c = like[_DATA], int64_at(y + head)[_DATA], int64_at(z + head)[_DATA]
        to, span = int64_at(out + head)[_DATA], size * plan[_WIDTH]
        aliased = 0
        for place in (a, b, c):
            if place == to:
                aliased = 1
            elif -span < place - to < span:
                return 1
        if check:
            for i, place in enumerate((a, b, c)):
                declared = int64_at(plans + 8 * (_DECLARED + 2 * i))
                if declared[0] != 0:
                    if plan[_WIDTH] == 4:
                        if not singles_on_grid(place, size, declared[0], declared[1]):
                            return 1
                    elif not doubles_on_grid(place, size, declared[0], declared[1]):
                        return 1
        integers, floats, bits = plan[_INTEGERS], plan[_FLOATS], plan[_BITS]
        _call(kernel, (a, 1, b, 1, c, 1, to, aliased, size, integers, floats, key0, key1, 0, bits))
        return 0

    return run


def _compiled() -> Any:
    """The entry without Numba's dispatcher, which takes longer to look at 10 integers than all else here."""
    entry, signature = _entry(), (types.int64,) * 10
    entry.compile(signature)
    return entry, entry.get_compile_result(types.int64(*signature)).entry_point


_kept, run = _compiled()
NDARRAY = id(np.ndarray)


def _int64(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _letters(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The first two fields of a dtype."""
    return _int64(id(dtype) + _HEAD), _int64(id(dtype) + _HEAD + 8)


def _reads(array: Array) -> bool:
    """Whether an array's structure is what this file takes it for."""
    fields = [_int64(id(array) + _HEAD + 8 * i) for i in range(7)]
    flags = array.flags
    known = (_C_ORDER, flags.c_contiguous), (_ALIGNED, flags.aligned), (_WRITEABLE, flags.writeable)
    return (
        _int64(id(array) + _HEAD - 8) == NDARRAY
        and fields[_DATA] == array.__array_interface__["data"][0]
        and fields[_AXES] & _INT == array.ndim
        and fields[_DTYPE] == id(array.dtype)
        and all(bool(fields[_FLAGS] & bit) == said for bit, said in known)
        and all(_int64(fields[_LENGTHS] + 8 * i) == n for i, n in enumerate(array.shape))
        and all(_int64(fields[_STRIDES] + 8 * i) == n for i, n in enumerate(array.strides))
    )


def _dtypes_read() -> bool:
    """Whether the fields of a dtype tell apart what they should, and are the same in a copy of it."""
    names = ("f4", "f8", ">f4", ">f8", "i4", "i8", "u8", "c8", "m8[s]", "f2")
    copies = [np.dtype(np.dtype(name), copy=True) for name in ("f4", "f8")]
    found = [_letters(np.dtype(name)) for name in names]
    return len(set(found)) == len(names) and [_letters(dtype) for dtype in copies] == found[:2]


def _known() -> bool:
    cube = np.zeros((3, 4, 5))
    fixed = np.zeros(7, dtype=np.float32)
    fixed.flags.writeable = False
    raw = np.zeros(33, dtype=np.uint8)[1:].view(np.float64)
    probes = (cube, cube[1:], cube[:, ::2], cube.T, fixed, raw, raw[:1])
    return flat.known and all(_reads(probe) for probe in probes) and _dtypes_read()


KNOWN = _known()


def rows(declared: Sequence[Format | None]) -> tuple[Array, list[flat.Plan]] | None:
    """Two rows for a plan, one for each dtype, in which there is no kernel yet, and what they refer to.

    None if a declared format is none whose numbers the fast kernels can tell.
    """
    made = np.zeros((2, _ROW), dtype=np.int64)
    grids = []
    for i, fmt in enumerate(declared):
        if fmt is not None:
            grid = flat.plan("round", (), fmt, "nearest_even", False)
            if grid.slow:
                return None
            made[:, _DECLARED + 2 * i : _DECLARED + 2 * i + 2] = grid.addresses
            grids.append(grid)
    return made, grids


def fill(made: Array, chosen: flat.Plan, dtype: np.dtype[Any]) -> bool:
    """Enter the plan for a dtype. False if its kernel is none that ``run`` can call."""
    place = 0 if chosen.slow else _machine_code(chosen.kernel)
    if place:
        double = int(dtype == _DTYPES[1])
        numbers = (*chosen.addresses, chosen.bits, *_letters(_DTYPES[double]), dtype.itemsize)
        made[double, _KERNEL + 1 : _DECLARED] = numbers
        made[double, _KERNEL] = place
    return place != 0


def _machine_code(kernel: Any) -> int:
    """The address of a flat kernel's machine code; 0 if it has another signature."""
    compiled = kernel.overloads.get(_ARGUMENTS)
    if compiled is None or types.unliteral(compiled.signature.return_type) != types.int64:
        return 0
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
