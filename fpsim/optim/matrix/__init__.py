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

from fpsim.optim.matrix.kron import kron
from fpsim.optim.matrix.method import MatrixMethod, NarrowFormat
from fpsim.optim.matrix.muon import muon
from fpsim.optim.matrix.scion import scion
from fpsim.optim.matrix.shampoo import shampoo
from fpsim.optim.matrix.soap import soap

METHODS: dict[str, MatrixMethod] = {
    "muon": muon(),
    "muon_polar": muon(polar="exact"),
    "shampoo": shampoo(),
    "soap": soap(),
    "scion": scion(),
    "scion_sign": scion(norm="sign"),
    "scion_column": scion(norm="column"),
    "scion_row": scion(norm="row"),
    "kron": kron(),
}

__all__ = ["METHODS", "MatrixMethod", "NarrowFormat", "kron", "muon", "scion", "shampoo", "soap"]
