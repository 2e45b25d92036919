"""``fpsim status``: what is there, who is at work, and how it ends, from another terminal."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import fake_simulate
import pytest

from experiments import drivers, store
from experiments.cli import main
from experiments.cli.status import status

ROOT = Path(__file__).parents[2]
SMALL = ["scan", "--optimizer=sgd,adam", "--problem=quadratic", "--mantissa=2..4", "--seeds=2", "--steps=10"]


@pytest.fixture
def no_figure(monkeypatch):
    monkeypatch.setattr("paper_figures.floors.build", lambda rows, out: [])


def test_while_a_scan_runs_and_after_it_was_killed(tmp_path, capsys, fakes, no_figure):
    out = tmp_path / "out"
    words = [*SMALL, "--mantissa=1..12", f"--out={out}", "--workers=2", "--engine=threads"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), fake_simulate.DELAY: "0.1"}
    command = [sys.executable, str(Path(fake_simulate.__file__)), *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(out.glob("cells/*.parquet")):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(1.2 * drivers.BEAT_SECONDS)
        assert main(["status", str(out), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["cells"] == 48
        assert 0 < found["finished"] < 48 and found["missing"] == 48 - found["finished"]
        (driver,) = found["drivers"]
        assert (driver["pid"], driver["host"]) == (process.pid, platform.node())
        assert driver["alive"] and driver["same"]
        assert driver["done"] > 0 and driver["seconds_left"] > 0
        assert main(["status", str(out)]) == 0
        printed = capsys.readouterr().out
        assert f"at work: process {process.pid} on {platform.node()} (threads, 2 workers): " in printed
        assert " left\n" in printed
    finally:
        process.kill()
        process.wait()
    assert main(["status", str(out)]) == 1
    printed = capsys.readouterr().out
    assert f"gone: process {process.pid} on {platform.node()} (threads, 2 workers) ended without a word" in printed
    assert "nobody is at work on it; the same fpsim scan command resumes" in printed
    assert main([*words[:-1], "--engine=serial"]) == 0
    capsys.readouterr()
    assert main(["status", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 48 of 48 cells are finished (100 %)\n"
    assert list((out / "drivers").iterdir()) == []  # who was killed is forgotten by the next


@pytest.mark.parametrize("name", ["absent", "empty", "file"])
def test_where_no_study_was_started(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    assert main(["status", str(tmp_path / name)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    where = tmp_path / name
    assert printed.err == f"fpsim status: error: no study was started in {where}; DIR is what --out of a scan was\n"


def test_failed_and_damaged_cells(tmp_path, capsys, fakes, no_figure, monkeypatch):
    monkeypatch.setattr(sys.modules["experiments.simulate"], "run_batch", fake_simulate.run_batch_with_bad_cell)
    assert main([*SMALL, f"--out={tmp_path}"]) == 1
    damaged = store.cell_path(tmp_path, next(iter(store.look(tmp_path, drivers.read_plan(tmp_path).keys).finished)))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    capsys.readouterr()
    assert main(["status", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "7 of 12 cells are finished (58 %), 4 failed, 1 missing\n" in printed
    assert f"{damaged} is damaged and its cell is computed again (its digest does not match)" in printed
    assert status(tmp_path)["damaged"] == 1


def test_a_damaged_plan_is_one_line(tmp_path, capsys, fakes, no_figure):
    assert main([*SMALL, f"--out={tmp_path}"]) == 0
    capsys.readouterr()
    for text in ("", "{", "[]", '{"study": 1}', '{"study": {}, "keys": 5}', "\0"):
        (tmp_path / "study.json").write_text(text)
        assert main(["status", str(tmp_path)]) == 2, text
        printed = capsys.readouterr().err
        assert (
            printed
            == f"fpsim status: error: {tmp_path / 'study.json'} is damaged; the next fpsim scan writes it anew\n"
        )
    assert main([*SMALL, f"--out={tmp_path}"]) == 0
    assert main(["status", str(tmp_path)]) == 0


def test_drivers_of_other_machines_and_other_studies(tmp_path, capsys, fakes, no_figure):
    assert main([*SMALL, f"--out={tmp_path}"]) == 0
    plan = drivers.read_plan(tmp_path)
    facts = {"plan": plan.digest, "host": "elsewhere", "pid": 1, "born": 5, "engine": "dask", "workers": 3}
    path = tmp_path / "drivers" / "elsewhere-1.json"
    path.write_text(json.dumps(facts | {"cells": 12, "done": 3, "seconds": 65.0, "seconds_left": None}))
    (tmp_path / "drivers" / "half.json").write_text('{"pl')
    (driver,) = drivers.drivers(tmp_path)
    assert driver.alive
    capsys.readouterr()
    assert main(["status", str(tmp_path)]) == 0
    assert "at work: process 1 on elsewhere (dask, 3 workers): 3 of its 12 cells in 1:05\n" in capsys.readouterr().out
    os.utime(path, (time.time() - 100, time.time() - 100))
    (driver,) = drivers.drivers(tmp_path)
    assert not driver.alive
    path.write_text(json.dumps(facts | {"host": platform.node(), "pid": os.getpid(), "born": -1, "plan": "other"}))
    (driver,) = drivers.drivers(tmp_path)
    assert not driver.alive  # another process has its number now
    path.write_text(
        json.dumps(facts | {"host": platform.node(), "pid": os.getpid(), "born": drivers._born(os.getpid())})
    )
    (driver,) = drivers.drivers(tmp_path)
    assert driver.alive
    path.write_text(json.dumps(driver.facts | {"plan": "other"}))
    assert status(tmp_path)["drivers"][0]["same"] is False


def test_a_second_driver_begins_elsewhere(tmp_path):
    plan = drivers.Plan({}, ["a", "b"])
    with drivers.Heartbeat(tmp_path, plan, {}, dict) as first:
        other = drivers.Heartbeat(tmp_path, plan, {}, dict)
        other.path = tmp_path / "drivers" / "second.json"
        with other as second:
            assert (first.others, second.others) == (0, 1)
            assert len(drivers.drivers(tmp_path)) == 2
    assert drivers.drivers(tmp_path) == []


def test_a_heartbeat_that_cannot_be_written_does_not_end_a_study(tmp_path, monkeypatch):
    monkeypatch.setattr(drivers, "BEAT_SECONDS", 0.01)
    with drivers.Heartbeat(tmp_path, drivers.Plan({}, []), {}, dict) as heart:

        def full(*_):
            raise store.StoreError("full")

        monkeypatch.setattr(drivers, "write_whole", full)
        time.sleep(0.1)
        assert heart.thread.is_alive()
