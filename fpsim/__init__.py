"""fpsim: what low-precision arithmetic does to an optimizer, to the last bit.

>>> import numpy as np
>>> import fpsim
>>> fpsim.round(np.array([1.0, 1.3, 1e9]), fpsim.format("float8_e5m2"))
array([1.  , 1.25,  inf])
"""

import importlib
from typing import Any

from fpsim import optim
from fpsim.accumulator import Accumulator
from fpsim.arrays import add, div, fma, mul, round, sqrt, sub
from fpsim.audit import audit  # the function stands in front of the module of the same name
from fpsim.audit_log import AuditLog
from fpsim.block_arrays import BlockCodes, block_decode, block_encode, block_round
from fpsim.block_formats import BlockFormat, block_format
from fpsim.codes import decode, encode
from fpsim.contractions import dot, matmul, matvec, sum
from fpsim.cpu.threads import set_threads
from fpsim.dtypes import as_dtype, dtype_of, from_dtype
from fpsim.elementary_arrays import cos, erf, exp, exp2, expm1, log, log1p, log2, pow, sigmoid, sin, tanh
from fpsim.event_counts import count_events
from fpsim.events import Events
from fpsim.formats import format
from fpsim.more_arrays import absolute, compare, maximum, minimum, negative, reciprocal, rem, round_to_integral, rsqrt
from fpsim.number_format import Format
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.run import RunResult, run  # the function stands in front of the module of the same name
from fpsim.tracing import slot, step

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``fpsim.nn``, on first use: it needs torch, which takes a while to import."""
    if name == "nn":
        return importlib.import_module("fpsim.nn")
    raise AttributeError(f"module 'fpsim' has no attribute {name!r}")


__all__ = [
    "Accumulator",
    "AuditLog",
    "BlockCodes",
    "BlockFormat",
    "Events",
    "Format",
    "Key",
    "Precision",
    "Program",
    "RunResult",
    "Stochastic",
    "absolute",
    "add",
    "as_dtype",
    "audit",
    "block_decode",
    "block_encode",
    "block_format",
    "block_round",
    "compare",
    "cos",
    "count_events",
    "decode",
    "div",
    "dot",
    "dtype_of",
    "encode",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "fma",
    "format",
    "from_dtype",
    "log",
    "log1p",
    "log2",
    "matmul",
    "matvec",
    "maximum",
    "minimum",
    "mul",
    "negative",
    "optim",
    "pow",
    "reciprocal",
    "rem",
    "round",
    "round_to_integral",
    "rsqrt",
    "run",
    "set_threads",
    "sigmoid",
    "sin",
    "slot",
    "sqrt",
    "step",
    "sub",
    "sum",
    "tanh",
]
