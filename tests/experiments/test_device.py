"""Studies on a device: the rows, extremes and events of the CPU machine, bit for bit."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from tiers import slow_but
from triton_session import DEVICE

import fpsim
from experiments import simulate
from experiments.cli import main
from experiments.device_machine import COUNTED, DeviceMachine
from experiments.devices import check_device
from experiments.fields import StudyError
from experiments.problems.quadratic import quadratic
from experiments.study import Study
from fpsim.cpu.machine import Machine
from fpsim.optim import STEPS

linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only")
ON = [pytest.param("torch"), pytest.param("cuda", marks=[linux, pytest.mark.slow])]  # without a card, the interpreter
STUDIES: tuple[dict[str, Any], ...] = (
    {"optimizer": "adam", "problem": "quadratic", "exponent": 5, "mantissa": "2,7", "rounding": "stochastic"},
    {"optimizer": "momentum", "problem": "rosenbrock", "exponent": 4, "mantissa": "3,6", "gradient": "rounded",
     "rounding": "toward_zero"},
    {"optimizer": "sgd", "problem": "dense_quadratic", "exponent": 3, "mantissa": "2,3", "gradient": "rounded",
     "rounding": "stochastic"},
    {"optimizer": "adafactor_vector", "problem": "quadratic", "mantissa": "3", "rounding": "up"},
)  # fmt: skip


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize("study", slow_but(STUDIES, STUDIES[0]), ids=lambda study: study["problem"])
def test_rows_are_those_of_the_cpu(study: dict[str, Any], device: str) -> None:
    cells = Study(**study, seeds=2, steps=24, dimension=4, noise="none").cells()
    cells = [cell for cell in cells if cell.rounding == cells[0].rounding]
    wanted, found = (simulate.run_batch(cells, device=where) for where in ("cpu", device))
    for row, other in zip(wanted, found, strict=True):
        assert {k: repr(x) for k, x in row.items() if k != "seconds"} == {
            k: repr(x) for k, x in other.items() if k != "seconds"
        }


NARROW, WIDE = ("float8_e4m3fn", "e5m2", "p3109_k8p3uf"), ("e8m7", "e8m3", "e8m12")
MODES = ("down", fpsim.Stochastic(8))


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize("mode", slow_but(MODES, MODES[1]), ids=str)
@pytest.mark.parametrize("names", [NARROW, NARROW[:2], WIDE], ids=["unsigned", "narrow", "wide"])
def test_extremes_and_events_are_those_of_the_cpu_machine(
    names: tuple[str, ...], mode: fpsim.Rounding, device: str
) -> None:
    """A gradient that overflows narrow formats and underflows in others, one of them without a sign."""
    program, lanes, rng = quadratic(5).program >> STEPS["adam"], 3, np.random.default_rng(0)
    precisions = [fpsim.Precision.uniform(name, mode).replace({"v": ("e8m1", mode)}) for name in names]
    runs = np.tile(np.arange(lanes, dtype=np.uint64), len(names))
    given = (program, precisions, lanes, {"d": 5}, fpsim.Key(3), runs)
    watched: dict[str, Any] = {"track": ["w", "v", "g"], "events": COUNTED, "programs": [program] * len(names)}
    start = {"w": rng.standard_normal((5, runs.size)) * 4} | {name: np.zeros((5, runs.size)) for name in "mv"}
    constants = {"center": rng.standard_normal(5) * 30, "curvature": np.ldexp(1.0, rng.integers(-9, 6, 5))}
    theirs, ours = Machine(*given, **watched), DeviceMachine(device, *given, **watched)
    for machine in (theirs, ours):
        machine.load(start, constants)
        machine.run(2, record=["w"])
        machine.reset_events()
        machine.reset_extremes()
        machine.run(4)
    assert theirs.state("w").tobytes() == ours.state("w").tobytes()
    total = 0
    for slot, counts in theirs.events().items():
        for name in COUNTED:
            assert counts[name].tolist() == ours.events()[slot][name].tolist(), (slot, name)
            total += int(counts[name].sum())
    assert total == 0 if names == WIDE else total > 5
    assert ours.quick == (4 if names == WIDE and device == "cuda" else 0)
    for name, ends in theirs.extremes().items():
        for end, other in zip(ends, ours.extremes()[name], strict=True):
            assert np.array_equal(end, other), name


def test_a_study_from_python_takes_a_device() -> None:
    study = Study(optimizer="sgd", problem="quadratic", rounding="up", mantissa="4,9", seeds=2, steps=20, dimension=4)
    wanted, found = (study.run(engine="serial", device=device).drop("seconds") for device in ("cpu", "torch"))
    assert wanted.equals(found, null_equal=True)


def test_a_scan_says_what_the_device_runs(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--mantissa", "3", "--rounding", "up", "--steps", "20", "--dimension", "4", "--seeds", "2"]
    what = ["scan", "--optimizer", "sgd,muon", "--problem", "quadratic", *short, "--out", str(tmp_path)]
    assert main([*what, "--device", "torch", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "device: torch runs the steps of 1 of 2 batches; the others, such as functions and networks, run on" in said
    assert "CPU-seconds" not in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--device", "gpu"], "--device: 'gpu' is unknown; admissible: cpu, cuda, torch"),
        (["--device", "torch", "--engine", "processes"], "--device: 'torch' with --engine processes; admissible:"),
    ],
)
def test_refusals_are_one_line(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", *given]) == 2
    assert said in capsys.readouterr().err


@linux
@pytest.mark.skipif(DEVICE == "cuda", reason="there is a card")
def test_no_card_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpsim.cuda.triton_launch.interpreted", lambda: False)
    with pytest.raises(StudyError, match=r"'cuda': torch sees no card here; admissible: cpu, torch"):
        check_device("cuda")
