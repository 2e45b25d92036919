"""Networks of PyTorch in which every operation is rounded, forward, backward and in the optimizer.

>>> import torch, fpsim.nn
>>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
>>> emulated = fpsim.nn.emulate(net, "bfloat16")
>>> emulated(torch.ones(3, 2)).shape
torch.Size([3, 1])
"""

from fpsim.nn.emulate import Emulated, UnsupportedOperation, emulate
from fpsim.nn.presets import PRESETS, network_precision
from fpsim.nn.roles import NetworkPrecision

__all__ = ["PRESETS", "Emulated", "NetworkPrecision", "UnsupportedOperation", "emulate", "network_precision"]
