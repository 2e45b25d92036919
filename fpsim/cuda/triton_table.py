"""Formats as rows of 64-bit integers that Triton kernels read.

A Python float that is handed to a Triton kernel arrives there as a binary32 number; so the floating columns are the
bits of their binary64 numbers. The columns are those of ``fpsim.cpu.format_table``, its integers first; then come those
of ``triton_single``, 32 bits each, which are zeros for formats that binary32 does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fpsim.cpu.format_table import ADD, FLOATS, INFINITE, INTEGERS, MAX, ODD_OVERFLOW, OVERFLOW, tables
from fpsim.formats import format
from fpsim.number_format import Format

FIRST_OF_SINGLE = INTEGERS + FLOATS
COLUMNS = FIRST_OF_SINGLE + 10


def table(rows: Sequence[tuple[Format, int]], device: Any) -> torch.Tensor:
    """int64 ``[rows, COLUMNS]`` on ``device``, one row for each (format, random bits).

    Examples
    --------
    >>> from fpsim import format
    >>> largest = table([(format("bfloat16"), 0)], "cpu")[0, INTEGERS].numpy().view("float64")
    >>> float(largest) == format("bfloat16").max
    True
    """
    integers, floats = tables(rows)
    single = np.array([_single(fmt, row) for (fmt, _), row in zip(rows, floats, strict=True)], dtype=np.int64)
    return torch.from_numpy(np.concatenate([integers, floats.view(np.int64), single], axis=1)).to(device)


def _single(fmt: Format, floats: Any) -> list[int]:
    """s = 23 - m; exponent fields of 2^emin, 2^emax and 2^s; 2^(emax + 1), largest, overflow, infinite, add, to odd."""
    if not format("binary32").holds(fmt):
        return [0] * (COLUMNS - FIRST_OF_SINGLE)
    cut = 23 - fmt.mantissa_bits
    fields = [(min(max(e, 0), 254)) << 23 for e in (fmt.emin + 127, fmt.emax + 127, cut)]
    beyond = math.ldexp(1.0, fmt.emax + 1) if fmt.emax < 127 else math.inf
    numbers = [beyond, *(float(floats[column]) for column in (MAX, OVERFLOW, INFINITE, ADD, ODD_OVERFLOW))]
    return [cut, *fields, *np.array(numbers, dtype=np.float32).view(np.uint32).tolist()]
