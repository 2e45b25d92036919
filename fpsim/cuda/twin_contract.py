"""Sums of products on tensors of one device: every order, mode and format of ``fpsim.accumulator``.

One step handles one term of all results at a time; every operation is ``twin_operations.operate`` in the tier that is
proven for the operands' measured ranges. A result is computed in pieces, so that memory stays bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from fpsim.accumulator import CORRECTION, DIFFERENCE, MASTER, PRODUCT, SUM, TERM, Accumulator
from fpsim.cpu.tiers import Range
from fpsim.cuda.twin_magnitudes import MAGNITUDE, Tensor
from fpsim.cuda.twin_operations import operate, tier_of
from fpsim.cuda.twin_rounding import Target
from fpsim.cuda.twin_words import program_place, program_words, top_bits
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic

CHUNK = 1 << 22  # results that are worked on at a time: two dozen numbers are held for each
_FRACTION = (1 << 52) - 1
_INFINITY = 0x7FF << 52


def product(a: Tensor, b: Tensor, accumulator: Accumulator, key: Key | None) -> Tensor:
    """a @ b for ``[..., rows, n]`` and ``[..., n, columns]`` of any real dtype, as float64 on their device."""
    terms = a.shape[-1]
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    result = torch.zeros(shape, dtype=torch.float64, device=a.device)
    if result.numel() == 0 or terms == 0:
        return result
    slots = _Slots(accumulator, measured(a), measured(b), result.numel(), a.device)
    for place in pieces(shape):
        left, right = part(a, place[:-1], len(shape)), part(b, (*place[:-2], place[-1]), len(shape), before=1)
        machine = _Machine(slots, key, numbers(place, shape, a.device))
        factors = _factors(left, right)
        result[place] = _reduced(machine, accumulator, terms, factors, True)
    return result


def total(x: Tensor, accumulator: Accumulator, key: Key | None) -> Tensor:
    """The sums of the columns of ``[terms, columns]``, as float64 ``[columns]``."""
    terms, shape = x.shape[0], (x.shape[1],)
    result = torch.zeros(shape, dtype=torch.float64, device=x.device)
    if result.numel() == 0 or terms == 0:
        return result
    slots = _Slots(accumulator, None, measured(x), result.numel(), x.device)
    for place in pieces(shape):
        machine = _Machine(slots, key, numbers(place, shape, x.device))
        result[place] = _reduced(machine, accumulator, terms, _terms(x[:, place[0]]), False)
    return result


def measured(x: Tensor) -> Range:
    """The range of what a tensor holds, by the rules of ``fpsim.cpu.accumulate.Measured``."""
    low, high, last = _INFINITY, 0, 1 << 52
    flat = x.reshape(-1)
    for start in range(0, flat.numel(), CHUNK):
        size = as_float64(flat[start : start + CHUNK]).view(torch.int64) & MAGNITUDE
        ordinary = (size > 0) & (size < _INFINITY)
        fraction = size & _FRACTION
        bit = torch.where(ordinary & (fraction != 0), fraction & -fraction, 1 << 52)
        found = torch.stack(
            [torch.where(ordinary, size, _INFINITY).min(), torch.where(ordinary, size, 0).max(), bit.min()]
        )
        one_low, one_high, one_last = found.tolist()
        low, high, last = min(low, one_low), max(high, one_high), min(last, one_last)
    if high == 0:
        return Range(1, 0, 0, 0)
    if low < 1 << 52:
        return Range(53, -1074, 1023, -1074)
    precision, smallest = 53 - (last.bit_length() - 1), (low >> 52) - 1023
    return Range(precision, smallest, (high >> 52) - 1023, smallest - precision + 1)


def as_float64(x: Tensor) -> Tensor:
    return x.to(torch.float64).contiguous()


def part(x: Tensor, place: Sequence[slice], axes: int, before: int = 0) -> Tensor:
    """What of a factor belongs to a piece of the result; an axis of length 1 is broadcast.

    ``before`` : axes of terms that come before the last axis, else they come last
    """
    missing = axes - x.ndim
    given = list(place[missing:])
    if before:
        given.insert(len(given) - 1, slice(None))
    index = [slice(None) if x.shape[i] == 1 else one for i, one in enumerate(given)]
    return x[tuple(index)]


def pieces(shape: Sequence[int], limit: int | None = None) -> Iterator[tuple[slice, ...]]:
    """Slices of an array that hold ``limit`` elements at most, or one element."""
    limit = CHUNK if limit is None else limit
    lengths: list[int] = []
    room = limit
    for n in reversed(shape):
        lengths.insert(0, max(1, min(n, room)))
        room = room // n if lengths[0] == n else 1
    for index in np.ndindex(*(-(-n // some) for n, some in zip(shape, lengths, strict=True))):
        yield tuple(slice(i * some, min(n, (i + 1) * some)) for i, some, n in zip(index, lengths, shape, strict=True))


def numbers(place: Sequence[slice], shape: Sequence[int], device: Any) -> Tensor:
    """The C-order numbers of the elements of a piece."""
    result = torch.zeros((1,) * len(shape), dtype=torch.int64, device=device)
    for axis, one in enumerate(place):
        steps = torch.arange(one.start, one.stop, dtype=torch.int64, device=device) * math.prod(shape[axis + 1 :])
        result = result + steps.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return result


def _terms(x: Tensor) -> Callable[[int], tuple[Tensor]]:
    return lambda k: (as_float64(x[k]),)


def _factors(left: Tensor, right: Tensor) -> Callable[[int], tuple[Tensor, Tensor]]:
    return lambda k: (as_float64(left[..., k : k + 1]), as_float64(right[..., k : k + 1, :]))


def operations(
    accumulator: Accumulator, a: Range | None, b: Range
) -> dict[int, tuple[str, tuple[Range, ...], Format, Rounding]]:
    """Kind, ranges of the operands, format and mode of every slot, for factors of the ranges a and b, or terms b.

    They are those of ``fpsim.cpu.accumulate.planned``.
    """
    fmt, mode = accumulator.sum_slot
    running, term = Range.of_format(fmt), b
    found: dict[int, tuple[str, tuple[Range, ...], Format, Rounding]] = {}
    if a is not None and accumulator.product_slot is not None:
        found[PRODUCT] = ("mul", (a, b), *accumulator.product_slot)
        term = Range.of_format(accumulator.product_slot[0])
    found[SUM] = ("add", (running, term), fmt, mode)
    if a is not None and accumulator.fma:
        found[SUM] = ("fma", (a, b, running), fmt, mode)
    elif accumulator.order == "pairwise":
        low, high, lsb = min(running.low, term.low), max(running.high, term.high), min(running.lsb, term.lsb)
        node = Range(max(running.precision, term.precision), low, high, lsb)
        found[SUM] = ("add", (node, node), fmt, mode)
    elif accumulator.order == "kahan":
        found[TERM] = ("sub", (term, running), fmt, mode)
        found[SUM] = ("add", (running, running), fmt, mode)
        found[DIFFERENCE] = found[CORRECTION] = ("sub", (running, running), fmt, mode)
    if accumulator.order == "blocked":
        master = accumulator.master_slot
        found[MASTER] = ("add", (Range.of_format(master[0]), running), *master)
    return found


class _Slots:
    """The operations of an accumulator: kind, tier and target, by their slots."""

    def __init__(self, accumulator: Accumulator, a: Range | None, b: Range, results: int, device: Any) -> None:
        self.drawn = accumulator.drawn_bits(a is not None)
        if self.drawn and results > 1 << 32:
            raise ValueError(f"a result of {results} elements; stochastic roundings have random bits for 2^32")
        self.of: dict[int, tuple[str, int, Target, tuple[int, int, int] | None]] = {}
        for slot, (kind, ranges, fmt, mode) in operations(accumulator, a, b).items():
            random = program_place(slot, self.drawn) if isinstance(mode, Stochastic) else None
            self.of[slot] = kind, tier_of(kind, ranges, fmt, mode), Target([fmt], mode, 0, device), random


class _Machine:
    """Rounded operations on one piece of the results, whose elements have these numbers."""

    def __init__(self, slots: _Slots, key: Key | None, element: Tensor) -> None:
        self.slots, self.key, self.element = slots, key, element
        self._words: tuple[Any, tuple[Tensor, ...]] = (None, ())

    def __call__(self, slot: int, step: int, *operands: Tensor) -> Tensor:
        kind, tier, target, random = self.slots.of[slot]
        draw = None
        if random is not None and self.key is not None:
            group, word, half = random
            if self._words[0] != (step, group):
                run = torch.zeros((), dtype=torch.int64, device=self.element.device)
                self._words = (step, group), program_words(self.key, self.element, step, run, group)
            draw = top_bits(self._words[1][word], half, self.slots.drawn, target.bits)
        return operate(kind, operands, target, draw, tier)


def _reduced(
    machine: _Machine, accumulator: Accumulator, terms: int, factors: Callable[[int], Any], products: bool
) -> Tensor:
    """The orders, as the docstring of ``fpsim.accumulator`` has them; ``factors(k)``: two factors, or one term."""
    zero = torch.zeros(machine.element.shape, dtype=torch.float64, device=machine.element.device)
    fused = products and accumulator.fma

    def term(k: int) -> Tensor:
        return machine(PRODUCT, k, *factors(k)) if products else factors(k)[0].expand(zero.shape)

    def sequential(start: int, stop: int) -> Tensor:
        s = zero
        for k in range(start, stop):
            s = machine(SUM, k, *factors(k), s) if fused else machine(SUM, k, s, term(k))
        return s

    if accumulator.order == "kahan":
        s = c = zero
        for k in range(terms):
            y = machine(TERM, k, term(k), c)
            u = machine(SUM, k, s, y)
            c = machine(CORRECTION, k, machine(DIFFERENCE, k, u, s), y)
            s = u
        return s
    if accumulator.order == "blocked":
        block = accumulator.block or terms
        result = zero
        for j, start in enumerate(range(0, terms, block)):
            result = machine(MASTER, j, result, sequential(start, min(terms, start + block)))
        return result
    if accumulator.order == "sequential" or terms == 1:
        return sequential(0, terms)
    stack: list[tuple[Tensor, int]] = []  # trees of 2^i terms, and where they begin
    for k in range(terms):
        stack.append((term(k), k))
        size = 1
        while (k + 1) & size == 0:
            _join(machine, stack)
            size += size
    while len(stack) > 1:
        _join(machine, stack)
    return stack[0][0]


def _join(machine: _Machine, stack: list[tuple[Tensor, int]]) -> None:
    (right, middle), (left, start) = stack.pop(), stack.pop()
    stack.append((machine(SUM, middle, left, right), start))
