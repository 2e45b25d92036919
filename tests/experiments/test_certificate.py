"""The certificate of fpsim verify is checked without the runs, and whatever is changed in it shows."""

import base64
import copy
import gzip
import json
import math
import zlib

import pytest
from verify_runs import run

from experiments.verify import certificate, check


def test_a_certificate_is_checked_without_the_results(written, tmp_path, capsys):
    away = tmp_path / "away.json.gz"
    away.write_bytes(gzip.compress(json.dumps(written).encode()))
    assert run("--check", away) == 0
    printed = capsys.readouterr().out
    assert "compared to the last bit" in printed and "2 of 2 cells, 2 theorems" in printed
    assert "certificate: everything in it is as it says" in printed


def sgd(found):
    """The entry of T6 of a cell that was rounded to nearest."""
    line = found["cells"][0]
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


def test_texts_are_alike_if_their_numbers_are_near():
    assert check.alike("a = 1.0000000000001, b", "a = 1, b")
    assert not check.alike("a = 1.0001, b", "a = 1, b")
    assert not check.alike("a = 1, b", "a = 1, c")
    assert not check.alike(1, 1.0)
