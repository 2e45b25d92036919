"""Optimizers of weight matrices: every product through the emulated matmul. A new one is one file and one row here.

>>> import numpy as np
>>> from fpsim import Precision
>>> from fpsim.optim.matrix import METHODS
>>> method, precision = METHODS["muon"], Precision.uniform("bfloat16")
>>> state = method.start(np.eye(3), precision)
>>> state = method.step(state, np.eye(3), precision, step=0)
>>> sorted(state)
['m', 'w']
"""

from fpsim.optim.matrix.method import MatrixMethod, NarrowFormat
from fpsim.optim.matrix.muon import muon

METHODS: dict[str, MatrixMethod] = {
    "muon": muon(),
    "muon_polar": muon(polar="exact"),
}

__all__ = ["METHODS", "MatrixMethod", "NarrowFormat", "muon"]
