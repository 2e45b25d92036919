"""Sums of products of tensors as one Triton kernel: sequential, blocked and Kahan orders, every mode and format.

A pairwise tree needs a stack as deep as the logarithm of the number of terms, for every element: more than registers
hold where operands are to be used again. The twin computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from fpsim.accumulator import Accumulator
from fpsim.cpu import codes
from fpsim.cpu.tiers import Range
from fpsim.cuda.triton_arrays import infinities_overflow, tier_and_mode
from fpsim.cuda.triton_launch import launch
from fpsim.cuda.triton_single_tiers import ODD, SINGLE_TIER, single
from fpsim.cuda.triton_table import table
from fpsim.cuda.twin_contract import measured, operations
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import random_bits

TILE = (8, 256)  # rows and columns of a program of four warps: 16 elements of each thread
_SINGLE = (8, 512)  # in binary32 registers
_FEWER = (2, 128)  # where random bits are drawn or integers compute
_THREADS = 128  # of a program
_ENOUGH = 1024  # programs, for the multiprocessors of a card
_NARROW = 64  # columns; a matrix with fewer than that and than rows is computed as its transpose
_INTERPRETED = 1 << 16  # elements of a tile in the interpreter, whose cost is that of its calls
_FORMATS = {torch.float32: "binary32", torch.bfloat16: "bfloat16", torch.float16: "binary16"}
_ORDERS = {"sequential": 0, "blocked": 1, "kahan": 2}
_PRODUCTS, _FUSED, _ALONE = range(3)
_LENGTH = 1 << 30  # of an axis: places are 32-bit integers


@dataclass(frozen=True)
class Plan:
    """What an accumulator is compiled to, for operands of known ranges: codes and formats of its five slots."""

    order: int
    operands: int
    codes: tuple[int, ...]
    formats: tuple[tuple[Format, int], ...]
    drawn: int

    @property
    def single(self) -> bool:
        """Whether all operations are done in binary32."""
        return any(code & 31 == SINGLE_TIER for code in self.codes)

    @property
    def tile(self) -> tuple[int, int]:
        if self.drawn or any(code & 31 == codes.EXACT for code in self.codes):
            return _FEWER
        return _SINGLE if self.single else TILE

    @property
    def cheap(self) -> bool:
        """Whether knowing more of the operands saves nothing: binary32 throughout, and no operation done twice."""
        return self.single and not any(code >> 25 & 3 == ODD for code in self.codes)


def takes(accumulator: Accumulator) -> bool:
    """Whether the kernel computes this order."""
    return accumulator.order in _ORDERS


@lru_cache(maxsize=256)
def plan(accumulator: Accumulator, a: Range | None, b: Range) -> Plan:
    """The plan for factors of the ranges a and b, or terms of the range b.

    Either all operations are done in binary32, by the proofs of ``triton_single_tiers``, or all in binary64.
    """
    slots = operations(accumulator, a, b)
    ways = {slot: single(*given) for slot, given in slots.items()}
    whole = None not in ways.values()
    compiled, formats = [0] * 5, [(accumulator.sum_slot[0], 0)] * 5
    for slot, (kind, ranges, fmt, rounding) in slots.items():
        tier, mode = tier_and_mode(kind, ranges, fmt, rounding)
        bits, way = random_bits(rounding), ways[slot]
        compiled[slot] = mode << 8 | bits << 16 | int(infinities_overflow(fmt, rounding)) << 24
        if whole and way is not None:
            compiled[slot] |= SINGLE_TIER | way.how << 25 | way.way << 27 | int(way.natural) << 29
        else:
            compiled[slot] |= tier
        formats[slot] = fmt, bits
    fused = a is not None and accumulator.fma
    return Plan(
        _ORDERS[accumulator.order],
        _FUSED if fused else _ALONE if a is None else _PRODUCTS,
        tuple(compiled),
        tuple(formats),
        accumulator.drawn_bits(a is not None),
    )


def product(a: torch.Tensor, b: torch.Tensor, accumulator: Accumulator, key: Key | None) -> torch.Tensor:
    """a @ b for ``[..., rows, n]`` and ``[..., n, columns]`` of any real dtype, as float64 on their device."""
    rows, terms, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    stack = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = torch.zeros((*stack, rows, columns), dtype=torch.float64, device=a.device)
    if result.numel() == 0 or terms == 0:
        return result
    left, right = _matrices(a), _matrices(b)
    if right.shape[0] == 1:  # the rows of a stack are the rows of one matrix
        left = left.reshape(1, -1, terms)
    rows = left.shape[1]
    pairs = result.numel() // (rows * columns)
    of_left = _numbers(a, stack) if pairs > 1 else torch.zeros(1, dtype=torch.int64, device=a.device)
    of_right = _numbers(b, stack) if pairs > 1 else of_left
    how = _planned(accumulator, (a, left), (b, right))
    if columns < min(rows, _NARROW):  # as its transpose: products commute, and tiles lie along the columns
        left, right = (x.transpose(1, 2).contiguous() for x in (right, left))
        lengths = (pairs, columns, rows, terms, 1, columns)
        _launch(left, right, result, of_right, of_left, lengths, how, accumulator, key)
    else:
        lengths = (pairs, rows, columns, terms, columns, 1)
        _launch(left, right, result, of_left, of_right, lengths, how, accumulator, key)
    return result


def total(x: torch.Tensor, accumulator: Accumulator, key: Key | None) -> torch.Tensor:
    """The sums of the columns of ``[terms, columns]``, as float64 ``[columns]``."""
    terms, columns = x.shape
    result = torch.zeros(columns, dtype=torch.float64, device=x.device)
    if columns == 0 or terms == 0:
        return result
    right = _matrices(x)
    zero = torch.zeros(1, dtype=torch.int64, device=x.device)
    how = _planned(accumulator, None, (x, right))
    _launch(right, right, result, zero, zero, (1, 1, columns, terms, columns, 1), how, accumulator, key)
    return result


def _planned(
    accumulator: Accumulator, a: tuple[torch.Tensor, torch.Tensor] | None, b: tuple[torch.Tensor, torch.Tensor]
) -> Plan:
    """The plan for tensors, each beside its matrices: by their dtypes where that is enough, else by what they hold."""
    names = [None if x is None else _FORMATS.get(x[0].dtype) for x in (a, b)]
    if names[1] is not None and (a is None or names[0] is not None):
        first, second = (None if name is None else Range.of_format(named_format(name)) for name in names)
        assert second is not None
        found = plan(accumulator, first, second)
        if found.cheap:
            return found
    return plan(accumulator, None if a is None else measured(a[1]), measured(b[1]))


def _tile(how: Plan, pairs: int, rows: int, columns: int, device: torch.device) -> tuple[int, int]:
    """Rows and columns of a program; smaller ones where there would be few programs."""
    if device.type != "cuda":
        down = min(_INTERPRETED, _power(rows))
        return down, min(max(1, _INTERPRETED // down), _power(columns))
    down, across = how.tile
    down = min(down, _power(rows))
    while pairs * -(-rows // down) * -(-columns // across) < _ENOUGH and (down > 1 or across > _THREADS):
        across, down = (across // 2, down) if across > _THREADS else (across, down // 2)
    return down, across


def _matrices(x: torch.Tensor) -> torch.Tensor:
    """A stack ``[matrices, ., .]`` of a dtype that the kernel reads, contiguous."""
    wide = x.to(torch.float32 if x.dtype in _FORMATS else torch.float64)
    return wide.reshape(-1, *x.shape[-2:]).contiguous()


def _numbers(x: torch.Tensor, stack: tuple[int, ...]) -> torch.Tensor:
    """Which matrix of x belongs to each pair of a stack."""
    own = x.shape[:-2]
    return torch.arange(math.prod(own), device=x.device).reshape(own).expand(stack).reshape(-1).contiguous()


def _power(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()


@lru_cache(maxsize=256)
def _table(formats: tuple[tuple[Format, int], ...], device: str) -> torch.Tensor:
    return table(formats, device)


def arguments(how: Plan, tile: tuple[int, int]) -> tuple[Any, dict[str, int]]:
    """The kernel and its compile-time constants."""
    from fpsim.cuda.triton_matmul_kernels import matmul_kernel

    names = ("product", "total", "third", "fourth", "fifth")
    constants = {"order": how.order, "operands": how.operands, **dict(zip(names, how.codes, strict=True))}
    return matmul_kernel, constants | {"drawn": how.drawn, "single": how.single, "R": tile[0], "C": tile[1]}


def _launch(
    left: torch.Tensor,
    right: torch.Tensor,
    result: torch.Tensor,
    of_left: torch.Tensor,
    of_right: torch.Tensor,
    lengths: tuple[int, int, int, int, int, int],
    how: Plan,
    accumulator: Accumulator,
    key: Key | None,
) -> None:
    pairs, rows, columns, terms, *_ = lengths
    if how.drawn and result.numel() > 1 << 32:
        raise ValueError(f"a result of {result.numel()} elements; stochastic roundings have random bits for 2^32")
    if max(rows, columns, terms) > _LENGTH:
        raise ValueError(f"matrices of {rows} rows, {columns} columns and {terms} terms; admissible: at most 2^30 each")
    down, across = _tile(how, pairs, rows, columns, result.device)
    programs = pairs * -(-rows // down) * -(-columns // across)
    k0, k1 = (key.k0, key.k1) if key else (0, 0)
    kernel, constants = arguments(how, (down, across))
    launch(
        kernel, (programs,), result.device,
        left, right, result, of_left, of_right, *lengths[1:], min(accumulator.block or terms, terms),
        _table(how.formats, str(result.device)), k0, k1,
        *constants.values(),
    )  # fmt: skip
