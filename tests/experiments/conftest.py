"""Shared by the tests of the studies: a stand-in for the simulation, and small studies to run on it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # worker processes import fake_simulate by name, too

import fake_simulate

import fpsim.rounding  # noqa: F401  (the real package, before some of its modules are replaced)


@pytest.fixture
def fakes(monkeypatch):
    """The simulation, its defaults and the registries replaced by ``fake_simulate``."""
    for name, module in fake_simulate.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake_simulate


@pytest.fixture
def small(fakes):
    """A study of twelve quick cells."""
    from experiments.study import Study

    return Study(optimizer="sgd,adam", problem="quadratic", mantissa="2..4", seeds=2, steps=10)
