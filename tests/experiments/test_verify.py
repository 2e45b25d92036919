"""fpsim verify: what it prints and writes, that a certificate is checked without the runs, and that tampering shows."""

import base64
import copy
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import cell, simulate, store
from experiments.cli import main, verify
from experiments.rows import floor_bound
from experiments.study import Study
from experiments.verify import certificate, check, results, summary
from experiments.verify.evaluate import entry_of
from fpsim.tracing import slot, step
from theory.record import unpack
from theory.theorems import theorem, theorems

ROOT = Path(__file__).parents[2]
STUDY = {"problem": "quadratic", "dimension": 6, "seeds": 4, "steps": 1500}
NAMES = "T5,T6"  # quickly checked


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The results of a small study: nearest and stochastic, two widths."""
    out = tmp_path_factory.mktemp("results")
    Study(optimizer="sgd,adam", mantissa="3,7", **STUDY).run(out, engine="serial")
    return out


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The certificate of two cells for two theorems, as an object."""
    out = tmp_path_factory.mktemp("two")
    Study(optimizer="sgd", mantissa=3, **STUDY).run(out, engine="serial")
    assert run(out, "--theorem", NAMES) == 0
    return certificate.read(out / "verify-T5-T6.json")


def run(*words):
    return main(["verify", "--processes", "1", *map(str, words)])


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


def test_a_certificate_is_checked_without_the_results(written, tmp_path, capsys):
    away = tmp_path / "away.json.gz"
    away.write_bytes(gzip.compress(json.dumps(written).encode()))
    assert run("--check", away) == 0
    printed = capsys.readouterr().out
    assert "compared to the last bit" in printed and "2 of 2 cells, 2 theorems" in printed
    assert "certificate: everything in it is as it says" in printed


@pytest.mark.slow
def test_processes_write_the_same_certificate_as_one(folder, tmp_path):
    for processes in (1, 2):
        assert run(folder, "--theorem", "T6", "--out", tmp_path / f"{processes}.json", "--processes", processes) == 0
    first, second = (certificate.read(tmp_path / f"{processes}.json") for processes in (1, 2))
    assert first | {"made": ""} == second | {"made": ""}
    assert run(folder, "--theorem", "T6", "--out", tmp_path / "c.json.gz", "--processes", 2) == 0
    assert (tmp_path / "c.json.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert run("--check", tmp_path / "c.json.gz", "--processes", 2) == 0


def sgd(found, number=0):
    """The entry of T6 of a cell that was rounded to nearest."""
    line = found["cells"][number]
    assert line["cell"]["rounding"] == "nearest_even"
    return line, next(entry for entry in line["results"] if entry["theorem"] == "T6")


def last_bit(text):
    return math.nextafter(float.fromhex(text), math.inf).hex()


def change_bound(found):
    bound = sgd(found)[1]["bound"]
    bound["upper"] = last_bit(bound["upper"])


def change_bound_of_a_seed(found):
    each = sgd(found)[1]["bound"]["per_seed"]
    each[2] = last_bit(each[2])


def change_measured(found):
    samples = sgd(found)[1]["measured"]["samples"]
    samples[1] = last_bit(samples[1])


def change_limit(found):
    sgd(found)[1]["measured"]["low"] = (0.0).hex()


def change_hypothesis(found):
    hypothesis = sgd(found)[1]["hypotheses"][-1]
    hypothesis["measured"] = hypothesis["measured"].replace("4 of 4", "3 of 4")


def change_whether_it_holds(found):
    sgd(found)[1]["hypotheses"][1]["holds"] = False


def drop_hypothesis(found):
    sgd(found)[1]["hypotheses"].pop(1)


def change_verdict(found):
    sgd(found)[1]["status"] = "undecided"


def change_ratio(found):
    entry = sgd(found)[1]
    entry["ratio"] = last_bit(entry["ratio"])


def change_window(found, repaired=True):
    line = sgd(found)[0]
    stored = line["record"]["window"]["end_gradient"]["$array"]
    data = bytearray(zlib.decompress(base64.b64decode(stored[2])))
    data[-1] ^= 0x20  # a high bit of an exponent
    stored[2] = base64.b64encode(zlib.compress(bytes(data))).decode()
    if repaired:
        line["record_digest"] = certificate.digest_of(line["record"])


def change_window_only(found):
    change_window(found, repaired=False)


def change_a_number_that_no_theorem_reads(found):
    sgd(found)[0]["record"]["window"]["first_step"] += 1


def break_window(found):
    sgd(found)[0]["record"]["window"]["w"] = {"$array": ["f8", [1], "?"]}


def change_configuration(found):
    sgd(found)[0]["cell"]["hyperparameters"]["lr"] *= 2


def change_digest(found):
    digest = found["theorems"]["T6"]["derivations"]
    found["theorems"]["T6"]["derivations"] = digest[:-1] + ("0" if digest[-1] != "0" else "1")


def call_it_a_comparison(found):
    found["theorems"]["T6"]["comparison"] = True


def rename_theorem(found):
    found["theorems"]["T66"] = found["theorems"].pop("T6")


def claim_that_it_was_known(found):
    found["theorems"]["T6"]["hypotheses"]["halted"] = "a priori"


def drop_entry(found):
    found["cells"][0]["results"].pop(1)


def repeat_entry(found):
    found["cells"][0]["results"].append(copy.deepcopy(found["cells"][0]["results"][0]))


def drop_cell(found):
    found["cells"].pop(0)


def repeat_cell(found):
    found["cells"].append(copy.deepcopy(found["cells"][0]))


def change_summary(found):
    found["summary"]["T6"]["all"]["holds"] += 1


def drop_theorem(found):
    found["selection"] = None


AGAIN = ", evaluated again it is "
TAMPERED = {
    change_bound: ["T6: bound.upper is 0x", AGAIN],
    change_bound_of_a_seed: ["T6: bound.per_seed[2] is 0x", AGAIN],
    change_measured: ["T6: measured.samples[1] is 0x", AGAIN],
    change_limit: ["T6: measured.low is 0x0.0p+0", AGAIN],
    change_hypothesis: ["T6: hypotheses[7] (halted).measured is 3 of 4 seeds", f"{AGAIN}4 of 4 seeds"],
    change_whether_it_holds: ["T6: hypotheses[1] (round to nearest in w.sub and w).holds is False"],
    drop_hypothesis: ["T6: hypotheses is "],
    change_verdict: ["T6: status is undecided, evaluated again it is holds"],
    change_ratio: ["T6: ratio is 0x", AGAIN],
    change_window: ["T6: ", "measured.samples[3] is 0x", AGAIN],
    change_window_only: ["the record of the window is not the one that was written", "T6: "],
    change_a_number_that_no_theorem_reads: ["the record of the window is not the one that was written"],
    break_window: ["the record of the window cannot be read (RecordError: fields w are unknown or missing)"],
    change_configuration: ["the configuration is not the one that the key names", "of another program"],
    change_digest: ["T6: derivations is ", AGAIN],
    call_it_a_comparison: ["T6: comparison is True, evaluated again it is False"],
    rename_theorem: ["T66: this version has no such theorem"],
    claim_that_it_was_known: ["T6: hypotheses.halted is a priori, evaluated again it is record"],
    drop_entry: ["T6: left out of the certificate"],
    repeat_entry: ["a theorem stands there twice"],
    drop_cell: ["left out of the certificate"],
    repeat_cell: ["twice, or no cell of the study"],
    change_summary: ["WRONG: summary.T6.all.holds is 2, evaluated again it is 1"],
    drop_theorem: ["T8: left out of the certificate"],
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_whatever_is_changed_is_found_and_named(tamper, written, tmp_path, capsys):
    changed = copy.deepcopy(written)
    tamper(changed)
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(changed))
    assert run("--check", file) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG: ")]
    if tamper not in (
        rename_theorem,
        drop_theorem,
        change_summary,
        change_digest,
        call_it_a_comparison,
        claim_that_it_was_known,
    ):
        assert all("cell" in line or "summary" in line for line in wrong)
        if tamper not in (drop_cell, repeat_cell):
            assert any("sgd quadratic nearest_even e8m3 (cell " in line for line in wrong)
    assert all(any(text in line for line in wrong) for text in TAMPERED[tamper]), wrong


def test_elsewhere_the_last_bits_may_differ_and_no_more(written, tmp_path, capsys):
    file = tmp_path / "elsewhere.json"
    for factor, code in ((1 + 2.0**-50, 0), (1 + 1e-7, 1)):
        changed = copy.deepcopy(written)
        changed["versions"]["numpy"] = "1.0"
        for line in changed["cells"]:
            for entry in line["results"]:
                if entry["bound"] is not None:
                    entry["bound"]["upper"] = (float.fromhex(entry["bound"]["upper"]) * factor).hex()
        file.write_text(json.dumps(changed))
        assert run("--check", file) == code
        assert "numbers to one part in 10^9" in capsys.readouterr().out


def test_a_derivation_that_does_not_check_is_reported(folder, tmp_path, capsys, monkeypatch):
    known = theorem("T6")
    first, *others = known.derivations
    weaker = replace(first, steps=(*first.steps[:-2], first.steps[-1]))
    monkeypatch.setitem(theorems(), "T6", replace(known, derivations=(weaker, *others)))
    assert run(folder, "--theorem", "T6", "--out", tmp_path / "c.json") == 1
    assert "WRONG: T6: a derivation does not check: T6, stop set, step" in capsys.readouterr().out


def with_bound(factor=1.0, **changed):
    """T8 with a bound that is wrong by a factor."""
    right = theorem("T8")
    fields = {name: changed.pop(name) for name in ("two_sided",) if name in changed}

    def evaluate(window):
        bound = right.evaluate(window)
        return replace(bound, lower=bound.lower * factor, upper=bound.upper * factor, **fields)

    return replace(right, identifier="T99", evaluate=evaluate, **changed)


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


def test_texts_are_alike_if_their_numbers_are_near():
    assert check.alike("a = 1.0000000000001, b", "a = 1, b")
    assert not check.alike("a = 1.0001, b", "a = 1, b")
    assert not check.alike("a = 1, b", "a = 1, c")
    assert not check.alike(1, 1.0)
