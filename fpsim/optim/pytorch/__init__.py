"""What torch.optim computes on a CPU, bit for bit: its optimizers as programs for ``Precision.torch``.

Bits depend on the dtype, on ``foreach``, on the instruction set (``capability``), on the processor's square root of
float32 (``root``), and for the 16-bit types on the element's place in its tensor (``tail_of``).
"""

from fpsim.optim.pytorch.adagrad import adagrad
from fpsim.optim.pytorch.adam import adam
from fpsim.optim.pytorch.kernels import Kernels
from fpsim.optim.pytorch.mkl_sqrt import mkl_sqrt
from fpsim.optim.pytorch.nadam import nadam
from fpsim.optim.pytorch.paths import capability, kernels_of, root, tail_of
from fpsim.optim.pytorch.plans import STATES, plan_of
from fpsim.optim.pytorch.rmsprop import rmsprop
from fpsim.optim.pytorch.sgd import sgd
from fpsim.optim.pytorch.simulate import simulate

__all__ = ["Kernels", "STATES", "adagrad", "adam", "capability", "kernels_of", "mkl_sqrt", "nadam", "plan_of",
           "rmsprop", "root", "sgd", "simulate", "tail_of"]  # fmt: skip
