"""One array function on arrays: which kernel, in which pieces, with which conversions.

Arrays that are contiguous and of the kernel's dtype are read and written where they are. Others pass, a chunk at a
time, through buffers that stay in the second-level cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpsim import exact
from fpsim.cpu import codes
from fpsim.cpu.format_table import fast, tables
from fpsim.cpu.threads import in_pieces
from fpsim.cpu.tiers import Range, choose, is_binary64
from fpsim.number_format import Format
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import Rounding, asked_bits, code, random_bits

if TYPE_CHECKING:
    from fpsim.cpu.prepared import Preparation

Array = npt.NDArray[Any]

CHUNK = 1 << 15  # elements; a multiple of the 512 that share random words
PIECE = 1 << 18  # elements that one thread takes at a time: some 50 us of the cheapest kernel
THREADED = 1 << 20  # elements from which on threads pay: measured, 2 threads lose below 2^19 and win from 2^20 on
SLOW_PIECE = 1 << 11  # the same for kernels of integer arithmetic
SCALARS = 1 << 12  # elements from which on the values of scalars may choose a cheaper tier
BLOCK = 1024  # elements of a scalar's block: flat_kernels.BLOCK

RANGED = ("add", "sub", "mul", "div", "sqrt", "fma")  # operations whose tier depends on the operands
KINDS = ("round", *RANGED)
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


@dataclass(frozen=True)
class Plan:
    """A compiled kernel with the numbers of its format."""

    kernel: Any
    tables: tuple[Array, Array]
    addresses: tuple[int, int]
    bits: int
    slow: bool


@lru_cache(maxsize=4096)
def plan(kind: str, ranges: tuple[Range, ...], fmt: Format, rounding: Rounding, single: bool) -> Plan:
    """The cheapest proven kernel."""
    from fpsim.cpu.flat_kernels import flat, flat_exact
    from fpsim.cpu.operation_elements import low_enough

    bits = random_bits(rounding)
    tier, mode = codes.PLAIN, codes.BINARY64
    if not is_binary64(fmt, rounding):
        tier, mode = choose(kind, ranges, fmt, rounding), code(rounding)
    if tier == codes.GUARDED and (kind == "fma" or not low_enough(fmt, bits)):
        tier = codes.EXACT
    row = tables([(fmt, bits)])
    places = address(row[0]), address(row[1])
    if tier == codes.EXACT:
        exactly = flat_exact(single)

        def kernel(*given: int) -> int:
            """As the fast kernels, but for the operation and the mode; element by element, so never aliased."""
            return int(exactly(codes.KINDS[kind], code(rounding), *given[:7], *given[8:]))

        return Plan(kernel, row, places, bits, True)
    if single and kind == "round" and mode != codes.BINARY64:
        from fpsim.cpu.flat_single import NEITHER, flat_single, path

        way = path(fmt, rounding)
        if way != NEITHER:
            return Plan(flat_single(mode, way), row, places, bits, False)
    if single and mode != codes.BINARY64:
        from fpsim.cpu.flat_single_operations import single_kernel

        kernel_of_singles = single_kernel(kind, ranges, fmt, rounding)
        if kernel_of_singles is not None:
            return Plan(kernel_of_singles, row, places, bits, False)
    if mode == codes.STOCHASTIC and fmt.mantissa_bits <= 18:
        mode = codes.FIXED
    return Plan(flat(codes.KINDS[kind], tier, mode, single), row, places, bits, False)


def perform(
    kind: str,
    arrays: Sequence[Array],
    ranges: tuple[Range, ...],
    fmt: Format,
    rounding: Rounding,
    key: Key | None,
    shape: tuple[int, ...],
    result: Array,
) -> None:
    """Write the results of one array function to ``result``, contiguous and of any floating dtype."""
    size = result.size
    if size == 0:
        return
    flat = result.reshape(-1)
    if kind not in KINDS:
        _prepared(kind, [_Operand(array, shape, size, _FLOAT64) for array in arrays], fmt, rounding, key, flat)
        return
    single = result.dtype == _FLOAT32 and all(array.dtype == _FLOAT32 for array in arrays)
    chosen = plan(kind, ranges, fmt, rounding, single)
    _run(chosen, [_Operand(array, shape, size, _FLOAT32 if single else _FLOAT64) for array in arrays], key, flat)


class _Operand:
    """An operand in the order of the result's elements: in place, a scalar's block, or converted chunk by chunk."""

    def __init__(self, array: Array, shape: tuple[int, ...], count: int, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.step = 1
        if array.size == 1:
            value = _as(array, dtype)
            self.values = value.repeat(min(BLOCK, count)) if count > 1 else value.reshape(1)
            self.step = 0
        else:
            array = array if array.shape == shape else np.broadcast_to(array, shape)
            self.values = (array if _in_order(array) else array.copy("C")).reshape(-1)
        self.direct = self.values.dtype == dtype
        self.address = address(self.values)

    def chunk(self, start: int, stop: int) -> Array:
        if self.step == 0:
            return self.values
        part = self.values[start:stop]
        return part if self.direct else _as(part, self.dtype)


def _run(chosen: Plan, operands: Sequence[_Operand], key: Key | None, result: Array) -> None:
    k0, k1 = (key.k0, key.k1) if key else (0, 0)
    tables, kernel, bits = chosen.addresses, chosen.kernel, chosen.bits
    dtype = operands[0].dtype
    width = dtype.itemsize
    repeated = (*operands, *([operands[0]] * 3))[:3]

    def direct(start: int, stop: int) -> None:
        given = [x for operand in repeated for x in (operand.address + start * width * operand.step, operand.step)]
        kernel(*given, to + start * width, aliased, stop - start, *tables, k0, k1, start, bits)

    def converted(start: int, stop: int) -> None:
        for first in range(start, stop, CHUNK):
            last = min(first + CHUNK, stop)
            chunks = [operand.chunk(first, last) for operand in operands]
            target = result[first:last]
            room = target if result.dtype == dtype else np.empty(last - first, dtype)
            places = [address(chunk) for chunk in chunks]
            overwrites = int(address(room) in places)
            pairs = [(place, operand.step) for place, operand in zip(places, operands, strict=True)]
            given = [x for pair in (*pairs, *(pairs[:1] * 3))[:3] for x in pair]
            kernel(*given, address(room), overwrites, last - first, *tables, k0, k1, first, bits)
            if room is not target:
                with np.errstate(invalid="ignore"):
                    target[:] = room

    work: Callable[[int, int], None] = converted
    if result.dtype == dtype and all(operand.direct for operand in operands):
        to = address(result)
        aliased = int(any(operand.address == to for operand in operands))
        work = direct
    size = result.size
    piece = SLOW_PIECE if chosen.slow else PIECE
    if size < (SLOW_PIECE if chosen.slow else THREADED):
        work(0, size)
    else:
        in_pieces(work, size, piece)


def _prepared(
    kind: str, operands: Sequence[_Operand], fmt: Format, rounding: Rounding, key: Key | None, result: Array
) -> None:
    """Operations that are computed to odd or exactly, a chunk at a time, and then rounded."""
    from fpsim.cpu.prepared import preparation

    how = preparation(kind)
    enough = fast(fmt, random_bits(rounding)) and fmt.precision + asked_bits(rounding) <= 52
    chosen = plan("round", (), fmt, rounding, False) if how.exact or enough else None

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, CHUNK):
            last = min(first + CHUNK, stop)
            chunks = [
                np.full(last - first, operand.values[0]) if operand.step == 0 else operand.chunk(first, last)
                for operand in operands
            ]
            with np.errstate(all="ignore"):
                if chosen is None:
                    result[first:last] = _one_by_one(how, chunks, fmt, rounding, key, first)
                else:
                    values = how.compute(*chunks)
                    _round_in_place(chosen, values, key, first)
                    result[first:last] = values

    if result.size < CHUNK or chosen is None:
        work(0, result.size)
    else:
        in_pieces(work, result.size, CHUNK)


def _round_in_place(chosen: Plan, values: Array, key: Key | None, first: int) -> None:
    k0, k1 = (key.k0, key.k1) if key else (0, 0)
    place = address(values)
    chosen.kernel(
        place, 1, place, 1, place, 1, place, 1, values.size, *chosen.addresses, k0, k1, first, chosen.bits
    )  # fmt: skip


def _one_by_one(
    how: Preparation, chunks: Sequence[Array], fmt: Format, rounding: Rounding, key: Key | None, first: int
) -> list[float]:
    """By the specification, for formats that 53 bits to odd do not decide."""
    count, bits = len(chunks[0]), random_bits(rounding)
    words: list[int | None] = [None] * count
    if key is not None and bits:
        words = [int(word) for word in array_draw(key, np.arange(first, first + count), bits)]
    rows = zip(*(chunk.tolist() for chunk in chunks), strict=True)
    return [
        exact.round_value(how.value(row), fmt, rounding, word) for row, word in zip(rows, words, strict=True)
    ]  # fmt: skip


def off_grid(array: Array, fmt: Format) -> float | None:
    """The first finite number in an array that is no number of ``fmt``; None if all are."""
    from fpsim.cpu.flat_kernels import on_grid

    values = (array if _in_order(array) else array.copy("C")).reshape(-1)
    chosen = plan("round", (), fmt, "nearest_even", False)
    for start in range(0, values.size, CHUNK):
        part = _as(values[start : start + CHUNK], _FLOAT64)
        if not chosen.slow and on_grid(address(part), part.size, *chosen.addresses):
            continue
        rounded = np.empty(part.shape)
        _run(chosen, [_Operand(part, part.shape, part.size, _FLOAT64)], None, rounded)
        off = (rounded != part) & np.isfinite(part)  # infinities and NaN are exact in every kernel
        if off.any():
            return float(part[off][0])
    return None


def _in_order(array: Array) -> bool:
    """Contiguous and aligned: what a kernel reads by its address."""
    return array.flags.c_contiguous and array.flags.aligned


def _address_by_interface(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _address_by_structure(array: Array) -> int:
    """The first field behind the object's head in NumPy's C structure of an array (numpy/ndarraytypes.h)."""
    return ctypes.c_size_t.from_address(id(array) + object.__basicsize__).value


_probe = np.zeros(2)[1:]
# Where a short call spends its time: the interface is a dictionary of six entries, made anew for every call.
known = _address_by_structure(_probe) == _address_by_interface(_probe)
address = _address_by_structure if known else _address_by_interface
"""Where the elements of an array begin."""


def _as(array: Array, dtype: np.dtype[Any]) -> Array:
    """As a wider dtype, exactly."""
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return array.astype(dtype, copy=False)
