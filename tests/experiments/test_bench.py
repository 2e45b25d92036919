"""``fpsim bench`` on tiny arrays: its table, its record, and what happens when something fails. No time is tested."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from experiments.bench import adam, arithmetic, cases, matmul, measure, network, peers, reductions, scan, startup
from experiments.bench import round as rounding
from experiments.bench.measure import Job, Row, Settings, WrongResult, interleaved, one_core
from experiments.cli import bench, main, record_file
from fpsim.rounding import Stochastic

ROOT = Path(__file__).parents[2]
TINY = ["--size", "600", "--repeats", "1"]


@pytest.fixture(autouse=True)
def short_samples(monkeypatch):
    monkeypatch.setattr(measure, "SHORTEST_SAMPLE", 1e-6)


@pytest.mark.slow
def test_round_prints_a_table_and_writes_a_record(tmp_path, capsys):
    file = tmp_path / "record.json"
    assert main(["bench", "round", *TINY, "--format", "bfloat16,binary64", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert "1 repeats" in lines[0] and ("pinned" in lines[0])
    assert sum("bfloat16 float64 stochastic32" in line for line in lines) == 1
    assert "skipped: round binary64 float32: the dtype cannot hold the format" in printed
    record = json.loads(file.read_text())
    assert record["finished"] is True
    assert {"date", "processor", "processors", "load", "system", "python", "versions", "pinned"} <= set(record)
    assert {"numpy", "numba"} <= set(record["versions"])
    measured = [row for row in record["rows"] if row["value"] is not None]
    assert len(measured) == 3 * (1 + len(cases.MODES))
    assert all(row["value"] > 0 and row["ratio"] > 0 and row["reference"] == "copy" for row in measured)
    assert all(row["met"] is None for row in measured)  # the targets are about the sizes of the issue
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.slow
def test_arithmetic_beside_the_unrounded_operation():
    settings = Settings(("binary16",), (600,), 1)
    rows = [row for job in arithmetic.jobs(settings) for row in job.run(settings)]
    assert len(rows) == 6 * (1 + len(arithmetic.CASES))
    assert {row.reference for row in rows} == {"np.add", "np.multiply", "np.divide"}
    assert all(row.value > 0 for row in rows)


@pytest.mark.slow
def test_reductions_count_their_operations():
    settings = measure.Settings(repeats=1)
    jobs = reductions.jobs(settings)
    assert [job.title.split()[1] for job in jobs] == ["dense", "logistic", "logistic", "rosenbrock"]
    rows = jobs[0].run(settings)
    assert len(rows) == len(reductions.LANES) * len(reductions.MODES)
    # difference, products, additions; the weights and the gradient as they are handed on, scaled and subtracted
    assert {row.size for row in rows} == {64 + 64 * 64 + 64 * 63 + 4 * 64}
    assert [row.target for row in rows] == [1.0, None] * 2


def test_matmul_is_measured_or_says_why_not():
    settings = Settings(("bfloat16",), (100,), 1)
    (job,) = matmul.jobs(settings)
    rows = job.run(settings)
    assert job.title == "matmul bfloat16 10^3"
    assert rows[0].skipped.startswith("not in this version") or [row.size for row in rows] == [1000, 1000]


def test_peers_that_are_missing_or_broken_are_left_out(monkeypatch):
    def broken(fmt, x):
        raise RuntimeError("another\nversion")

    def wrong(fmt, x):
        return lambda: np.zeros_like(x)

    def absent(fmt, x):
        raise ImportError

    monkeypatch.setattr(peers, "PEERS", {"broken": broken, "wrong": wrong, "absent": absent})
    settings = Settings(sizes=(50,), repeats=1)
    rows = peers.jobs(settings)[0].run(settings)
    assert [row.case for row in rows if row.value] == [
        "bfloat16 float32 copy",
        "bfloat16 float32 fpsim",
        "bfloat16 float32 wrong (50 results wrong)",
    ]
    assert {(row.case, row.skipped) for row in rows if row.skipped} == {
        ("bfloat16 float32 broken", "RuntimeError: another version"),
        ("absent", "not installed"),
    }


@pytest.mark.parametrize("name", ["ml_dtypes", "torch", "gfloat"])
@pytest.mark.parametrize("fmt", peers.FORMATS)
def test_installed_peers_round_float32_as_fpsim_does(name, fmt):
    x = cases.values(400, "float32", -3.0, 3.0)
    call = peers.PEERS[name](fmt, x)
    assert np.array_equal(np.asarray(call()), rounding.arrays.round(x, fmt))


def test_networks_are_measured_in_processes_with_their_number_of_threads(monkeypatch):
    asked = []

    def measured(what: str, threads: int, count: int) -> dict[str, float]:
        asked.append((what, threads, count))
        return {"plain": 0.01, "emulated": 0.014, "whole": 29.0}

    monkeypatch.setattr(network, "_measured", measured)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    rows = [row for job in network.jobs(Settings(repeats=2)) for row in job.run(Settings(repeats=2))]
    assert [row.met for row in rows] == [True] * 5 and rows[1].ratio == pytest.approx(1.4)
    assert asked == [("step", 1, 2), ("storage", 1, 2), ("storage", 4, 2), ("whole operation", 4, 3000),
                     ("whole storage", 4, 3000)]  # fmt: skip
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    skipped = [row for job in network.jobs(Settings()) for row in job.run(Settings()) if row.skipped]
    assert [row.skipped for row in skipped] == ["2 cores"] * 3


@pytest.mark.slow
def test_a_step_of_a_network_is_measured():
    assert set(network._measured("step", 1, 2)) == {"plain", "emulated"}
    assert network._measured("whole storage", 1, 3)["whole"] > 0.0
    with pytest.raises(WrongResult, match=r"KeyError|ValueError"):
        network._measured("whole nothing", 1, 3)


def test_startup_runs_in_fresh_interpreters(monkeypatch):
    monkeypatch.setattr(startup, "_seconds", lambda code: 200.0 if "import numba" in code else 300.0)
    numba, ours, first = startup.jobs(Settings())[0].run(Settings(repeats=2))
    assert (numba.value, ours.ratio, ours.met, first.met) == (200.0, 1.5, False, True)
    monkeypatch.undo()
    assert startup._seconds("print(1.5)") == 1.5
    with pytest.raises(WrongResult, match="a fresh interpreter failed"):
        startup._seconds("raise SystemExit(3)")


def test_every_target_of_round_is_asked_for():
    settings = Settings()
    assert [job.title for job in rounding.jobs(settings)] == [
        f"round bfloat16 {dtype} {size}" for size in (1 << 24, 1 << 15) for dtype in ("float64", "float32")
    ]
    assert all(set(rounding.TARGETS[size][dtype]) == set(cases.MODES) for size in rounding.TARGETS for dtype in
               ("float64", "float32"))  # fmt: skip


def test_a_wrong_result_is_found_before_the_clock_starts(monkeypatch, capsys):
    monkeypatch.setattr(rounding.arrays, "round", lambda x, fmt, mode, key, out: np.copyto(out, x))
    monkeypatch.setattr(rounding, "interleaved", None)
    assert main(["bench", "round", *TINY]) == 1
    printed = capsys.readouterr().err
    assert "a result is wrong, which is a bug: please report it: round bfloat16 nearest_even of [" in printed


def test_calls_take_turns_and_first_calls_do_not_count(monkeypatch):
    monkeypatch.setattr(measure, "SHORTEST_SAMPLE", 0.0)
    order = []
    calls = {"a": partial(order.append, "a"), "b": partial(order.append, "b")}
    found = interleaved(calls, 3)
    assert "".join(order) == "aabb" + 3 * "ab"
    assert set(found) == {"a", "b"}


def test_one_core_is_given_back():
    before = dict(os.environ), getattr(os, "sched_getaffinity", lambda _: None)(0)
    with one_core() as said:
        assert "core" in said
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert (dict(os.environ), getattr(os, "sched_getaffinity", lambda _: None)(0)) == before


def test_met_is_about_the_ratio_or_the_value():
    assert Row("b", "c", 1, 3.0, ratio=1.2, target=1.25).met is True
    assert Row("b", "c", 1, 3.0, ratio=1.3, target=1.25).met is False
    assert Row("b", "c", 1, 3.0, ratio=1.3, target=2.0, target_is_value=True).met is False
    assert Row("b", "c", 1, 3.0).met is None
    assert Row("b", "c", 1, None, target=1.0, skipped="why").met is None


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the table holds what was finished"),
        (MemoryError(), 1, "second failed: it needs more memory than there is; choose a smaller --size"),
        (TypeError("two\nlines"), 1, "second failed: TypeError: two lines"),
    ],
)
def test_what_is_finished_is_kept(error, code, says, tmp_path, capsys, monkeypatch):
    def fail(settings):
        raise error

    jobs = [Job("first", lambda settings: [Row("round", "mine", 8, 1.0, target=2.0, ratio=1.0)]), Job("second", fail)]
    monkeypatch.setattr(rounding, "jobs", lambda settings: jobs)
    file = tmp_path / "record.json"
    assert main(["bench", "round", "--json", str(file)]) == code
    printed = capsys.readouterr()
    assert says in printed.err
    assert "mine" in printed.out and "1 of 1 targets met" in printed.out
    record = json.loads(file.read_text())
    assert (record["finished"], [row["case"] for row in record["rows"]]) == (False, ["mine"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["rond"],
            "BENCH: 'rond' is unknown; "
            "admissible: round, arithmetic, matmul, adam, scan, reductions, peers, startup, store, "
            "network, all",
        ),
        (["--size", "x"], "--size: 'x' is no integer"),
        (["--size", "0"], "--size: 0 is outside 1..4294967296"),
        (["--size", "3^4"], "--size: '3^4' is no number and no power 2^k"),
        (["--size", "2^40"], "--size: '2^40' is no number and no power 2^k"),
        (["--repeats", "0"], "--repeats: 0 is outside 1..1000"),
        (["--repeats", "many"], "--repeats: 'many' is no integer"),
        (["--format", "bfloat17"], "--format: format 'bfloat17' is unknown; did you mean bfloat16"),
        (["--json", "absent/record.json"], "--json: 'absent' is no folder that can be written to"),
        (["--json", "."], "--json: '.' is a folder"),
        (["--json", os.devnull], f"--json: '{os.devnull}' is a device or a pipe, which would be replaced"),
        (["--json", "a" * 250], f"--json: '{'a' * 250}' cannot be written: File name too long"),
        (["--json"], "--json: expected one argument"),
    ],
)
def test_bad_input_is_one_line(words, says, capsys, monkeypatch):
    monkeypatch.setattr(bench, "_measure", None)
    assert main(["bench", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fpsim bench: error: " + says)
    assert printed.err.count("\n") == 1


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        record_file.write_file(tmp_path / "record.json", {})
    assert not list(tmp_path.iterdir())


def test_sizes():
    assert bench._sizes("2^3, 100,8") == (8, 100)


def test_help_needs_no_library():
    code = "import sys; from experiments.cli import main\ntry: main(['bench', '--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert "interleaved repeats" in " ".join(done.stdout.split())
    assert not {"numpy", "numba", "rich", "fpsim", "torch"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.slow
def test_scan_measures_rates_growth_and_the_whole(monkeypatch):
    monkeypatch.setattr(scan, "GROUPS", (("nearest_even", range(7, 8), 0.2), (Stochastic(16), range(8, 9), None)))
    monkeypatch.setattr(scan, "ROUNDINGS", ("nearest_even", Stochastic(16)))
    monkeypatch.setattr(scan, "WIDTHS", range(8))
    monkeypatch.setattr(scan, "_TIMED", 1)
    settings = Settings(sizes=(2,), repeats=1)
    rows = [row for job in scan.jobs(settings) for row in job.run(settings)]
    assert all(row.value > 0 for row in rows if not row.skipped)
    assert [row.case for row in rows if row.case.startswith("growth")][1:] == [
        f"growth: 8 x {what}" for what in ("formats", "lanes", "d", "steps")
    ]
    total = next(row for row in rows if row.case == "whole: CPU seconds")
    assert total.reference == "strips" and total.target in (scan.RATIO, scan.CPU_SECONDS)
    assert {row.case for row in rows if row.reference == "strips"} >= {"stochastic16 m 8..8 strips"}
    assert scan._total(2, scan._Found(), settings)[0].skipped == "a part of it failed"


@pytest.mark.slow
def test_scan_is_checked_before_it_is_timed(monkeypatch):
    monkeypatch.setattr(scan.exact_run, "run", lambda *given, **named: ({"w": np.ones((8, 2))}, {}))
    with pytest.raises(WrongResult, match="scan toward_zero m=0: w is not what the exact reader gives"):
        scan._check("toward_zero", 0)
    strips = scan._Strips("nearest_even", 7)
    strips.rows[3] += 1.0  # another problem
    with pytest.raises(WrongResult, match="strips nearest_even m=7: w is not what the machine gives"):
        strips.check()


def test_adam_beside_a_copy(monkeypatch):
    settings = Settings(("e8m4",), (700,), 1)
    (job,) = adam.jobs(settings)
    rows = job.run(settings)
    assert [row.case for row in rows] == ["copy of 56 bytes"] + [f"e8m4 {mode}" for mode, _ in adam.TARGETS]
    assert all(row.value > 0 and row.target is None for row in rows)
    monkeypatch.setattr(adam.exact_run, "run", lambda *given: ({"w": np.ones((64, 1))}, {}))
    with pytest.raises(WrongResult, match="adam e8m4 nearest_even: w is not what"):
        job.run(settings)
