"""fpsim verify: what it prints and writes, also where a cell, a bound or a derivation is not as it should be."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from verify_runs import STUDY, run, with_bound

from experiments import simulate, store
from experiments.rows import floor_bound
from experiments.study import Study
from experiments.verify import certificate, results, summary
from experiments.verify.evaluate import entry_of
from fpsim.tracing import slot, step
from theory.record import unpack
from theory.theorems import theorem, theorems


def test_every_theorem_is_held_against_every_cell(folder, capsys):
    assert run(folder) == 0
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if str(folder) not in line) <= 130
    assert f"8 of 8 cells in {folder}, {len(theorems())} theorems" in printed
    for name in theorems():
        assert any(line.split()[:2] == [name, "all"] for line in printed.splitlines())
    assert "T6       4: one subtraction updates the only state w: adam" in printed
    found = certificate.read(folder / "verify.json")
    assert found["selection"] is None and found["absent"] == []
    assert list(found["theorems"]) == list(theorems())
    assert found["versions"] == store.versions()
    assert [line["key"] for line in found["cells"]] == found["keys"]
    for line in found["cells"]:
        assert [entry["theorem"] for entry in line["results"]] == list(theorems())
    assert sum(found["summary"]["T6"]["all"][status] for status in ("holds", "not applicable")) == 8


def test_an_entry_says_everything_that_a_verdict_rests_on(written):
    line = next(line for line in written["cells"] if line["cell"]["rounding"] == "nearest_even")
    assert line["cell"]["optimizer"] == "sgd"
    entry = next(entry for entry in line["results"] if entry["theorem"] == "T6")
    assert entry["status"] == "holds" and all(x["holds"] for x in entry["hypotheses"])
    halted = next(x for x in entry["hypotheses"] if x["name"] == "halted")
    assert halted["measured"].startswith("4 of 4 seeds")
    bound, measured = entry["bound"], entry["measured"]
    lower, upper = (float.fromhex(bound[end]) for end in ("lower", "upper"))
    assert 0 < lower <= upper <= lower * (1 + 1e-12)
    samples, each = ([float.fromhex(x) for x in values] for values in (measured["samples"], bound["per_seed"]))
    assert len(samples) == len(each) == 4 and all(x <= y for x, y in zip(samples, each, strict=True))
    assert float.fromhex(entry["ratio"]) == pytest.approx(upper / math.sqrt(np.mean(np.square(samples))))
    other = next(entry for entry in line["results"] if entry["theorem"] == "T5")
    assert (other["status"], other["bound"], other["measured"]) == ("not applicable", None, None)
    assert any(not x["holds"] for x in other["hypotheses"])
    origins = written["theorems"]["T6"]["hypotheses"]
    assert (origins["halted"], origins["deterministic"]) == ("record", "a priori")
    assert written["theorems"]["T6"]["derivations"] != written["theorems"]["T5"]["derivations"]


@pytest.mark.slow
def test_processes_write_the_same_certificate_as_one(folder, tmp_path):
    for processes in (1, 2):
        assert run(folder, "--theorem", "T6", "--out", tmp_path / f"{processes}.json", "--processes", processes) == 0
    first, second = (certificate.read(tmp_path / f"{processes}.json") for processes in (1, 2))
    assert first | {"made": ""} == second | {"made": ""}
    assert run(folder, "--theorem", "T6", "--out", tmp_path / "c.json.gz", "--processes", 2) == 0
    assert (tmp_path / "c.json.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert run("--check", tmp_path / "c.json.gz", "--processes", 2) == 0


def test_a_derivation_that_does_not_check_is_reported(folder, tmp_path, capsys, monkeypatch):
    known = theorem("T6")
    first, *others = known.derivations
    weaker = replace(first, steps=(*first.steps[:-2], first.steps[-1]))
    monkeypatch.setitem(theorems(), "T6", replace(known, derivations=(weaker, *others)))
    assert run(folder, "--theorem", "T6", "--out", tmp_path / "c.json") == 1
    assert "WRONG: T6: a derivation does not check: T6, stop set, step" in capsys.readouterr().out


def raises(window):
    raise ZeroDivisionError("by\nzero")


@pytest.mark.parametrize(
    ("made", "says", "code"),
    [
        (lambda: with_bound(0.5), "VIOLATED (2):", 1),
        (lambda: with_bound(0.5, comparison=True), "bounds of the literature, for comparison:", 0),
        (lambda: with_bound(0.5, two_sided=True, tightness="law"), "MISSED (2):", 1),
        (lambda: replace(theorem("T8"), identifier="T99", evaluate=raises), "ZeroDivisionError: by zero", 1),
    ],
)
def test_what_fails_fails_the_command(made, says, code, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(theorems(), "T99", made())
    file = tmp_path / "c.json"
    for words in ((folder, "--theorem", "T99", "--out", file), ("--check", file)):
        assert run(*words) == code
        printed = capsys.readouterr()
        assert says in printed.out
        assert ("which is a bug: please report it" in printed.err) == bool(code)


def test_a_study_of_which_cells_are_missing_is_verified_as_far_as_it_goes(tmp_path, capsys):
    study = Study(optimizer="sgd", mantissa="3,7", rounding="nearest_even", **STUDY)
    study.run(tmp_path, engine="serial")
    first, second = (tmp_path / "cells" / f"{x.key}.parquet" for x in study.cells())
    first.unlink()
    assert run(tmp_path, "--theorem", "T6") == 0
    assert "1 of 2 cells" in capsys.readouterr().out
    assert certificate.read(tmp_path / "verify-T6.json")["absent"] == [first.stem]
    assert run("--check", tmp_path / "verify-T6.json") == 0
    second.write_bytes(b"PAR1 broken")
    assert run(tmp_path) == 2
    assert "no cell of the study in" in capsys.readouterr().err


def test_a_program_that_is_not_here_is_named_and_left_out(tmp_path, capsys):
    @step
    def mine(w, g, *, lr=2.0**-4):
        return {"w": slot("w.sub", w - slot("update.scale", lr * g))}

    study = STUDY | {"mantissa": "7", "rounding": "nearest_even"}
    Study(optimizer=[mine, "sgd"], **study).run(tmp_path, engine="serial")
    assert run(tmp_path, "--theorem", "T6") == 0
    complaint = capsys.readouterr().err
    assert complaint.startswith("fpsim verify: a cell cannot be verified here: mine quadratic (")
    assert complaint.count("\n") == 1
    found = certificate.read(tmp_path / "verify-T6.json")
    assert len(found["absent"]) == len(found["cells"]) == 1
    Study(optimizer=[mine], **study).run(tmp_path, engine="serial")
    assert run(tmp_path) == 2
    assert "no cell in" in capsys.readouterr().err


def test_the_records_of_a_scan_are_the_windows_of_the_runs(folder):
    """What is verified later is what was there when the row was made."""
    for row in store.read_rows(folder):
        configured, record = results.read_cell(folder, row["key"])
        window = unpack(record, *results.rebuilt(configured))
        found = floor_bound(window)
        entry = entry_of(found[0], window)
        assert (entry["theorem"], entry["status"]) == (row["theorem"], row["verdict"])
        if row["bound"] is not None:
            assert float.fromhex(entry["bound"]["upper"]) == row["bound"]


def test_the_smallest_bound_that_applies_stands_in_a_row(monkeypatch):
    (configured,) = Study(optimizer="sgd", mantissa=7, rounding="stochastic", **STUDY).cells()
    (window,) = simulate.windows([configured])
    assert floor_bound(window)[0].identifier == "T8"
    better, literature = with_bound(0.9), replace(with_bound(0.5, comparison=True), identifier="X9")
    monkeypatch.setitem(theorems(), "T99", better)
    monkeypatch.setitem(theorems(), "X9", literature)
    assert floor_bound(window)[0] is better
    (row,) = simulate.run_batch([configured])
    assert row["theorem"] == "T99"


def test_summaries_count_groups_of_formats():
    rows = [
        {"theorem": "T6", "status": status, "ratio": ratio, "mantissa_bits": bits}
        for bits, status, ratio in (
            (3, "holds", 2.0),
            (7, "holds", 1.0),
            (7, "undecided", 0.5),
            (52, "not applicable", math.nan),
        )
    ]
    found = summary.summarize(rows)["T6"]
    assert list(found) == ["all", "m<=3", "m=4..7", "m>=24"]
    assert found["all"] == Counter(holds=2, undecided=1) | {"not applicable": 1} | {
        "p05": (0.5).hex(), "median": (1.0).hex(), "p95": (2.0).hex(), "worst": (2.0).hex(),
    }  # fmt: skip
    assert found["m>=24"] == {"not applicable": 1}
