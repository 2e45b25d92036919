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


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The results of a small study: nearest and stochastic, two widths."""
    from verify_runs import STUDY

    from experiments.study import Study

    out = tmp_path_factory.mktemp("results")
    Study(optimizer="sgd,adam", mantissa="3,7", **STUDY).run(out, engine="serial")
    return out


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The certificate of two cells for two theorems, as an object."""
    from verify_runs import NAMES, STUDY, run

    from experiments.study import Study
    from experiments.verify import certificate

    out = tmp_path_factory.mktemp("two")
    Study(optimizer="sgd", mantissa=3, **STUDY).run(out, engine="serial")
    assert run(out, "--theorem", NAMES) == 0
    return certificate.read(out / "verify-T5-T6.json")
