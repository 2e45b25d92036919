"""Engines: the same rows from every one of them, failures contained, and a stop that ends soon."""

import importlib.util
import os
import sys
import threading
import time

import fake_simulate
import pytest

import fpsim.cpu.threads as fpsim_threads
from experiments import backends, engine, store, worker
from experiments.study import Study, StudyError

needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs fpsim[cluster]")


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
    assert costs[5:] == sorted(costs[5:], reverse=True)
    assert engine.batches([], workers=2) == []


def test_batches_are_wide_where_there_are_enough_cells_and_work_for_all(fakes):
    def lanes(cells, workers):
        return [sum(cell.seeds for cell in batch.cells) for batch in engine.batches(cells, workers)]

    assert min(lanes(Study().cells(), 4)[3:]) >= 128  # after three that tell how long the others take
    assert min(lanes(Study(exponent="5,8").cells(), 4)) >= 128
    assert set(lanes(Study(seeds=200).cells(), 4)) <= {200, 400, 600, 800, 1000}
    one_kin = Study(optimizer="sgd", problem="quadratic", rounding="up").cells()  # 184 lanes
    assert lanes(one_kin, 1) == [184]
    assert sorted(lanes(one_kin, 2)) == [88, 96]  # rather two narrow ones than a worker without work
    many = Study(optimizer="sgd", problem="quadratic", rounding="up", exponent="2..11", mantissa="1..52", steps=1)
    assert max(lanes(many.cells(), 1)) <= 1024
    large = Study(optimizer="sgd", problem="quadratic", rounding="up", dimension=10**6)
    assert max(lanes(large.cells(), 1)) <= 16  # or an array of a call would take more than 128 MiB


def test_the_first_batches_show_every_optimizer_problem_and_rounding(fakes):
    found = engine.batches(Study().cells(), workers=4)
    first = [batch.cells[0] for batch in found[:3]]
    assert {cell.optimizer for cell in first} == {"sgd", "rmsprop", "adam"}
    assert {cell.problem for cell in first} == {"quadratic", "rational", "logistic"}
    assert {cell.rounding for cell in first} == {"nearest_even", "stochastic"}


ENGINES = ["serial", "threads", "processes", pytest.param("dask", marks=needs_dask)]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("keep", [False, True])
def test_every_engine_gives_the_same_rows(small, tmp_path, name, keep):
    cells = small.cells()
    work = engine.batches(cells, workers=2)
    out = tmp_path if keep else None
    if keep:
        store.prepare(tmp_path)
    rows, failures, advanced = run(work, engine=name, workers=2, out=out)
    assert failures == {}
    assert advanced == sum(batch.cost for batch in work)
    if keep:
        assert {row["outcome"] for row in rows.values()} == {"stagnated", "reached a floor"}
        assert not any("rms_gradient" in row for row in rows.values())  # they stay where they were made
        rows = {row["key"]: row for row in store.read_cells(out, [cell.key for cell in cells]).to_dicts()}
        assert not list(tmp_path.glob("**/.*"))
    assert rows == {cell.key: fake_simulate.row(cell) for cell in cells}


def test_cells_that_another_driver_has_finished_are_passed_over(small, tmp_path):
    store.prepare(tmp_path)
    cells = small.cells()
    store.keep_cells(tmp_path, cells[:5], [fake_simulate.row(cell) for cell in cells[:5]])
    store.write_cell(tmp_path, cells[5], store.failed_row(cells[5], "no"))
    store.cell_path(tmp_path, cells[0].key).write_bytes(b"damaged")
    made = []

    def runner(cells, report, cancelled):
        made.extend(cells)
        return fake_simulate.run_batch(cells, report, cancelled)

    rows, _, advanced = run(engine.batches(cells, 1), runner, engine="serial", out=tmp_path)
    assert sorted(cell.key for cell in made) == sorted(cell.key for cell in [cells[0], *cells[5:]])
    assert rows.keys() == {cell.key for cell in cells}
    assert advanced == sum(cell.cost for cell in cells)
    assert len(store.look(tmp_path, rows).finished) == len(cells)


@pytest.mark.parametrize("name", ENGINES)
def test_a_store_that_cannot_be_written_ends_the_study(small, tmp_path, name):
    with pytest.raises(store.StoreError, match="cannot be written"):  # the folder of the cells was never made
        run(engine.batches(small.cells(), 2), engine=name, workers=2, out=tmp_path)


def test_two_drivers_share_the_work(fakes, tmp_path):
    cells = Study(optimizer="sgd,adam", problem="quadratic", mantissa="1..10", seeds=2, steps=10).cells()
    store.prepare(tmp_path)
    made = {0: [], 1: []}

    def drive(others):
        def runner(cells, report, cancelled):
            time.sleep(0.02)
            made[others].extend(cell.key for cell in cells)
            return fake_simulate.run_batch(cells, report, cancelled)

        work = [engine.Batch((cell,)) for cell in cells]
        run(work, runner, engine="threads", workers=1, out=tmp_path, others=others)

    threads = [threading.Thread(target=drive, args=(others,)) for others in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(made[0]) | set(made[1]) == {cell.key for cell in cells}
    assert min(len(made[0]), len(made[1])) >= 8
    assert len(made[0]) + len(made[1]) <= len(cells) + 4  # a few were begun by both
    assert len(store.look(tmp_path, made[0] + made[1]).finished) == len(cells)


def test_where_drivers_begin():
    assert [engine.shares("abcdefgh", others)[0] for others in range(5)] == ["a", "e", "c", "g", "b"]
    assert "".join(engine.shares("abcdefgh", 2)) == "cdefghab"


def threads_of_a_batch(cells, report, cancelled):
    from fpsim.cpu.threads import threads

    limits = {name: os.environ.get(name) for name in worker.ONE_CORE}
    return [fake_simulate.row(cell) | {"warnings": f"{threads()} {limits['NUMBA_NUM_THREADS']}"} for cell in cells]


@pytest.mark.parametrize("name", ENGINES[1:])
def test_cores_are_divided_never_multiplied(small, monkeypatch, name):
    monkeypatch.setattr(fpsim_threads, "_count", 4)
    rows, _, _ = run(engine.batches(small.cells(), 2), threads_of_a_batch, engine=name, workers=2)
    assert {row["warnings"].split()[0] for row in rows.values()} == {"1"}
    if name != "threads":  # which share this process, and its libraries' threads
        assert {row["warnings"].split()[1] for row in rows.values()} == {"1"}
    assert fpsim_threads.threads() == 4  # as before


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
        worker.run_remotely(worker.Task(fake_simulate.run_batch, None, "another version"), [])


def test_dask_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StudyError, match=r"fpsim\[cluster\]"):
        backends.check_engine("dask", None)


def test_engine_and_scheduler_are_checked():
    with pytest.raises(StudyError, match="admissible: serial, threads, processes, dask"):
        backends.check_engine("ray", None)
    with pytest.raises(StudyError, match="needs --engine dask"):
        backends.check_engine("threads", "tcp://host:8786")
    with pytest.raises(StudyError, match="'slurm' needs --engine dask"):
        backends.check_engine("processes", None, "slurm")


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
