"""Optimizers: one step a file. A new one is one file and one row here."""

from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import momentum, sgd
from fpsim.program import Program

STEPS: dict[str, Program] = {"sgd": sgd, "momentum": momentum, "rmsprop": rmsprop, "adam": adam}

__all__ = ["STEPS", "adam", "momentum", "rmsprop", "sgd"]
