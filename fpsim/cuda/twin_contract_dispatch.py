"""Sums and products of tensors where they lie: by Triton where it takes the accumulator, else by the twin."""

from __future__ import annotations

from typing import Any

import torch

from fpsim.accumulator import Accumulator
from fpsim.cuda import twin_contract, twin_contract_core
from fpsim.cuda.device import why_twin
from fpsim.cuda.operands import tensor_of
from fpsim.random_bits import Key
from fpsim.tensor_core import TensorCore


def operand(x: Any, device: Any) -> torch.Tensor:
    """An operand on the device, exactly: a floating tensor in its own dtype, which tells how many bits it has."""
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        return x.detach().to(device)
    return tensor_of(x, device)


def product(a: Any, b: Any, how: Accumulator | TensorCore, key: Key | None) -> Any:
    """a @ b for ``[..., rows, n]`` and ``[..., n, columns]``, as float64 on their device; stacks broadcast."""
    with torch.no_grad():
        if isinstance(how, TensorCore):
            return twin_contract_core.product(a, b, how)
        if not why_twin(a.device):
            from fpsim.cuda import triton_matmul

            if triton_matmul.takes(how):
                return triton_matmul.product(a, b, how, key)
        return twin_contract.product(a, b, how, key)


def total(terms: Any, how: Accumulator, key: Key | None) -> Any:
    """The sums of the columns of ``[terms, columns]``, as float64 on their device."""
    with torch.no_grad():
        if not why_twin(terms.device):
            from fpsim.cuda import triton_matmul

            if triton_matmul.takes(how):
                return triton_matmul.total(terms, how, key)
        return twin_contract.total(terms, how, key)
