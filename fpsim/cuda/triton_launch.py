"""How a Triton kernel is started: on a card, or on the CPU by Triton's interpreter.

The interpreter (``TRITON_INTERPRET=1``, set before Triton is imported) computes with NumPy, block by block. It checks
what a kernel computes, not how the compiler contracts or flushes it: that is read off the compiled text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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


def launch(kernel: Any, grid: tuple[int, ...], device: torch.device, *arguments: Any, warps: int = 4) -> None:
    """Start ``kernel`` on every block of ``grid``, of ``warps`` warps, without contraction of products and sums.

    Raises
    ------
    ValueError
        Tensors that are on no card, outside the interpreter.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=False)
        return
    if not interpreted():
        raise ValueError(
            f"tensors on {device}: Triton compiles for cuda; admissible: a CUDA tensor, or TRITON_INTERPRET=1 set "
            "before Python starts, which is for tests"
        )
    from fpsim.cuda import triton_interpreter

    triton_interpreter.correct()
    with np.errstate(all="ignore"):  # what the card does silently: infinities, NaN, integers that wrap around
        kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=False)


class Abreast:
    """Starts kernels that do not read what another of them writes side by side, each on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams: list[Any] = []

    def __call__(self, calls: Sequence[Callable[[], None]]) -> None:
        """They follow what the present stream was given before, and it waits for them; on the CPU one after another."""
        if self.device.type != "cuda" or len(calls) == 1:
            for call in calls:
                call()
            return
        now = torch.cuda.current_stream(self.device)
        while len(self._streams) < len(calls):
            self._streams.append(torch.cuda.Stream(self.device))
        used = self._streams[: len(calls)]
        for stream, call in zip(used, calls, strict=True):
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                call()
        for stream in used:
            now.wait_stream(stream)
