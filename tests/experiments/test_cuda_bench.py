"""The script that times the card: all of it at tiny sizes in Triton's interpreter, and what it does with failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but
from triton_session import DEVICE

from experiments.bench import scan as reference
from experiments.cuda_bench import __main__ as script
from experiments.cuda_bench import attend, clock, memory_bound, parts, products, scan, tensor_cores, worker
from experiments.cuda_bench.record import Record
from experiments.cuda_bench.rows import FULL, QUICK, TINY, Job, Row, Skipped, WrongResult, same

linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only")


def rows_of(part: str, sizes: Any = TINY) -> list[Row]:
    said: list[dict[str, Any]] = []
    assert worker.work(part, clock.Clock(DEVICE), sizes, 0, 1, 0, said.append) == 0
    assert [event["job"] for event in said if "job" in event] == list(range(len(said) // 2))
    return [Row(**event["row"]) for event in said if "row" in event]


@linux
@pytest.mark.parametrize("part", slow_but(parts.PARTS, "matmul"))
def test_every_row_at_tiny_sizes(part: str) -> None:
    rows = rows_of(part)
    assert rows and [row.error + row.skipped for row in rows] == [""] * len(rows)
    for row in rows:
        assert row.part == part and row.value and row.value > 0 and row.met is None and row.case in row.line()


def test_the_cases_with_targets_are_those_that_are_run() -> None:
    at_full_size = clock.Clock("cpu")
    found = {part: [job.case for job in jobs(at_full_size, FULL)] for part, jobs in parts.PARTS.items()}
    assert found["memory"][1:] == list(memory_bound.TARGETS)
    assert found["matmul"] == [f"matmul {name}" for name in products.TARGETS]
    assert found["scan"] == [*(f"scan {mode}" for mode in reference.ROUNDINGS), "scan, all roundings"]
    assert {"public names", "copy float32"} <= {case for cases in found.values() for case in cases}
    assert set(QUICK.modes) <= set(FULL.modes) and set(QUICK.formats) <= set(FULL.formats)


def test_the_scan_is_the_reference_scan() -> None:
    assert scan.program() == reference.program()
    assert [scan.format_of(m) for m in FULL.widths] == [reference.format_of_widths(8, m) for m in reference.WIDTHS]
    ours = scan.machine_of(scan.Machine, "nearest_even", (0, 7))
    theirs = reference.machine_of("nearest_even", (0, 7))
    for machine in (ours, theirs):
        machine.run(3)
    for name in ("w", "m", "v", "center", "curvature"):
        assert ours.state(name).tobytes() == theirs.state(name).tobytes()


def test_a_target_is_met_from_the_right_side() -> None:
    assert Row(value=0.4, target=0.5, at_most=True).met and not Row(value=0.4, target=0.5).met
    row = Row(case="adam", value=0.81, unit="of the copy", target=0.8, seconds=0.002, first_call=1.5)
    assert row.line() == "adam: 81.0% of the copy, 2 ms (wanted >= 0.8: met), first call 1.50 s"
    assert Row(case="scan", value=0.6, unit="s", target=0.5, at_most=True, seconds=0.6).line() == (
        "scan: 0.6 s (wanted <= 0.5: MISSED)"
    )


def test_one_wrong_bit_is_an_error() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert same("case", x, x.numpy()) == 2
    with pytest.raises(WrongResult, match="case: 1 of 2 results are not those of the CPU machine"):
        same("case", x, (x + torch.tensor([0.0, 2.0**-50])).numpy())
    with pytest.raises(WrongResult, match=r"float64 of shape \(2,\); the CPU gives float32 of shape \(2,\)"):
        same("case", x, x.numpy().astype(np.float32))


def test_a_check_names_every_case_that_fails() -> None:
    def bad() -> int:
        raise OSError("no")

    def cases() -> Iterator[Any]:
        yield "first", bad
        yield "second", lambda: 3

    with pytest.raises(WrongResult, match="1 cases failed: first: OSError: no"):
        parts.check._row("title", cases)


def test_nothing_runs_beside_what_takes_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.os, "cpu_count", lambda: 4)
    first, shared = ([(part, share, 3) for share in range(3)] for part in ("prepare", "check"))
    alone = [("scan", 0, 1)], [("memory", 0, 1)]
    assert script._stages(["prepare", "check", "scan", "memory"], "full") == [first, shared, *alone]
    assert script._stages(["prepare", "check", "scan", "memory"], "quick") == [first, shared + alone[0] + alone[1]]
    assert script._stages(["scan", "memory"], "tiny") == [alone[0] + alone[1]]


def failing(_: Any, __: Any) -> list[Job]:
    def skipped() -> Row:
        raise Skipped("too large")

    return [Job("broken", lambda: Row(value=1 / 0)), Job("skipped", skipped), Job("right", lambda: Row(value=2.0))]


def test_a_failing_job_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PARTS", {"part": failing})
    broken, skipped, right = rows_of("part")
    assert broken.error == "ZeroDivisionError: division by zero" and broken.line().startswith("broken: FAILED: Zero")
    assert skipped.line() == "skipped: skipped: too large" and right.value == 2.0
    long = worker.outcome(Job("long", lambda: Row(value=float("x" * 5000))))
    assert 600 < len(long.error) < 620 and long.error.endswith("x'")


def test_a_lost_card_ends_the_worker_after_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PARTS", {"part": failing})
    dead, said = clock.Clock(DEVICE), []
    monkeypatch.setattr(dead, "wait", lambda: 1 / 0)
    assert worker.work("part", dead, TINY, 0, 1, 0, said.append) == worker.LOST
    assert len(said) == 2 and said[1]["row"]["error"]


# A worker that a number selects the first job of: 0 crashes, 1 hangs, 2 loses the card after its row, 3 is right.
WORKER = """
import json, os, sys, time
print("a library's line"); print('{"and one that is no JSON')
for job in range(int(sys.argv[1]), 4):
    print(json.dumps({"job": job, "case": f"job {job}"}), flush=True)
    if job == 0:
        sys.exit("it crashed")
    if job == 1:
        time.sleep(60)
    print(json.dumps({"row": {"case": f"job {job}", "value": 1.0}}), flush=True)
    if job == 2:
        os._exit(3)
"""


def test_whatever_becomes_of_a_process_the_next_job_follows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record("cpu", "tiny", tmp_path / "record.json")
    attend.attend("part", lambda first: (sys.executable, "-c", WORKER, str(first)), {}, 1.5, record.add)
    attend.attend("part", lambda first: (sys.executable, "-c", "raise SystemExit('at once')"), {}, 20.0, record.add)
    assert not json.loads((tmp_path / "record.json").read_text())["finished"]
    assert record.finish() == 1
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["finished"] and found["sizes"] == "tiny" and found["versions"]["torch"] in record.title()
    errors = [(row["case"], row["error"]) for row in found["rows"]]
    assert errors == [
        ("job 0", "the process ended with status 1: it crashed"), ("job 1", "no result within 1.5 s"), ("job 2", ""),
        ("job 3", ""), ("part: before its first job", "the process ended with status 1: at once"),
    ]  # fmt: skip
    assert "5 rows, 3 failed, 0 targets missed" in capsys.readouterr().out


def test_sizes_shrink_to_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    small = clock.Clock("cpu")
    monkeypatch.setattr(small, "free", lambda: 1 << 20)
    assert small.fitting(1 << 20, 8, 1) == 1 << 16
    with pytest.raises(Skipped, match="131072 elements of 8 bytes do not fit into 1048576 free bytes"):
        small.fitting(1 << 20, 8, 1 << 17)
    with pytest.raises(Skipped):
        memory_bound.jobs(small, replace(TINY, least=1 << 30))[0].row()


class FakeEvent:
    """A device event: recorded ones are 2 ms apart."""

    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.now += 2.0
        self.at = FakeEvent.now

    def synchronize(self) -> None:
        self.done = True

    def elapsed_time(self, end: FakeEvent) -> float:
        assert end.done
        return end.at - self.at


def test_what_a_card_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The lines that only a card runs, with what torch says of one put in its place."""
    waited: list[int] = []
    for name, value in {
        "Event": FakeEvent, "synchronize": lambda: waited.append(1), "empty_cache": lambda: waited.append(2),
        "mem_get_info": lambda: (1 << 20, 1 << 30), "get_device_capability": lambda: (8, 0),
        "get_device_name": lambda: "A card", "is_available": lambda: True,
        "get_device_properties": lambda _: SimpleNamespace(
            name="A card", major=9, minor=0, multi_processor_count=132, total_memory=1 << 30
        ),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    card, calls = clock.Clock("cuda"), []
    found = card.medians({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, lambda: calls.append("-"))
    assert found == {"a": 0.002, "b": 0.002} and calls == ["-", "a", "-", "b"] * 5
    assert card.first(lambda: None) >= 0 and waited == [1, 1]
    assert card.fitting(1 << 20, 8, 1) == 1 << 16 and waited == [1, 1, 2]
    assert script.missing("cuda") == ""
    record = Record("cuda", "full", tmp_path / "record.json")
    assert record.machine["capability"] == "9.0" and record.title().startswith("A card; Python ")
    row = worker.outcome(tensor_cores.jobs(card, FULL)[0])
    assert row.skipped == "A card has compute capability 8.0; admissible: 9.0, H100 or H200"


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not torch.cuda.is_available():
        assert script.main([]) == 1
        said = capsys.readouterr()
        reason = "is built without CUDA" if torch.version.cuda is None else "sees no CUDA card or driver"
        assert said.err == f"cuda_bench: torch {torch.__version__} {reason}: nothing was timed\n" and not said.out
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert torch.cuda.is_available() or "sees no CUDA card" in script.missing("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "T4")
    assert script.missing("cuda") == "T4 has compute capability 7.5; needed: at least 8.0"
    monkeypatch.setitem(sys.modules, "numba", None)
    assert "pip install numba (" in script.missing("cpu") and script.missing("cpu").startswith("cannot import numba (")


@linux
@pytest.mark.slow
def test_unattended_with_nothing_else_installed(tmp_path: Path) -> None:
    """From another folder, where the libraries that a machine with a card may lack cannot be imported."""
    absent = ("polars", "rich", "msgspec", "flint", "scipy", "matplotlib", "sklearn", "gmpy2", "dask", "distributed")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({absent})\n")
    record = tmp_path / "record.json"
    command = (sys.executable, "-m", "experiments.cuda_bench", "--device", "cpu", "--json", record, "--part", "matmul")
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(attend.ROOT), env.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(record.read_text())
    assert found["finished"] and [row["case"] for row in found["rows"]] == ["matmul binary16", "matmul binary32"]
