"""Networks as problems of a study: cells, rows, engines and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from experiments import network_settings, networks, store
from experiments.fields import StudyError
from experiments.networks.cells import training_of, window_of
from experiments.simulate import Cancelled, run_batch
from experiments.study import Study
from fpsim.formats import format as named_format
from fpsim.rounding import Stochastic
from theory.verdict import confidence_interval

SMALL: dict[str, Any] = {"problem": "mlp-digits", "options": {"width": 8, "evaluation": 16}, "batch": 8, "steps": 12}


def study(**more: Any) -> Study:
    return Study(**{"optimizer": "adam", "mantissa": 7, "rounding": "nearest_even", "seeds": 2, **SMALL} | more)


def slots(cell: Any) -> dict[str, str]:
    """Format of each role and array of a cell's training."""
    training = training_of(cell)
    network, optimizer = training.precision, training.optimizer
    resolved = optimizer.precision.resolve(optimizer.source)
    roles = {} if network is None else {name: getattr(network, name)[0].name for name in ("weights", "activations")}
    if network is not None:
        roles |= {"gradients": network.gradients[0].name, "accumulator": network.accumulator.result.name}
    return roles | {name: resolved[name][0].name for name in ("w", "m", "v", "g", "update.div")}


def test_the_width_of_a_cell_is_that_of_its_components() -> None:
    parts = ["all", "weights", "activations", "gradients", "m", "v", "m+v"]
    cells = study(options={**SMALL["options"], "components": parts}, mantissa=5).cells()
    narrow = [{name for name, fmt in slots(cell).items() if fmt == "e8m5"} for cell in cells]
    assert narrow == [
        {"weights", "activations", "gradients", "w", "m", "v", "g", "update.div"},
        {"weights", "w"},
        {"activations"},
        {"gradients", "g"},
        {"m"},
        {"v"},
        {"m", "v"},
    ]
    assert {fmt for cell in cells for fmt in slots(cell).values()} == {"e8m5", "e8m23"}
    assert len({cell.key for cell in cells}) == len(cells)
    wide = study(mantissa=30, options={"components": "v"}).cells()[0]
    assert training_of(wide).carrier == "float64" and slots(wide)["w"] == "e11m52" and slots(wide)["v"] == "e8m30"


def test_levels_accumulators_and_modes() -> None:
    stored, rounded, exact = (training_of(c) for c in study(gradient=["stored", "rounded", "exact"]).cells())
    assert stored.precision.level == "storage" and rounded.precision.level == "operation" and exact.precision is None
    assert exact.carrier == "float64" and stored.carrier == "float32"
    more = {"accumulator": ["wide", "same"], "order": "blocked", "block": 16}
    sums = [training_of(cell).precision.accumulator for cell in study(options=more, rounding="stochastic").cells()]
    assert [x.sum.name for x in sums] == ["e8m23", "e8m7"] and {x.order for x in sums} == {"blocked"}
    assert sums[1].sum_rounding == Stochastic(16) and sums[0].sum_rounding == "nearest_even"
    over = training_of(study(overrides=[{"v": "e5m2 stochastic"}]).cells()[0]).optimizer
    assert over.precision.resolve(over.source)["v"] == (named_format("e5m2"), Stochastic(16))


def test_cells_know_how_many_weights_they_have_and_where_they_are_measured() -> None:
    cells = study(options={"width": [8, 16]}).cells()
    assert [cell.dimension for cell in cells] == [8 * 64 + 8 + 2 * 72 + 90, 16 * 64 + 16 + 2 * (16 * 16 + 16) + 170]
    assert cells[0].cost == cells[0].dimension * 12 * 2 and cells[0].noise == "minibatch"
    assert window_of(study(steps=1000).cells()[0]) == (1000 - 32 * 7, 7)
    assert window_of(cells[0]) == (9, 1)
    default = network_settings.setting("adam", "transformer-markov")
    assert default["batch"] == 16 and default["hyperparameters"] == {"lr": 2.0**-9}


def test_rows_have_the_columns_of_all_others_and_those_of_networks(tmp_path: Path) -> None:
    cells = study(optimizer="adam,sgd").cells()
    rows = [row for cell in cells for row in run_batch([cell])]
    for cell, row in zip(cells, rows, strict=True):
        assert set(row) == set(store.SCHEMA) and row["key"] == cell.key and row["verdict"] == "not applicable"
        assert row["outcome"] in ("floor", "moving") and row["window_steps"] == 3
        assert 0 < row["rms_gradient"] < 10 and 1 < row["loss"] < 4 and 0 <= row["accuracy"] <= 1
        assert len(row["seed_loss"]) == len(row["seed_accuracy"]) == 2 and row["theorem"] is None
        assert row["trace_step"] == [0, 1, 2, 3, 4, 6, 7, 10, 12]
        assert len(row["trace_loss"]) == len(row["trace_accuracy"]) == len(row["trace_rms_gradient"]) == 9
        assert row["loss"] == pytest.approx(np.mean(row["seed_loss"])) and row["not_finite_step"] is None
    assert rows[0]["warnings"].endswith("becomes 1") and not rows[1]["warnings"]
    store.prepare(tmp_path)
    store.keep_cells(tmp_path, cells, rows)
    assert store.read_cells(tmp_path, [cell.key for cell in cells])["loss"].to_list() == [row["loss"] for row in rows]


def test_engines_agree_and_finished_cells_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = study(mantissa="3,7", rounding="stochastic")
    serial = asked.run(tmp_path, engine="serial")
    threads = asked.run(engine="threads", workers=2)
    assert serial.drop("seconds").equals(threads.drop("seconds"))

    def never(*_: Any) -> None:
        raise AssertionError("it was there")

    monkeypatch.setattr("experiments.networks.cells.run_cells", never)
    assert asked.run(tmp_path, engine="serial").equals(serial)


def test_a_run_that_is_not_finite_says_where_it_began() -> None:
    row = run_batch([study(hyperparameters={}, lr=2.0**100, optimizer="sgd").cells()[0]])[0]
    assert row["outcome"] == "not finite" and row["accuracy"] is None and math.isnan(row["loss"])
    assert row["not_finite_step"] < 12 and row["not_finite_slot"].startswith("forward network.")
    assert row["reason"] == f"not finite: step {row['not_finite_step']}, {row['not_finite_slot']}"
    assert row["trace_loss"][0] > 0 and row["trace_loss"][-1] is None


def test_progress_and_cancellation() -> None:
    cell, done = study().cells()[0], []
    run_batch([cell], done.append)
    assert sum(done) == cell.cost
    calls = iter(range(100))
    with pytest.raises(Cancelled):
        run_batch([cell], cancelled=lambda: next(calls) == 5)


def test_a_language_says_its_entropy() -> None:
    more = {"problem": "transformer-markov", "options": {"tokens": 4, "length": 8, "width": 8, "depth": 1}}
    row = run_batch([study(**more, seeds=1, steps=4, optimizer="muon").cells()[0]])[0]
    assert 0 < row["loss_floor"] < math.log(4) and row["loss_floor"] < row["loss"]


def test_another_file_is_another_cell(tmp_path: Path) -> None:
    file = tmp_path / "tokens.bin"
    options = {"path": str(file), "vocabulary": 16, "length": 8, "width": 8, "depth": 1}
    found = []
    for seed in (0, 1):
        np.random.default_rng(seed).integers(0, 16, 4000 + seed).astype(np.uint16).tofile(file)
        found.append(study(problem="transformer-tokens", options=options).cells()[0])
        network_settings.forget()
    assert found[0].problem_digest != found[1].problem_digest and found[0].key != found[1].key
    with pytest.raises(RuntimeError, match="are not those of the driver"):
        run_batch([found[0]])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"problem": "mlp-mnist"}, "problem: 'mlp-mnist' is unknown"),
        ({"noise": "gaussian"}, "noise: 'gaussian' with mlp-digits, which learns from data; admissible: minibatch"),
        ({"dimension": 5}, "dimension: 5: the options of mlp-digits say how many weights it has"),
        ({"options": {"components": "weight"}}, "options.components: 'weight' is unknown; admissible: weights, act"),
        ({"options": {"accumulator": "fp32"}}, "options.accumulator: 'fp32' is unknown; admissible: wide, same"),
        ({"options": {"order": "blocked"}}, "options: block=None"),
        ({"options": {"width": 0}}, r"options: mlp-digits: width=0 is outside 1\.\.65536"),
        ({"options": {"heads": 2}}, "options.heads: 2 is used by no cell"),
        ({"problem": "cnn-cifar10", "options": {}}, "problem: cnn-cifar10: path is not given"),
        ({"optimizer": "muon", "overrides": [{"m": "e5m2"}]}, "overrides: slots of muon, a method of matrices"),
        ({"overrides": [{"u": "e5m2"}]}, "overrides: slot 'u' is not in 'adam'"),
        ({"problem": "quadratic", "optimizer": "shampoo", "options": {}, "batch": None}, "'shampoo' trains networks"),
        (
            {"problem": "logistic", "gradient": "stored", "options": {}},
            "gradient: 'stored' is for networks, not logistic",
        ),
        ({"options": {"passthrough": "softmaxx"}, "gradient": "rounded"}, "passthrough='softmaxx'; admissible"),
    ],
)
def test_what_cannot_run_is_refused_before_any_does(more: dict[str, Any], message: str) -> None:
    def made_and_checked() -> None:
        asked = study(**more)
        asked.check(asked.cells())

    with pytest.raises(ValueError, match=message):
        made_and_checked()


def test_names_are_known_without_torch() -> None:
    code = "import sys, experiments.study as s; print('torch' in sys.modules, *s.networks.PROBLEMS)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert printed[0] == "False" and printed[1:] == list(networks.PROBLEMS) and "mlp-digits" in printed


@pytest.mark.parametrize("options", [{}, {"width": 8}])
def test_without_torch_a_network_names_the_extra(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    network_settings.forget()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(StudyError, match=r"^problem: mlp-digits: networks are .* pip install 'fpsim\[networks\]'$"):
        study(options=options).cells()
    network_settings.forget()


@pytest.mark.slow
def test_weights_of_few_bits_stall_with_nearest_even_where_dithered_ones_learn() -> None:
    """99 % confidence over eight seeds, which share start and batches: the loss is more than twice as large."""
    options = {"width": 32, "components": "weights"}
    more = {"optimizer": "sgd", "mantissa": 3, "seeds": 8, "steps": 150, "batch": 32, "options": options}
    nearest, dithered = (
        np.array(run_batch([study(**more, rounding=mode).cells()[0]])[0]["seed_loss"])
        for mode in ("nearest_even", "stochastic")
    )
    low, _ = confidence_interval(np.log(nearest / dithered), 0.99)
    assert low > math.log(2.0)
