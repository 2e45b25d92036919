"""The command line as its users meet it: help, errors of one line, resuming, interruption."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_simulate
import pytest
from tiers import slow_but

from experiments import store
from experiments.cli import VERBS, main
from experiments.cli.scan_table import by_reason, shown_widths, stops_at
from fpsim import formats

ROOT = Path(__file__).parents[2]
SMALL = [
    "scan",
    "--optimizer",
    "sgd,adam",
    "--problem",
    "quadratic",
    "--mantissa",
    "2..4",
    "--seeds",
    "2",
    "--steps",
    "10",
]


def test_options_and_overrides_are_flags_too(capsys):
    words = ["--optimizer", "sgd", "--problem", "quadratic", "--option", "size=0.5", "--option", "spectrum=isotropic"]
    words += ["--override", "g,w.*=e5m10 stochastic", "--mantissa", "7", "--rounding", "up", "--steps", "3"]
    assert main(["scan", "--dry-run", *words]) == 0
    printed = capsys.readouterr().out
    assert "options: size = 0.5; spectrum = isotropic" in printed
    assert "overrides: g=e5m10 stochastic w.*=e5m10 stochastic" in printed


@pytest.fixture
def no_figure(monkeypatch):
    """Leave the figure out where it is not the point: it takes a second."""
    monkeypatch.setattr("paper_figures.floors.build", lambda rows, out: [])


def fake_command(*words):
    return [sys.executable, str(Path(fake_simulate.__file__)), *words]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mantissa", "60"], "--mantissa: 60 is outside 0..52"),
        (["--mantissa", "5..2"], "--mantissa: the range 5..2 is empty"),
        (["--exponent", "1"], "--exponent: 1 is outside 2..11"),
        (["--lr", "-1"], "--lr: -1 is outside (0, inf)"),
        (["--beta2", "1"], "--beta2: 1 is outside [0, 1)"),
        (["--optimizer", "adamw"], "--optimizer: 'adamw' is unknown (close: adam); admissible: sgd, rmsprop, adam"),
        (["--problem", "x"], "--problem: 'x' is unknown; admissible: quadratic, rational, logistic"),
        (["--rounding", "x"], "--rounding: 'x' is unknown; admissible: nearest_even"),
        (["--seeds", "0"], "--seeds: 0 is outside 1..65536"),
        (["--steps", "0"], "--steps: 0 is outside 1..1000000000"),
        (["--workers", "0"], "--workers: 0 is outside 1..4096"),
        (["--engine", "ray"], "--engine: 'ray' is unknown; admissible: serial, threads, processes, dask"),
        (["--scheduler", "tcp://h:1"], "--scheduler: 'tcp://h:1' needs --engine dask"),
        (["--noise", "minibatch", "--batch", "4"], "--noise: 'minibatch' needs a problem with data"),
        (["--random-bits", "0"], "--random-bits: 0 is outside 1..32"),
        (["--study", "absent.toml"], "--study: absent.toml cannot be read"),
        (["--seeds"], "--seeds: expected one argument"),
        (["--lr", "0.1,2*x"], "--lr: '2*x', at character 3: 'x' is unknown"),
        (["--set", "rho"], "--set: 'rho' is not NAME=X"),
        (["--set", "=1"], "--set: '=1' is not NAME=X"),
        (["--set", "eps=0", "--set", "eps=1"], "--set: eps is given 2 times; give it once, as eps=X,Y"),
        (["--set", "rho=0.5"], "--set rho: 0.5 is used by no cell"),
        (["--set", "beta2=1"], "--set beta2: 1 is outside [0, 1)"),
        (["--option", "rows"], "--option: 'rows' is not NAME=X"),
        (["--override", "w=e5m10", "--override", "v,w=e5m10"], "--override: w is given 2 times; give it once"),
        (["--override", "v=e99"], "--override v: "),
        (["--out", ""], "--out: '' is no folder; name one"),
        (["--man", "3"], "unrecognized arguments: --man 3"),
    ],
)
def test_bad_input_is_one_line_and_touches_nothing(words, says, tmp_path, capsys, fakes):
    out = tmp_path / "out"
    assert main(["scan", "--out", str(out), *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fpsim scan: error: " + says)
    assert printed.err.count("\n") == 1
    assert not out.exists()


def test_bad_input_leaves_earlier_results_untouched(tmp_path, capsys, fakes, no_figure):
    assert main([*SMALL, "--out", str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([*SMALL, "--out", str(tmp_path), "--mantissa", "60"]) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_unwritable_folder_is_found_before_any_work(tmp_path, capsys, fakes, monkeypatch):
    monkeypatch.setattr(sys.modules["experiments.simulate"], "run_batch", None)
    (tmp_path / "file").write_text("mine")
    assert main([*SMALL, "--out", str(tmp_path / "file" / "out")]) == 2
    printed = capsys.readouterr()
    assert "--out: " in printed.err
    assert "cannot be written" in printed.err
    assert printed.err.count("\n") == 1


def test_study_file_and_flags(tmp_path, capsys, fakes):
    study = tmp_path / "study.toml"
    study.write_text('optimizer = "sgd"\nmantissa = "2,60"\n')
    assert main(["scan", "--study", str(study), "--dry-run"]) == 2
    assert f"{study}: mantissa: 60 is outside 0..52" in capsys.readouterr().err
    assert main(["scan", "--study", str(study), "--mantissa", "2", "--dry-run"]) == 0  # flags win
    assert "6 cells" in capsys.readouterr().out


def test_scan_prints_a_table_that_fits_and_says_where_results_are(tmp_path, capsys, fakes):
    assert main(["scan", "--out", str(tmp_path / "new" / "out")]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100
    assert sum(line.startswith("sgd        quadratic  nearest") for line in lines) == 1
    assert "  rmsprop quadratic nearest_even m=1..4 T12: stored 1 - beta2 is 0" in lines
    assert "  rmsprop, adam e8m1..8: scalar.beta2 = 0.999 becomes 1" in lines
    for name in ("scan.parquet", "floors.pdf", "floors.png"):
        assert (tmp_path / "new" / "out" / name).is_file()
        assert name in printed
    assert len(store.read_rows(tmp_path / "new" / "out")) == 414


def test_a_second_run_computes_only_what_is_missing(tmp_path, capsys, fakes, no_figure, monkeypatch):
    assert main([*SMALL, "--out", str(tmp_path)]) == 0
    before = store.read_rows(tmp_path)
    capsys.readouterr()
    gone, damaged = sorted((tmp_path / "cells").iterdir())[:2]
    gone.unlink()
    damaged.write_bytes(b"PAR1 broken")
    computed = []

    def run_batch(cells, report, cancelled):
        computed.extend(cell.key for cell in cells)
        return fake_simulate.run_batch(cells, report, cancelled)

    monkeypatch.setattr(sys.modules["experiments.simulate"], "run_batch", run_batch)
    assert main([*SMALL, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert sorted(computed) == sorted([gone.stem, damaged.stem])
    assert f"{damaged} is damaged and its cell is computed again" in printed.err
    assert "resuming: 10 of 12 cells are finished" in printed.out
    assert store.read_rows(tmp_path) == before


def test_failing_cells_are_rows_and_the_exit_code_says_so(tmp_path, capsys, fakes, no_figure, monkeypatch):
    simulate = sys.modules["experiments.simulate"]
    monkeypatch.setattr(simulate, "run_batch", fake_simulate.run_batch_with_bad_cell)
    assert main([*SMALL, "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "4 cells failed; the same command tries only them again" in printed.err
    assert "  adam quadratic stochastic m=3: FloatingPointError: three bits are too few" in printed.out.splitlines()
    rows = store.read_rows(tmp_path)
    assert [row["mantissa_bits"] for row in rows if row["outcome"] == "failed"] == [3] * 4
    monkeypatch.setattr(simulate, "run_batch", fake_simulate.run_batch)
    assert main([*SMALL, "--out", str(tmp_path)]) == 0
    assert all(row["outcome"] != "failed" for row in store.read_rows(tmp_path))


def test_a_violated_bound_is_an_error(tmp_path, capsys, fakes, no_figure, monkeypatch):
    def run_batch(cells, report, cancelled):
        return [fake_simulate.row(cell) | {"verdict": "violated", "reason": "beyond"} for cell in cells]

    monkeypatch.setattr(sys.modules["experiments.simulate"], "run_batch", run_batch)
    assert main([*SMALL, "--out", str(tmp_path)]) == 1
    assert "12 cells violate a proven bound" in capsys.readouterr().err


def test_a_full_disk_ends_with_one_line(tmp_path, capsys, fakes, no_figure, monkeypatch):
    def full(*_):
        raise store.StoreError("KEY.parquet cannot be written (No space left on device)")

    monkeypatch.setattr(store, "write_whole", full)
    assert main([*SMALL, "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "stopped: KEY.parquet cannot be written (No space left on device); finished cells are kept" in printed


def test_dry_run_does_nothing(tmp_path, capsys, fakes):
    out = tmp_path / "out"
    assert main([*SMALL, "--out", str(out), "--workers", "1", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "to run: 12 of 12 cells" in printed
    assert "sgd quadratic stochastic: e8m2..4" in printed
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "number"),
    slow_but(
        [("threads", signal.SIGINT), ("threads", signal.SIGTERM), ("serial", signal.SIGINT)], ("threads", signal.SIGINT)
    ),
)
def test_an_interrupted_scan_leaves_a_readable_partial_result(tmp_path, fakes, no_figure, name, number):
    out = tmp_path / "out"
    words = [*SMALL, "--mantissa", "1..12", "--out", str(out), "--engine", name, "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), fake_simulate.DELAY: "0.1"}
    process = subprocess.Popen(fake_command(*words), env=environment, text=True, stdout=-1, stderr=-1)
    deadline = time.monotonic() + 30
    while not list(out.glob("cells/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    printed, complaint = process.communicate(timeout=30)
    assert process.returncode == 128 + number, complaint
    rows = store.read_rows(out)
    assert 0 < len(rows) < 48
    assert f"interrupted; {len(rows)} of 48 cells are finished and kept in {out}" in complaint
    assert "Traceback" not in complaint
    assert f"{out / 'scan.parquet'} ({len(rows)} of 48 cells" in printed
    facts = store.read_facts(out / "scan.parquet")
    assert (facts["cells"], facts["finished"]) == (48, len(rows))
    assert main([*words[:-4], "--engine", "serial"]) == 0
    assert len(store.read_rows(out)) == 48


def test_help_is_quick_and_lists_what_there_is():
    code = "import sys; from experiments.cli import main; main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=False)
    assert all(verb in done.stdout for verb in VERBS)
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "experiments.cli", "--help"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    for heavy in ("numpy", "numba", "polars", "rich", "matplotlib", "fpsim", "msgspec"):
        assert f"| {heavy}\n" not in shown.stderr
    for verb in VERBS:
        assert (ROOT / "experiments" / "cli" / f"{verb}.py").is_file()


@pytest.mark.parametrize("words", [["scan", "--help"], ["formats", "--help"], ["--version"], []])
def test_help_and_version_end_well(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out


def test_unknown_verb(capsys):
    assert main(["scann"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_formats(capsys):
    assert main(["formats"]) == 0
    assert "bfloat16" in capsys.readouterr().out
    assert main(["formats", "float8_e4m3fn"]) == 0
    printed = capsys.readouterr().out
    assert "448" in printed
    assert "0.001953125 = 2^-9 (subnormal)" in printed
    for wrong, says in (("bfloat17", "did you mean bfloat16"), ("e8m60", "60 is outside")):
        assert main(["formats", wrong]) == 2
        printed = capsys.readouterr()
        assert says in printed.err
        assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "count"),
    # By hand: all codes, less infinities and NaNs, less one of two zeros.
    [
        ("float8_e4m3fn", 253),
        ("float8_e5m2", 247),
        ("float8_e4m3fnuz", 255),
        ("float4_e2m1fn", 15),
        ("binary16", 63487),
    ],
)
def test_number_of_values(name, count):
    assert formats.format(name).count == count


@pytest.mark.parametrize(
    ("floors", "answer"),
    [
        ({1: 8.0, 2: 1.9, 3: 1.0}, "2"),
        ({1: 1.0, 2: 5.0, 3: 1.0}, ">3"),
        ({1: 1.5, 2: 1.5, 3: 1.0}, "1"),
        ({1: 4.0, 2: None, 3: 1.0}, ">3"),
        ({1: 4.0, 2: 1.0, 3: None}, "-"),
        ({7: 1.0}, "7"),
    ],
)
def test_where_an_optimizer_stops_improving(floors, answer):
    assert stops_at([{"mantissa_bits": m, "rms_gradient": floor} for m, floor in floors.items()]) == answer


def test_columns_of_the_table():
    assert shown_widths(set(range(1, 24))) == [3, 7, 10, 23]
    assert shown_widths({2, 4}) == [2, 4]
    assert shown_widths({30, 31, 32, 33, 34}) == [30, 31, 33, 34]


def test_reasons_are_grouped_over_widths():
    base = {
        "seeds_needed": None,
        "optimizer": "sgd",
        "problem": "quadratic",
        "rounding": "up",
        "exponent_bits": 8,
        "theorem": "T6",
    }
    rows = [base | {"mantissa_bits": m, "reason": f"alpha L u = {0.1 / m:.3g} is too large"} for m in (1, 2, 3, 7)]
    assert by_reason(rows) == ["sgd quadratic up m=1..3,7 T6: alpha L u = 0.1 is too large (at m=1)"]


def test_a_minibatch_larger_than_the_data_is_found_before_any_work(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["scan", "--problem", "logistic", "--optimizer", "adam", "--batch", "570", "--out", str(out)]) == 2
    assert capsys.readouterr().err == "fpsim scan: error: --batch: 570 is outside 1..569, the samples of logistic\n"
    assert not out.exists()


def test_a_study_file_does_not_say_where_or_how(tmp_path, capsys, fakes):
    study = tmp_path / "study.toml"
    study.write_text('engine = "serial"\n')
    assert main(["scan", "--study", str(study)]) == 2
    assert f"--study: {study}: 'engine' is no part of a study; give the flag --engine" in capsys.readouterr().err


def test_a_number_too_large_for_a_float_is_one_line(tmp_path, capsys, fakes):
    study = tmp_path / "study.toml"
    study.write_text(f"lr = 1{'0' * 400}\n")
    assert main(["scan", "--study", str(study)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "admissible: (0, inf)" in printed


def test_a_folder_in_the_place_of_the_table_is_found_before_any_work(tmp_path, capsys, fakes, monkeypatch):
    monkeypatch.setattr(sys.modules["experiments.simulate"], "run_batch", None)
    (tmp_path / "scan.parquet").mkdir()
    assert main([*SMALL, "--out", str(tmp_path)]) == 2
    assert "scan.parquet is a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "scan.parquet"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["formats"], ["scan", "--dry-run"]])
def test_output_that_cannot_be_written_is_one_line(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(fake_command(*words), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "fpsim: stopped: [Errno 28] No space left on device\n"


def test_help_fits_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["scan", "--help"])
    usage, _, _ = capsys.readouterr().out.partition("\n\n")
    assert max(map(len, usage.splitlines())) <= 60


def test_a_grid_prints_what_sets_its_rows_apart(tmp_path, capsys):
    """With the real simulation: variants in the table, figures of each, and an error in a table of a study file."""
    study = tmp_path / "study.toml"
    lines = ['optimizer = "sgd"', 'problem = "quadratic"', 'rounding = "nearest_even"', 'lr = [0.0625, "0.5/sqrt(t)"]']
    study.write_text("\n".join([*lines, "seeds = 2", "steps = 300", 'mantissa = "3,6"', "[options]", "condition = 4"]))
    words = ["scan", "--study", str(study), "--out", str(tmp_path / "out"), "--workers", "2"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "lr=0.5 / sqrt(t)" in printed and "lr=0.0625" in printed and "options: condition = 4" in printed
    assert "0.0625, 0.5 / sqrt(t)" in printed  # the header
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"floors_1.png", "floors_2.png"}
    assert main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "to run: 0 of 4 cells (4 are finished" in printed
    assert main([*words, "--dry-run", "--seeds", "3"]) == 0
    assert re.search(r"expected: [\d.e+-]+ CPU-seconds, .* of arrays at a time", capsys.readouterr().out)
    study.write_text('optimizer = "sgd"\n[hyperparameters]\nlr = "sqr(t)"\n')
    assert main(["scan", "--study", str(study), "--dry-run"]) == 2
    assert f"error: {study}: hyperparameters.lr: 'sqr(t)', at character 1: 'sqr' is unknown" in capsys.readouterr().err
