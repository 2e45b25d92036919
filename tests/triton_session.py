"""Triton in tests: on the card where there is one, else in its interpreter, chosen before Triton is imported."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiers import slow_but

import fpsim

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only")
ON_CARD = [pytest.mark.cuda] if DEVICE == "cuda" else []  # of a file whose tests run on DEVICE
MARKS = [LINUX, *ON_CARD]

KEY = fpsim.Key(seed=20261121)
MODES = (
    "nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd",
    fpsim.Stochastic(16), fpsim.Stochastic(32), fpsim.Stochastic(5, "B"), fpsim.Stochastic(24, "B"),
    fpsim.Stochastic(8, "C"), fpsim.Stochastic(20, "C"),
)  # fmt: skip
FEW = (*MODES[:6], fpsim.Stochastic(32), fpsim.Stochastic(24, "B"), fpsim.Stochastic(20, "C"))
MOST_SLOW = slow_but(MODES, *FEW)  # drawing 16 bits takes the interpreter twice as long as drawing 32
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 2.0**-1022, 1e308, -1e308, 1.0, -1.0])


def borders(fmt: fpsim.Format, count: int | None = None) -> npt.NDArray[np.float64]:
    """Numbers of a format, what lies halfway and at a quarter between neighbours, their binary64 neighbours, and what
    overflows; ``count`` of them, or all."""
    codes = np.arange(1 << fmt.bits, dtype=np.uint64)
    grid = np.unique(np.abs(fpsim.decode(codes, fmt)))
    grid = grid[np.isfinite(grid)]
    grid = np.append(grid, [2 * grid[-1] - grid[-2], 4 * grid[-1]])
    between = [grid[:-1] + np.diff(grid) * share for share in (0.25, 0.5)]
    points = np.concatenate([grid, *between])
    points = np.concatenate([points, np.nextafter(points, np.inf), np.nextafter(points, 0.0)])
    points = np.concatenate([points, -points, SPECIAL])
    if count is None:
        return points
    return np.random.default_rng(1).choice(points, count)


def assert_same(ours: Any, theirs: npt.NDArray[Any], *operands: npt.NDArray[Any]) -> None:
    """Bit for bit, NaN included; names the first operands that differ."""
    ours = np.ascontiguousarray(ours.cpu().numpy() if isinstance(ours, torch.Tensor) else ours)
    theirs = np.ascontiguousarray(theirs)
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    unsigned = np.uint64 if ours.dtype == np.float64 else np.uint32
    wrong = np.flatnonzero((ours.view(unsigned) != theirs.view(unsigned)).ravel())
    first = [float(x.ravel()[wrong[0]]).hex() for x in (*operands, ours, theirs)] if wrong.size else []
    assert not wrong.size, f"{wrong.size} of {ours.size}; operands, ours, theirs: {first}"


def apply(kind: str, operands: Any, fmt: Any, rounding: Any = "nearest_even", declared: Any = None) -> Any:
    """``elementwise`` on the device of this session."""
    from fpsim.cuda.triton_arrays import elementwise

    tensors = [torch.from_numpy(np.ascontiguousarray(x)).to(DEVICE) for x in operands]
    declared = None if declared is None else [declared] * len(tensors)
    return elementwise(kind, tensors, fpsim.format(fmt), rounding, KEY, declared=declared)
