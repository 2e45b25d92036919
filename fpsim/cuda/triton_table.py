"""Formats as rows of 64-bit integers that Triton kernels read.

A Python float that is handed to a Triton kernel arrives there as a binary32 number; so the floating columns are the
bits of their binary64 numbers. The columns are those of ``fpsim.cpu.format_table``, its integers first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fpsim.cpu.format_table import FLOATS, INTEGERS, tables
from fpsim.number_format import Format

COLUMNS = INTEGERS + FLOATS


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
    return torch.from_numpy(np.concatenate([integers, floats.view(np.int64)], axis=1)).to(device)
