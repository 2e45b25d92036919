"""fpsim verify as a command: bad input, results of another version, interruption, listings and LaTeX."""

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from verify_runs import STUDY, run

from experiments import cell
from experiments.cli import main, verify
from experiments.study import Study
from experiments.verify import results
from theory.theorems import theorems

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--theorem", "T999"], "--theorem: theorem 'T999' is unknown; admissible: "),
        (["absent"], "there are no results in absent; name what --out of a fpsim scan was"),
        (["--check", "absent.json"], "--check: absent.json cannot be read"),
        (["--check", "text.json"], "--check: text.json is no JSON"),
        (["--check", "cut.json.gz"], "--check: cut.json.gz is no JSON"),
        (["--check", "list.json"], "--check: list.json is no certificate of fpsim verify"),
        (["--check", "newer.json"], "--check: newer.json is a certificate of layout 2; this version reads 1"),
        (["--check", "half.json"], "--check: half.json is a damaged certificate (versions, study"),
        (["--check", "text.json", "--latex"], "--check has no meaning with --latex; leave it out"),
        (["absent", "--check", "text.json"], "RESULTS has no meaning with --check; leave it out"),
        (["absent", "--latex"], "RESULTS has no meaning with --latex; leave it out"),
        (["--check", "text.json", "--theorem", "T6"], "--theorem has no meaning with --check; leave it out"),
        (["--latex", "--out", "absent/a.tex"], "--out: 'absent' is no folder that can be written to"),
        (["--processes", "0"], "--processes: 0 is outside 1..4096"),
        (["--seed", "1"], "--seed has no meaning without --random"),
        (["--json", "a.json"], "--json has no meaning without --random"),
        (["--list", "--latex"], "--latex has no meaning with --list; leave it out"),
        (["--random", "9", "--out", "a.json"], "--out has no meaning with --random; leave it out"),
        (["--random", "x"], "--random: 'x' is not a whole number; admissible: 1..1e9, such as 1e5"),
        (["--random", "0"], "--random: 0 is outside 1..1e9"),
        (["--random", "9", "--seed", "-1"], "--seed: -1 is outside 0.."),
        (["--random", "9", "--json", "absent/a.json"], "--json: 'absent' is no folder that can be written to"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("certificate")
    Path("list.json").write_text("[1]")
    Path("newer.json").write_text('{"certificate": 2}')
    Path("half.json").write_text('{"certificate": 1, "cells": [1]}')
    Path("cut.json.gz").write_bytes(gzip.compress(b"{}" * 100)[:-9])
    before = sorted(tmp_path.iterdir())
    assert main(["verify", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"fpsim verify: error: {says}")
    assert printed.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_results_of_another_version_say_how_to_make_them_anew(folder, capsys, monkeypatch):
    monkeypatch.setattr(results, "code_version", lambda: "0.2.0+other")
    assert run(folder) == 2
    printed = capsys.readouterr().err
    assert f"made by another version of the code ({cell.code_version()}; this is 0.2.0+other)" in printed
    assert "run the same fpsim scan command again" in printed
    assert printed.count("\n") == 1


def test_without_results_the_default_study_is_run_first(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []

    def scan(args):
        asked.append(args)
        Study(optimizer="sgd", mantissa=7, rounding="nearest_even", **STUDY).run(args.out, engine="serial")
        return 0

    monkeypatch.setattr("experiments.cli.scan.run", scan)
    for _ in range(2):
        assert run("--theorem", "T6") == 0
        assert "1 of 1 cells in fpsim-results/scan" in capsys.readouterr().out
    (args,) = asked
    assert args.out == verify.DEFAULT and not args.dry_run and args.mantissa is None
    assert verify.DEFAULT.joinpath("verify-T6.json").is_file()


@pytest.mark.slow
def test_interrupted_ends_in_one_line_and_writes_nothing(folder, tmp_path):
    out = tmp_path / "c.json"
    words = [sys.executable, "-m", "experiments.cli", "verify", str(folder), "--out", str(out), "--processes", "2"]
    process = subprocess.Popen(
        words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, stdout=-1, stderr=-1
    )
    assert process.stdout.readline().startswith("fpsim verify: 8 of 8 cells")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (130, "fpsim: interrupted\n")
    assert not out.exists()


@pytest.mark.parametrize("columns", [80, 100])
def test_theorems_are_listed(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["verify", "--list"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= columns
    joined = " ".join(printed.split())
    for x in theorems().values():
        assert f"{x.identifier} {x.tightness} {' '.join(x.title.split())} bounds: {x.quantity}; of: " in joined
        assert " ".join(x.source.split()) in joined
    assert main(["verify", "--list", "--theorem", "t6, x1,T6"]) == 0
    told = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line and line[0] in "TX"]
    assert told == ["T6", "X1"]


def test_latex_goes_to_a_file_or_to_stdout(tmp_path, capsys):
    assert run("--theorem", "T6", "--latex", "--out", tmp_path / "t6.tex") == 0
    assert capsys.readouterr().out == f"LaTeX: {tmp_path / 't6.tex'}\n"
    assert run("--theorem", "T6", "--latex") == 0
    assert capsys.readouterr().out == (tmp_path / "t6.tex").read_text()
    assert run("--latex") == 0
    assert capsys.readouterr().out.count(r"\section*") == len(theorems())
