"""How a Triton kernel is started: on a card, or on the CPU by Triton's interpreter.

The interpreter (``TRITON_INTERPRET=1``, set before Triton is imported) computes with NumPy, block by block. It checks
what a kernel computes, not how the compiler contracts or flushes it: that is read off the compiled text.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

_INTERPRETED = 1 << 16  # the longest block there: NumPy's cost of a call no longer counts


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def block_length(wanted: int, size: int, device: torch.device) -> int:
    """The length of a block, a power of two: ``wanted`` on a card; in the interpreter what takes ``size`` at once."""
    return wanted if device.type == "cuda" else min(_INTERPRETED, 1 << max(size - 1, 63).bit_length())


def launch(kernel: Any, grid: tuple[int, ...], device: torch.device, *arguments: Any) -> None:
    """Start ``kernel`` on every block of ``grid``, without contraction of products and sums.

    Raises
    ------
    ValueError
        Tensors that are on no card, outside the interpreter.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            kernel[grid](*arguments, enable_fp_fusion=False)
        return
    if not interpreted():
        raise ValueError(
            f"tensors on {device}: Triton compiles for cuda; admissible: a CUDA tensor, or TRITON_INTERPRET=1 set "
            "before Python starts, which is for tests"
        )
    from fpsim.cuda import triton_interpreter

    triton_interpreter.correct()
    with np.errstate(all="ignore"):  # what the card does silently: infinities, NaN, integers that wrap around
        kernel[grid](*arguments, enable_fp_fusion=False)
