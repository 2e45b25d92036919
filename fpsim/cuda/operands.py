"""Operands of array functions as tensors of one device, and the formats that they are known to be in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fpsim.cuda.twin_magnitudes import Tensor
from fpsim.cuda.twin_operations import operate
from fpsim.cuda.twin_rounding import Target
from fpsim.formats import BINARY64
from fpsim.formats import format as named_format
from fpsim.number_format import Format

_FORMATS = {torch.float16: "binary16", torch.bfloat16: "bfloat16", torch.float32: "binary32"}
_CHUNK = 1 << 23  # elements that are compared at a time


def tensor_of(x: Any, device: Any) -> Tensor:
    """Any admissible operand there, exactly: of dtype float32 where it is of a floating dtype of 32 bits or fewer,
    else float64.

    Raises
    ------
    ValueError
        Integers beyond 2^53, or numbers that are not real.
    """
    tensor = x.detach() if isinstance(x, torch.Tensor) else torch.from_numpy(_array(x))
    if tensor.is_complex():
        raise ValueError(f"operand of dtype {tensor.dtype}; admissible: real numbers of at most 64 bits")
    if tensor.dtype in (torch.int64, torch.uint64) and tensor.numel():
        whole = tensor.view(torch.int64)
        low, high = int(whole.min()), int(whole.max())
        if tensor.dtype == torch.uint64 and low < 0:  # the upper half of the unsigned numbers
            low, high = 0, low + (1 << 64)
        if max(-low, high) > 1 << 53:
            raise ValueError(f"an integer operand reaches {max(-low, high)}; admissible: magnitudes up to 2^53")
    return tensor.to(device).resolve_neg().to(torch.float32 if tensor.dtype in _FORMATS else torch.float64)


def float64_of(x: Any, device: Any) -> Tensor:
    """The same in float64."""
    return tensor_of(x, device).to(torch.float64)


def common_shape(arrays: Sequence[Tensor]) -> tuple[int, ...]:
    """What the shapes of tensors broadcast to; ``ValueError`` where they do not."""
    shapes = {tuple(x.shape) for x in arrays}
    return shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)  # NumPy broadcasts fewer axes than it has


def _array(x: Any) -> Any:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("a masked array: there is no rule for its mask; admissible: a plain array, such as x.filled(0)")
    array = np.array(x)
    if isinstance(x, int) and abs(x) > 1 << 53:
        raise ValueError(f"an integer operand reaches {abs(x)}; admissible: magnitudes up to 2^53")
    if array.dtype.kind not in "iubfc" or array.dtype.itemsize > 8:
        raise ValueError(f"operand of dtype {array.dtype}; admissible: real numbers of at most 64 bits")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def format_of(x: Any, declared: Format | None) -> Format:
    """A format that holds what was given: the declared one, or the narrowest that is known without a look at a card."""
    if declared is not None:
        return declared
    if isinstance(x, torch.Tensor):
        return named_format(_FORMATS[x.dtype]) if x.dtype in _FORMATS else BINARY64
    if isinstance(x, (bool, int, float)):
        value = torch.tensor(float(x), dtype=torch.float64)
        for dtype in (torch.bfloat16, torch.float32):
            if bool(value.to(dtype) == value):
                return named_format(_FORMATS[dtype])
    return BINARY64


def flattened(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The elements in the C order of a result of this shape, or the only one."""
    return x.reshape(1) if x.numel() == 1 else x.expand(shape).reshape(-1)


def _rounded(x: Tensor, fmt: Format) -> Tensor:
    return operate("round", [x], Target([fmt], "nearest_even", 0, x.device))


def check_declared(
    arrays: Sequence[Tensor],
    declared: Sequence[Format | None],
    rounded: Callable[[Tensor, Format], Tensor] = _rounded,
) -> None:
    """Raise ``ValueError`` for a finite number that is none of its operand's declared format.

    ``rounded`` : what rounds a float64 tensor to a format, to nearest even
    """
    for i, (x, fmt) in enumerate(zip(arrays, declared, strict=True)):
        if fmt is None:
            continue
        for part in x.reshape(-1).split(_CHUNK):
            part = part.to(torch.float64)
            off = (rounded(part, fmt) != part) & torch.isfinite(part)
            if bool(off.any()):
                wrong = float(part[off][0])
                raise ValueError(
                    f"operand {i} holds {wrong!r}, which is not a number of its declared format {fmt.name}"
                )
