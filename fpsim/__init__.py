"""fpsim: what low-precision arithmetic does to an optimizer, to the last bit.

>>> import numpy as np
>>> import fpsim
>>> fpsim.round(np.array([1.0, 1.3, 1e9]), fpsim.format("float8_e5m2"))
array([1.  , 1.25,  inf])
"""

from fpsim import optim
from fpsim.arrays import add, div, fma, mul, round, sqrt, sub
from fpsim.codes import decode, encode
from fpsim.formats import format
from fpsim.number_format import Format
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.run import RunResult, run  # the function stands in front of the module of the same name
from fpsim.tracing import slot, step

__version__ = "0.1.0"

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
