"""Dask: a cluster of this machine, a scheduler somewhere, workers that a batch system starts, and what is missing."""

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import fake_simulate
import pytest

from experiments import backends, engine, store, worker
from experiments.cli import main
from experiments.fields import StudyError

ROOT = Path(__file__).parents[2]
SMALL = ["scan", "--optimizer=sgd", "--problem=quadratic", "--mantissa=2..4", "--seeds=2", "--steps=64"]


@pytest.fixture
def no_figure(monkeypatch):
    monkeypatch.setattr("paper_figures.floors.build", lambda rows, out: [])


def test_a_worker_that_does_not_see_the_folder_sends_its_rows(small, tmp_path, monkeypatch):
    def submit(self, number, cells):
        result = worker.run_remotely(replace(self.task, proof=".probe-absent.tmp"), cells)
        assert not result.kept and "rms_gradient" in result.rows[0]
        future = engine.Future()
        future.set_result(result)
        return future

    monkeypatch.setattr(backends.Serial, "submit", submit)
    store.prepare(tmp_path)
    cells = small.cells()
    done = []
    work = engine.batches(cells, 1)
    keep = {"engine": "serial", "out": tmp_path, "runner": fake_simulate.run_batch}
    engine.execute(work, lambda *said: done.append(said), **keep)
    assert len(done) == len(work)
    assert len(store.look(tmp_path, [cell.key for cell in cells]).finished) == len(cells)


def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path, capsys, fakes, monkeypatch):
    pytest.importorskip("distributed", reason="needs fpsim[cluster]")
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 0.5)
    words = [*SMALL, f"--out={tmp_path}", "--engine=dask", "--scheduler=tcp://127.0.0.1:1"]
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fpsim scan: error: --scheduler: tcp://127.0.0.1:1 does not answer")
    assert printed.count("\n") == 1


def test_what_is_missing_for_a_batch_system_is_said_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", sys)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(StudyError, match=r"fpsim\[jobqueue\]"):
        backends.check_engine("dask", None, "slurm")
    with pytest.raises(StudyError, match="'slum' is unknown; admissible: slurm, pbs"):
        backends.check_engine("dask", None, "slum")
    with pytest.raises(StudyError, match="leave out --scheduler"):
        backends.check_engine("dask", "tcp://host:1", "slurm")
    monkeypatch.setitem(sys.modules, "dask_jobqueue", sys)
    monkeypatch.setattr(backends.shutil, "which", lambda name: None)
    with pytest.raises(StudyError, match="'slurm' needs the command sbatch, which is not here"):
        backends.check_engine("dask", None, "slurm")


@pytest.fixture
def alone(tmp_path, capsys, no_figure):
    """The table of the small study from one thread, really computed."""
    assert main([*SMALL, f"--out={tmp_path / 'alone'}", "--engine=serial"]) == 0
    capsys.readouterr()
    return table(tmp_path / "alone")


def table(out):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in store.read_rows(out)]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["threads 1", "threads 3", "processes 1", "processes 2", "dask 1", "dask 2"])
def test_the_same_bits_from_every_engine_and_any_number_of_workers(tmp_path, alone, how):
    name, workers = how.split()
    if name == "dask":
        pytest.importorskip("distributed", reason="needs fpsim[cluster]")
    assert main([*SMALL, f"--out={tmp_path}", f"--engine={name}", f"--workers={workers}"]) == 0
    assert table(tmp_path) == alone


@pytest.mark.slow
def test_a_scheduler_with_two_workers(tmp_path, alone):
    pytest.importorskip("distributed", reason="needs fpsim[cluster]")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", f"--scheduler-file={file}", "--no-dashboard"]
    quiet = {"env": environment, "cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([*command, "--host=127.0.0.1", "--port=0"], **quiet)]
    try:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", f"--scheduler-file={file}", "--nthreads=1"]
        processes += [subprocess.Popen([*command, "--no-dashboard"], **quiet) for _ in range(2)]
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        import json

        address = json.loads(file.read_text())["address"]
        assert main([*SMALL, f"--out={tmp_path / 'out'}", "--engine=dask", f"--scheduler={address}"]) == 0
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=60)
    assert table(tmp_path / "out") == alone


@pytest.mark.slow
def test_workers_that_slurm_starts(tmp_path, alone, monkeypatch):
    """With commands in the place of SLURM's that start the job script here."""
    pytest.importorskip("dask_jobqueue", reason="needs fpsim[jobqueue]")
    commands = {
        "sbatch": f"""
            #!/bin/sh
            echo "$1" >> {tmp_path}/submitted
            cp "$1" {tmp_path}/job-$$
            setsid sh {tmp_path}/job-$$ >> {tmp_path}/job.log 2>&1 &
            echo "Submitted batch job $!"
            """,
        "scancel": "#!/bin/sh\nkill -- -$1\n",
    }
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        path = tmp_path / "bin" / name
        path.write_text(textwrap.dedent(text).lstrip())
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, f"--out={tmp_path / 'out'}", "--engine=dask", "--cluster=slurm", "--workers=2"]
    options = {"cores": 1, "memory": "2GB", "processes": 1, "death-timeout": 60, "local-directory": str(tmp_path)}
    options["scheduler-options"] = {"dashboard_address": ":0"}
    import dask

    with dask.config.set({"jobqueue.slurm": dask.config.get("jobqueue.slurm", {}) | options}):
        assert main(words) == 0
    assert len((tmp_path / "submitted").read_text().split()) == 2
    assert table(tmp_path / "out") == alone
