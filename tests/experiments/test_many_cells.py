"""A study of many small cells: what each costs beside its computation, the last ones as little as the first."""

import sys

import pytest

from experiments import engine, store
from experiments.bench import store as bench
from experiments.bench.measure import Settings
from experiments.cli import main


def test_the_bench_measures_what_it_says():
    rows = bench.jobs(Settings(sizes=(300,)))[0].run(Settings())
    assert [row.case for row in rows][:4] == [
        "run and keep",
        "list, every byte checked",
        "resume with nothing to do",
        "table of all",
    ]
    assert all(row.value > 0 and row.size == 300 for row in rows)
    assert rows[4].value == pytest.approx(sum(row.value for row in rows[:4]))
    assert bench.halves([0.0, 1.0, 2.0, 4.0, 6.0]) == (1000.0, 2000.0)


def test_cells_of_the_bench_are_all_different():
    cells = bench.many_cells(1200)
    assert len({cell.key for cell in cells}) == 1200
    assert sum(len(batch.cells) for batch in engine.batches(cells, 2)) == 1200


@pytest.mark.slow
def test_ten_thousand_cells_cost_five_milliseconds_each_from_the_first_to_the_last():
    rows = {row.case: row for row in bench.measure(10_000)}
    assert rows["all of these, a cell"].value <= 5.0
    assert rows["second half of the run"].ratio <= 1.5
    assert rows["list, every byte checked"].value <= 1.0
    assert rows["resume with nothing to do"].value <= 1.0


@pytest.mark.slow
def test_the_command_line_with_many_cells(tmp_path, fakes, capsys, monkeypatch):
    """Two thousand cells of as many reasons for failure: the lists under the table stay short."""
    monkeypatch.setattr("paper_figures.floors.build", lambda rows, out: [])
    simulate = sys.modules["experiments.simulate"]
    monkeypatch.setattr(simulate, "run_batch", bench.run_nothing)
    words = ["scan", "--exponent=2..11", "--mantissa=1..52", "--steps=1", "--seeds=1", f"--out={tmp_path}"]
    assert main([*words, "--optimizer=sgd,adam", "--problem=quadratic"]) == 0
    assert len(capsys.readouterr().out.splitlines()) < 150
    assert main([*words, "--optimizer=sgd,adam", "--problem=quadratic"]) == 0
    printed = capsys.readouterr().out
    assert "resuming: 2080 of 2080 cells are finished" in printed
    assert main(["status", str(tmp_path)]) == 0
    assert len(store.read_rows(tmp_path)) == 2080
