"""Rounding to block formats on tensors of any device: ``fpsim.block_arrays``, where the reasons stand, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fpsim.block_formats import BlockFormat
from fpsim.cuda.operands import float64_of
from fpsim.cuda.twin_magnitudes import Tensor, parts

_BIAS = 127  # of E8M0
_TINY = 2.0**-300
_FAR_BELOW = -4096  # every scale


def block_round(
    x: Tensor, fmt: BlockFormat, round_elements: Callable[[Tensor], Tensor], axis: int, dtype: Any
) -> Tensor:
    """x, of at least one axis, rounded to a block format, as a tensor of ``dtype``; ``axis`` >= 0."""
    with torch.no_grad():
        values, element = float64_of(x, x.device), fmt.element
        largest, top = _maxima(values, fmt.block, axis)
        exponent = (top - element.emax).clamp(-_BIAS, _BIAS)
        size = fmt.block
        if fmt.sub_block:
            size = fmt.sub_block
            _, sub_top = _maxima(values, size, axis)
            exponent = _spread(exponent, fmt.block // size, sub_top.shape[axis], axis)
            exponent = exponent - (exponent - (sub_top - element.emax)).clamp(0, (1 << fmt.sub_bits) - 1)
        exponent = _spread(exponent, size, values.shape[axis], axis)
        quotients = values * _power(-exponent)
        tiny = (quotients.abs() < _TINY) & (values != 0.0)
        quotients = torch.where(tiny, torch.full_like(values, _TINY).copysign(values), quotients)
        elements = round_elements(quotients)
        elements = (elements + 0.0 if fmt.twos_complement else elements) * _power(exponent)
        bad = _spread(~torch.isfinite(largest), fmt.block, values.shape[axis], axis)
        return elements.to(dtype).masked_fill(bad, torch.nan)  # behind the conversion, which makes another NaN


def _maxima(values: Tensor, size: int, axis: int) -> tuple[Tensor, Tensor]:
    """The largest magnitude of each run of ``size`` elements and floor(log2) of it, far below every scale if it is 0;
    of an infinity or a NaN some number."""
    length = values.shape[axis]
    missing = -length % size
    padded = torch.cat([values.abs(), values.new_zeros(_with(values.shape, axis, missing))], axis)
    largest = padded.unflatten(axis, (-1, size)).amax(axis + 1) if length else values
    number = (largest > 0.0) & (largest < torch.inf)
    _, exponents = parts(torch.where(number, largest, 1.0))
    return largest, torch.where(largest == 0.0, _FAR_BELOW, exponents)


def _with(shape: Any, axis: int, length: int) -> list[int]:
    return [*shape[:axis], length, *shape[axis + 1 :]]


def _spread(per_block: Tensor, size: int, length: int, axis: int) -> Tensor:
    """One value a block to one an element."""
    return per_block.repeat_interleave(size, axis).narrow(axis, 0, length)


def _power(exponent: Tensor) -> Tensor:
    """2 to the power of integers in -1022..1023."""
    return ((exponent + 1023) << 52).view(torch.float64)
