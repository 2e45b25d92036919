"""Torch tensors into the array functions and back. Imported only where a tensor is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def from_torch(x: Any) -> Any:
    """A detached view or copy of a CPU tensor as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if not isinstance(x, torch.Tensor):
        return x
    if x.device.type != "cpu":
        raise ValueError(f"a tensor on device {x.device}; admissible: cpu")
    x = x.detach()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def result_dtype(inputs: Sequence[Any], out: Any, dtype: Any) -> Any:
    """The dtype of ``out``, the one asked for, or the common floating dtype; Python numbers and integers: float64."""
    if out is not None:
        if not isinstance(out, torch.Tensor):
            raise ValueError(f"out is a {type(out).__name__}; admissible: a tensor, as the inputs are")
        return out.dtype
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype={dtype!r} is no dtype of torch; admissible: torch.float64, torch.float32, ...")
    if dtype is not None:
        return dtype
    common = None
    for x in inputs:
        floating = isinstance(x, torch.Tensor) and x.dtype.is_floating_point
        one = x.dtype if floating else torch.float64
        common = one if common is None else torch.promote_types(common, one)
    return common


def to_torch(result: Any, dtype: Any, inputs: Sequence[Any], out: Any) -> Any:
    """The result as a tensor of ``dtype``, exactly, or written to ``out``."""
    tensor = torch.from_numpy(np.array(result, dtype=np.float64)).to(dtype)
    if out is None:
        return tensor
    if out.shape != tensor.shape:
        raise ValueError(
            f"out has shape {tuple(out.shape)}; admissible: {tuple(tensor.shape)}, the shape of the result"
        )
    for i, x in enumerate(inputs):
        if isinstance(x, torch.Tensor) and _overlaps(x, out):
            raise ValueError(f"out overlaps operand {i} in part; admissible: that operand itself, or memory of its own")
    with torch.no_grad():
        return out.copy_(tensor)


def _overlaps(x: Any, out: Any) -> bool:
    same = x.data_ptr() == out.data_ptr() and x.stride() == out.stride() and x.shape == out.shape
    if same or x.dtype != out.dtype:
        return False
    return bool(np.shares_memory(_bytes(x), _bytes(out)))


def _bytes(x: Any) -> Any:
    x = x.detach()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
