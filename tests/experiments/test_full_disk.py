"""Full disks and read-only folders: a clear line, and every finished cell as it was. Real ones where the system lets a
test mount a file system of its own, and everywhere writes that fail at every place where they can."""

import builtins
import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import fake_simulate
import pytest

from experiments import store, whole_files
from experiments.cli import main
from experiments.study import Study

ROOT = Path(__file__).parents[2]
WORDS = ["scan", "--optimizer=sgd", "--problem=quadratic", "--mantissa=1..23", "--seeds=8", "--steps=10", "--workers=2"]


def namespace():
    """A command prefix that runs its command where it may mount file systems; None if the system does not allow it."""
    words = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None:
        return None
    mount = ["sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return words if subprocess.run([*words, *mount], capture_output=True, check=False).returncode == 0 else None


def run_in_namespace(body, tmp_path):
    """Run ``body`` with ``scan(*words)`` and ``size(text)`` of a tmpfs at ``out``, in a process of its own."""
    prefix = namespace()
    if prefix is None:
        pytest.skip("this system lets no test mount a file system")
    out = tmp_path / "disk"
    out.mkdir()
    script = f"""
    import pathlib, subprocess, sys, time
    out = pathlib.Path({str(out)!r})
    command = [sys.executable, {str(Path(fake_simulate.__file__))!r}, *{WORDS!r}, "--out", str(out)]
    def mount(*options):
        return subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(out)], capture_output=True).returncode
    def scan(*more):
        return subprocess.run([*command, *more], text=True, capture_output=True)
    def kept():
        return {{path: path.read_bytes() for path in (out / "cells").glob("*.parquet")}}
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script) + textwrap.dedent(body))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*prefix, sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_disk_that_runs_full(tmp_path):
    body = """
    assert mount("-o", "size=300k") == 0
    done = scan()
    assert done.returncode == 1, done
    assert done.stderr.count("\\n") == 1, done.stderr
    assert "cannot be written (No space left on device); finished cells are kept" in done.stderr, done.stderr
    before = kept()
    assert 0 < len(before) < 46, len(before)
    assert not list((out / "cells").glob(".*"))  # no half-written file stays behind
    done = scan()  # full from the start
    assert done.returncode in (1, 2) and done.stderr.count("\\n") == 1, done
    assert kept() == before
    assert mount("-o", "remount,size=30m") == 0
    done = scan()
    assert done.returncode == 0, done.stderr
    assert f"resuming: {len(before)} of 46 cells are finished" in done.stdout, done.stdout
    after = kept()
    assert len(after) == 46 and before.items() <= after.items()
    """
    run_in_namespace(body, tmp_path)


def test_a_folder_that_turns_read_only(tmp_path):
    body = """
    import os
    assert mount("-o", "size=30m") == 0
    environment = os.environ | {"FAKE_SECONDS_PER_CELL": "0.1"}
    words = [*command, "--rounding", "up,down,to_odd,toward_zero"]
    process = subprocess.Popen(words, env=environment, text=True, stdout=-1, stderr=-1)
    while not kept() or mount("-o", "remount,ro"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    printed, complaint = process.communicate(timeout=60)
    assert process.returncode == 1, complaint
    assert complaint.count("\\n") == 1 and "cannot be written (Read-only file system)" in complaint, complaint
    before = kept()
    assert 0 < len(before) < 92
    done = scan()
    assert done.returncode == 2, done
    assert done.stderr.startswith("fpsim scan: error: --out: "), done.stderr
    assert "cannot be written (Read-only file system); name a folder that can" in done.stderr
    assert done.stderr.count("\\n") == 1
    assert kept() == before
    words = [sys.executable, "-m", "experiments.cli", "status", str(out)]
    status = subprocess.run(words, text=True, capture_output=True)
    assert status.returncode == 1 and f"{len(before)} of 92 cells" in status.stdout, status
    """
    run_in_namespace(body, tmp_path)


def test_files_that_may_not_grow(tmp_path):
    """A limit on the size of a file, which fails in the middle of a write."""
    limit = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); sys.argv = sys.argv[1:]"
    )
    code = f"{limit}; runpy.run_path(sys.argv[0], run_name='__main__')"
    words = [str(Path(fake_simulate.__file__)), *WORDS, "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1
    assert "cannot be written (File too large); finished cells are kept" in done.stderr
    assert list((tmp_path / "out" / "cells").iterdir()) == []


class FullDisk:
    """Lets some operations pass and fails the next one of its kind; a write takes half of its bytes before."""

    def __init__(self, kind, passes):
        self.kind, self.left = kind, passes

    def hit(self, kind):
        if kind == self.kind:
            self.left -= 1
        if kind == self.kind and self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open(self, path, mode="r", **how):
        self.hit("open")
        file = builtins.open(path, mode, **how)  # noqa: SIM115
        if mode != "xb":
            return file
        disk = self

        class Writer:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                try:
                    disk.hit("write")
                except OSError:
                    file.write(data[: len(data) // 2])
                    raise
                return file.write(data)

        return Writer()

    def replace(self, source, target):
        self.hit("replace")
        os.rename(source, target)


@pytest.mark.parametrize("kind", ["open", "write", "replace"])
@pytest.mark.parametrize("passes", [0, 1, 2, 20, 47, 48])
def test_a_write_that_fails_anywhere_leaves_whole_files(tmp_path, fakes, monkeypatch, capsys, kind, passes):
    monkeypatch.setattr("paper_figures.floors.build", lambda rows, out: [])
    study = Study(optimizer="sgd", problem="quadratic", mantissa="1..23", seeds=8, steps=10)
    keys = [cell.key for cell in study.cells()]
    disk = FullDisk(kind, passes)
    with monkeypatch.context() as patch:
        patch.setattr(whole_files, "open", disk.open, raising=False)
        patch.setattr(whole_files.os, "replace", disk.replace)
        code = main([*WORDS, "--engine=serial", "--out", str(tmp_path)])
    complaint = capsys.readouterr().err
    kept = store.look(tmp_path, keys)
    assert kept.damaged == []
    # study.json, the driver's file, 46 cells, the table; a driver's file that fails later is not missed
    assert code == 1 if passes <= 48 else 0
    assert complaint.count("\n") == 1 and "No space left on device" in complaint
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
    before = {path: path.read_bytes() for path in (tmp_path / "cells").iterdir()}
    assert main([*WORDS, "--engine=serial", "--out", str(tmp_path)]) == 0
    after = {path: path.read_bytes() for path in (tmp_path / "cells").iterdir()}
    assert len(after) == 46 and before.items() <= after.items()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_that_not_even_root_can_write(capsys, fakes):
    assert main([*WORDS, "--out", "/proc/fpsim"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "--out: /proc/fpsim cannot be written" in printed
