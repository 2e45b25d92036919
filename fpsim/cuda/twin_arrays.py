"""The array functions on tensors of one device: shapes, declared operands and random bits as in ``array_call``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from fpsim.arrays_torch import device_of
from fpsim.cpu.tiers import Range
from fpsim.cuda.operands import check_declared, common_shape, flattened, float64_of, format_of, tensor_of
from fpsim.cuda.twin_magnitudes import Tensor
from fpsim.cuda.twin_operations import EXTREMES, choosing, operate, tier_of
from fpsim.cuda.twin_rounding import Target
from fpsim.cuda.twin_words import array_draw
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic

CHUNK = 1 << 23  # elements that are worked on at a time: two dozen numbers are held for each


def apply(
    kind: str,
    inputs: Sequence[Any],
    fmt: Format,
    rounding: Rounding,
    key: Key | None,
    declared: Sequence[Format | None],
    check: bool,
    device: Any,
) -> Tensor:
    """The result of an array function that the twin ``takes``, as a float64 tensor on ``device``: the CPU's bits.

    Raises
    ------
    ValueError
        Integers beyond 2^53, an operand outside its declared format, shapes that do not broadcast.
    """
    with torch.no_grad():
        arrays = [tensor_of(x, device) for x in inputs]
        if check:
            check_declared(arrays, declared)
        shape = common_shape(arrays)
        flat = [flattened(x, shape) for x in arrays]
        ranges = [Range.of_format(format_of(x, known)) for x, known in zip(inputs, declared, strict=True)]
        tier = tier_of("round" if kind in EXTREMES else kind, ranges, fmt, rounding)
        target = Target([fmt], rounding, 1, device)
        result = torch.empty(math.prod(shape), dtype=torch.float64, device=device)
        for first in range(0, result.numel(), CHUNK):
            elements = range(first, min(first + CHUNK, result.numel()))
            parts = [x if x.numel() == 1 else x[elements.start : elements.stop] for x in flat]
            parts = [x.to(torch.float64) for x in parts]
            parts[0] = parts[0].expand(len(elements))
            draw = None
            if isinstance(rounding, Stochastic) and key is not None:
                draw = array_draw(key, elements, rounding.bits, device)
            if kind in EXTREMES:
                parts = [choosing(kind, torch.broadcast_tensors(*parts))]
            part = operate("round" if kind in EXTREMES else kind, parts, target, draw, tier)
            result[elements.start : elements.stop] = part
        return result.reshape(shape)


def compare(a: Any, b: Any) -> Tensor:
    """``fpsim.compare`` where one of a and b is a tensor: on its device."""
    device = device_of((a, b))
    with torch.no_grad():
        u, v = float64_of(a, device), float64_of(b, device)
        common_shape((u, v))
        relation = (u > v).to(torch.float64) - (u < v).to(torch.float64)
        return torch.where(u.isnan() | v.isnan(), torch.nan, relation)
