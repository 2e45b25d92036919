"""The array functions on tensors of one device: shapes, declared operands and random bits as in ``array_call``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fpsim.cpu.tiers import Range
from fpsim.cuda.twin_magnitudes import Tensor
from fpsim.cuda.twin_operations import ROUNDED, choosing, operate, tier_of
from fpsim.cuda.twin_rounding import Target
from fpsim.cuda.twin_words import array_draw
from fpsim.formats import BINARY64
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic

_FORMATS = {"float16": "binary16", "bfloat16": "bfloat16", "float32": "binary32"}
CHUNK = 1 << 23  # elements that are worked on at a time: two dozen numbers are held for each
_CHOOSING = ("min", "max", "abs", "neg")  # exact, then rounded


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
    """The result of an array function as a float64 tensor on ``device``, with the bits of the CPU machine.

    Raises
    ------
    ValueError
        A function that the CPU alone computes, integers beyond 2^53, an operand outside its declared format.
    """
    if kind not in (*ROUNDED, *_CHOOSING):
        raise ValueError(f"{kind} of a tensor on device {device}: not computed there; admissible: a tensor on the CPU")
    with torch.no_grad():
        arrays = [_as_float64(x, device) for x in inputs]
        if check:
            _check_declared(arrays, declared)
        shape = torch.broadcast_shapes(*(x.shape for x in arrays))
        flat = [x.reshape(1) if x.numel() == 1 else x.expand(shape).reshape(-1) for x in arrays]
        ranges = [_range(x, known) for x, known in zip(inputs, declared, strict=True)]
        tier = tier_of("round" if kind in _CHOOSING else kind, ranges, fmt, rounding)
        target = Target([fmt], rounding, 1, device)
        result = torch.empty(math.prod(shape), dtype=torch.float64, device=device)
        for first in range(0, result.numel(), CHUNK):
            elements = range(first, min(first + CHUNK, result.numel()))
            parts = [x if x.numel() == 1 else x[elements.start : elements.stop] for x in flat]
            parts[0] = parts[0].expand(len(elements))
            draw = None
            if isinstance(rounding, Stochastic) and key is not None:
                draw = array_draw(key, elements, rounding.bits, device)
            if kind in _CHOOSING:
                parts = [choosing(kind, torch.broadcast_tensors(*parts))]
            part = operate("round" if kind in _CHOOSING else kind, parts, target, draw, tier)
            result[elements.start : elements.stop] = part
        return result.reshape(shape)


def _as_float64(x: Any, device: Any) -> Tensor:
    """Any admissible operand there, exactly."""
    tensor = x.detach() if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))
    if tensor.dtype == torch.int64 and tensor.numel() and int(tensor.abs().max()) > 1 << 53:
        raise ValueError(f"an integer operand reaches {int(tensor.abs().max())}; admissible: magnitudes up to 2^53")
    if tensor.is_complex():
        raise ValueError(f"operand of dtype {tensor.dtype}; admissible: real numbers of at most 64 bits")
    return tensor.to(device=device, dtype=torch.float64)


def _range(x: Any, declared: Format | None) -> Range:
    name = str(x.dtype).removeprefix("torch.") if isinstance(x, torch.Tensor) else ""
    return Range.of_format(declared or (named_format(_FORMATS[name]) if name in _FORMATS else BINARY64))


def _check_declared(arrays: Sequence[Tensor], declared: Sequence[Format | None]) -> None:
    for i, (x, fmt) in enumerate(zip(arrays, declared, strict=True)):
        if fmt is not None:
            target = Target([fmt], "nearest_even", 0, x.device)
            off = (operate("round", [x], target) != x) & torch.isfinite(x)
            if bool(off.any()):
                wrong = float(x[off][0])
                raise ValueError(
                    f"operand {i} holds {wrong!r}, which is not a number of its declared format {fmt.name}"
                )
