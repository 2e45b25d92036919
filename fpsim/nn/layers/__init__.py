"""The layers that are emulated, one kind a file; importing this package registers all."""

from fpsim.nn.layers import activations, arithmetic, extremes, linear, losses, moves, normalization, softmax

__all__ = ["activations", "arithmetic", "extremes", "linear", "losses", "moves", "normalization", "softmax"]
