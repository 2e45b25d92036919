"""The dtypes of parameters, which formats they hold, and how values get into them."""

from __future__ import annotations

from typing import Any

import torch

from fpsim.formats import format as named_format
from fpsim.number_format import Format

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def holds(dtype: Any, fmt: Format) -> bool:
    """Whether a dtype of torch has every value of a format.

    Examples
    --------
    >>> holds(torch.float16, named_format("bfloat16")), holds(torch.float32, named_format("bfloat16"))
    (False, True)
    """
    return named_format(DTYPES[dtype]).holds(fmt)


def dtype_for(fmt: Format, parameter: Any) -> Any:
    """The dtype of a state: the parameter's if it has every value of the format, else float32, else float64."""
    return next(dtype for dtype in (parameter, torch.float32, torch.float64) if holds(dtype, fmt))


def store(source: torch.Tensor, target: torch.Tensor) -> None:
    """Into a dtype that holds every value. NaN is one code; torch's vectors make another one of it in bfloat16."""
    target.copy_(source)
    if target.dtype == torch.bfloat16 and bool(source.sum().isnan()):
        target.masked_fill_(source.isnan(), float("nan"))
