"""Sums and products of tensors where they lie: by Triton where it takes the accumulator, else by the twin."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch

from fpsim.accumulator import Accumulator
from fpsim.cuda import twin_contract, twin_contract_core
from fpsim.random_bits import Key
from fpsim.tensor_core import TensorCore

_CAPABILITY = (7, 0)  # the oldest card that Triton compiles for


def operand(x: Any, device: Any) -> torch.Tensor:
    """An operand as a detached tensor on the device: a tensor in its dtype, an array of exact float64 in that.

    Raises
    ------
    ValueError
        Complex numbers, or integers beyond 2^53.
    """
    if not isinstance(x, torch.Tensor):
        return torch.from_numpy(np.array(x, dtype=np.float64)).to(device)
    if x.is_complex():
        raise ValueError(f"operand of dtype {x.dtype}; admissible: real numbers of at most 64 bits")
    if not x.is_floating_point() and x.element_size() == 8 and x.numel():
        largest = max(int(x.max()), -int(x.min()))
        if largest > 1 << 53:
            raise ValueError(f"an integer operand reaches {largest}; admissible: magnitudes up to 2^53")
    return x.detach().to(device)


def product(a: Any, b: Any, how: Accumulator | TensorCore, key: Key | None) -> Any:
    """a @ b for ``[..., rows, n]`` and ``[..., n, columns]``, as float64 on their device; stacks broadcast."""
    with torch.no_grad():
        if isinstance(how, TensorCore):
            return twin_contract_core.product(a, b, how)
        if runs_triton(a.device):
            from fpsim.cuda import triton_matmul

            if triton_matmul.takes(how):
                return triton_matmul.product(a, b, how, key)
        return twin_contract.product(a, b, how, key)


def total(terms: Any, how: Accumulator, key: Key | None) -> Any:
    """The sums of the columns of ``[terms, columns]``, as float64 on their device."""
    with torch.no_grad():
        if runs_triton(terms.device):
            from fpsim.cuda import triton_matmul

            if triton_matmul.takes(how):
                return triton_matmul.total(terms, how, key)
        return twin_contract.total(terms, how, key)


def runs_triton(device: torch.device) -> bool:
    """Whether Triton is there and compiles for the device, or interprets."""
    if importlib.util.find_spec("triton") is None:
        return False
    from fpsim.cuda.triton_launch import interpreted

    return interpreted() or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY)
