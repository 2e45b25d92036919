"""The layers that are emulated, one kind a file; importing this package registers all."""

from fpsim.nn.layers import arithmetic, linear, moves

__all__ = ["arithmetic", "linear", "moves"]
