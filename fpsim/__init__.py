"""fpsim: what low-precision arithmetic does to an optimizer, to the last bit.

>>> import numpy as np
>>> import fpsim
>>> fpsim.round(np.array([1.0, 1.3, 1e9]), fpsim.format("float8_e5m2"))
array([1.  , 1.25,  inf])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fpsim.formats import format
from fpsim.number_format import Format
from fpsim.precision import Precision
from fpsim.program import Program, slot, step
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic

if TYPE_CHECKING:
    from fpsim import optim
    from fpsim.arrays import add, div, fma, mul, round, sqrt, sub
    from fpsim.codes import decode, encode
    from fpsim.run import RunResult, run

__version__ = "0.1.0"

# Imported on first use: the compiled machine loads Numba, which formats and programs do not need.
_LAZY = {
    **dict.fromkeys(("round", "add", "sub", "mul", "div", "sqrt", "fma"), "fpsim.arrays"),
    **dict.fromkeys(("encode", "decode"), "fpsim.codes"),
    **dict.fromkeys(("run", "RunResult"), "fpsim.run"),
}

__all__ = [
    "Format",
    "Key",
    "Precision",
    "Program",
    "RunResult",
    "Stochastic",
    "add",
    "decode",
    "div",
    "encode",
    "fma",
    "format",
    "mul",
    "optim",
    "round",
    "run",
    "slot",
    "sqrt",
    "step",
    "sub",
]


def __getattr__(name: str) -> Any:
    if name == "optim":
        return import_module("fpsim.optim")
    if name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value  # also keeps the function `run` in front of the module of the same name
        return value
    raise AttributeError(f"module 'fpsim' has no attribute {name!r}")
