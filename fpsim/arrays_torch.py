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


def to_host(x: Any) -> Any:
    """A detached tensor of any device that fpsim takes as a NumPy array; anything else as it is."""
    return from_torch(x.detach().cpu()) if isinstance(x, torch.Tensor) and device_of([x]) else x


def on_host(device: torch.device) -> bool:
    """Whether the CPU machine computes on the memory of this device."""
    return bool(device.type == "cpu")


def device_of(inputs: Sequence[Any]) -> torch.device:
    """Where the tensors lie; tensors without axes may lie on the CPU, as torch has it.

    Raises
    ------
    ValueError
        Two devices, or one that is neither a CPU nor a CUDA card.
    """
    found = {x.device for x in inputs if isinstance(x, torch.Tensor)}
    wide = {x.device for x in inputs if isinstance(x, torch.Tensor) and x.ndim > 0}
    cards = found - {torch.device("cpu")} or found
    if len(cards) > 1 or len(cards | wide) > 1:
        raise ValueError(f"tensors on devices {', '.join(sorted(map(str, found)))}; admissible: one device")
    (device,) = cards
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"a tensor on device {device}; admissible: cpu, cuda")
    return device


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


def to_torch(result: Any, dtype: Any, inputs: Sequence[Any], out: Any, device: Any = None) -> Any:
    """The result, a tensor, or an array that goes to ``device`` (the CPU), as a tensor of ``dtype``, exactly, or
    written to ``out``."""
    if not isinstance(result, torch.Tensor):
        result = torch.from_numpy(np.array(result, dtype=np.float64)).to(device)
    tensor = result.to(dtype)
    if tensor.dtype != result.dtype:  # torch's conversions make other NaNs, on the CPU too
        tensor = tensor.masked_fill(tensor.isnan(), torch.nan)
    if out is None:
        return tensor
    check_out(out, tensor.shape, inputs)
    with torch.no_grad():
        return out.copy_(tensor)


def check_out(out: Any, shape: Sequence[int], inputs: Sequence[Any]) -> None:
    """Raise ``ValueError`` where ``out`` has another shape than the result, or overlaps an operand in part."""
    if out.shape != torch.Size(shape):
        raise ValueError(f"out has shape {tuple(out.shape)}; admissible: {tuple(shape)}, the shape of the result")
    for i, x in enumerate(inputs):
        if isinstance(x, torch.Tensor) and _overlaps(x, out):
            raise ValueError(f"out overlaps operand {i} in part; admissible: that operand itself, or memory of its own")


def _overlaps(x: Any, out: Any) -> bool:
    same = x.data_ptr() == out.data_ptr() and x.stride() == out.stride() and x.shape == out.shape
    if same or x.dtype != out.dtype:
        return False
    if x.device.type != "cpu":  # NumPy cannot look there: what lies between first and last element counts as covered
        (low, high), (low_out, high_out) = _span(x), _span(out)
        return x.device == out.device and low < high_out and low_out < high
    return bool(np.shares_memory(_bytes(x), _bytes(out)))


def _span(x: Any) -> tuple[int, int]:
    """Where its memory begins and ends; torch has no negative strides."""
    length = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    return x.data_ptr(), x.data_ptr() + length * x.element_size()


def _bytes(x: Any) -> Any:
    x = x.detach()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
