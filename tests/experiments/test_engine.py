"""Engines: the same rows from every one of them, failures contained, and a stop that ends soon."""

import sys
import threading
import time

import fake_simulate
import pytest

from experiments import backends, engine
from experiments.study import Study, StudyError


def run(work, runner=fake_simulate.run_batch, **how):
    """Rows by key, failures by mantissa width, and element-steps reported."""
    rows, failures, advanced = {}, {}, []

    def finished(cells, made, error):
        if error is None:
            rows.update((row["key"], row) for row in made)
        else:
            failures.update((cell.mantissa_bits, engine.describe(error)[0]) for cell in cells)

    engine.execute(work, finished, runner=runner, advance=advanced.append, **how)
    return rows, failures, sum(advanced)


def test_batches_partition_the_cells_and_share_all_but_the_format(fakes):
    cells = Study(exponent="5,8").cells()
    found = engine.batches(cells, workers=2)
    assert sorted(cell.key for batch in found for cell in batch.cells) == sorted(cell.key for cell in cells)
    for batch in found:
        assert len({(c.optimizer, c.problem, c.rounding, c.steps) for c in batch.cells}) == 1
    costs = [batch.cost for batch in found]
    assert costs == sorted(costs, reverse=True)
    assert max(costs) <= 1.5 * sum(costs) / len(costs)
    assert engine.batches([], workers=2) == []


def test_every_engine_gives_the_same_rows(small):
    work = engine.batches(small.cells(), workers=2)
    cost = sum(batch.cost for batch in work)
    results = {name: run(work, engine=name, workers=2) for name in ("serial", "threads", "processes")}
    assert len(results["serial"][0]) == len(small.cells())
    for rows, failures, advanced in results.values():
        assert rows == results["serial"][0]
        assert failures == {}
        assert advanced == cost


@pytest.mark.parametrize("name", ["serial", "threads"])
def test_one_bad_cell_does_not_take_its_neighbours_with_it(small, name):
    work = engine.batches(small.cells(), workers=1)
    rows, failures, _ = run(work, fake_simulate.run_batch_with_bad_cell, engine=name, workers=1)
    assert {row["mantissa_bits"] for row in rows.values()} == {2, 4}
    assert len(rows) == 8
    assert failures == {3: "FloatingPointError: three bits are too few"}


def test_a_worker_that_dies_costs_only_its_own_cell(fakes):
    cells = Study(optimizer="sgd", problem="quadratic", rounding="up", mantissa="2..4", seeds=2, steps=10).cells()
    work = engine.batches(cells, workers=1)
    rows, failures, _ = run(work, fake_simulate.run_batch_that_dies, engine="processes", workers=2)
    assert {row["mantissa_bits"] for row in rows.values()} == {2, 4}
    assert failures == {3: "the worker process died (out of memory?)"}


@pytest.mark.parametrize("name", ["serial", "threads", "processes"])
def test_a_stop_keeps_what_is_finished_and_ends_soon(small, monkeypatch, name):
    monkeypatch.setenv(fake_simulate.DELAY, "0.4")
    work = [engine.Batch((cell,)) for cell in small.cells()]
    stop = engine.Stop()
    noticed = []
    stop.noticed = lambda: noticed.append(True)
    rows = {}

    def finished(cells, made, error):
        assert error is None
        rows.update((row["key"], row) for row in made)
        stop.event.set()

    started = time.monotonic()
    engine.execute(work, finished, engine=name, workers=2, runner=fake_simulate.run_batch, stop=stop)
    assert 1 <= len(rows) <= 2
    assert time.monotonic() - started < 8  # all cells would take longer in series; processes need time to start
    assert len(noticed) <= 1


def test_an_error_of_the_driver_stops_the_workers(small, monkeypatch):
    monkeypatch.setenv(fake_simulate.DELAY, "0.5")

    def full(*_):
        raise OSError("no space")

    started = time.monotonic()
    with pytest.raises(OSError, match="no space"):
        engine.execute(engine.batches(small.cells(), 2), full, workers=2, runner=fake_simulate.run_batch)
    assert time.monotonic() - started < 5


def test_rows_of_other_cells_are_refused(small):
    def swapped(cells, report, cancelled):
        return fake_simulate.run_batch(cells, report, cancelled)[::-1] * 2

    _, failures, _ = run(engine.batches(small.cells(), 1), swapped)
    assert set(failures) == {2, 3, 4}
    assert "other rows came back" in failures[2]


def test_a_worker_with_other_code_is_refused():
    with pytest.raises(RuntimeError, match="install the same code"):
        backends._run_remotely(fake_simulate.run_batch, [], "another version")


def test_dask_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StudyError, match=r"fpsim\[cluster\]"):
        backends.check_engine("dask", None)


def test_engine_and_scheduler_are_checked():
    with pytest.raises(StudyError, match="admissible: serial, threads, processes, dask"):
        backends.check_engine("ray", None)
    with pytest.raises(StudyError, match="needs --engine dask"):
        backends.check_engine("threads", "tcp://host:8786")


def test_signal_handlers_are_left_alone_outside_the_main_thread():
    failures = []

    def enter():
        try:
            with engine.stop_on_signals(engine.Stop()):
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failures == []
