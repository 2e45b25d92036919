"""The layers that are emulated, one kind a file; importing this package registers all."""

from fpsim.nn.layers import arithmetic, convolution, linear, moves

__all__ = ["arithmetic", "convolution", "linear", "moves"]
