"""The comparison with a card, without one: a card that is the model agrees, one that is not is reported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but

import fpsim
from experiments.tensor_core import __main__ as command
from experiments.tensor_core import card
from experiments.tensor_core.cases import KINDS, SIZE, cases
from experiments.tensor_core.compare import compared, lines, model, settled
from experiments.tensor_core.rows import ROWS, Row


def other_fraction(step: int) -> Any:
    def wrong(row: Row, a: Any, b: Any) -> Any:
        core = dataclasses.replace(row.model("exponent"), fraction=row.model("exponent").fraction + step)
        return np.asarray(fpsim.matmul(a, b, core, dtype="float64"))

    return wrong


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_cases_are_numbers_of_both_operands(row: Row) -> None:
    for kind in KINDS:
        a, b = cases(row, kind, 1)
        terms = row.model("exponent").terms * (2 if kind.startswith("chained") else 1)
        assert a.shape == (SIZE, terms) and b.shape == (terms, SIZE) and terms <= card.PADDED
        assert np.array_equal(fpsim.round(a, row.operand), a, equal_nan=True)
        assert np.array_equal(fpsim.round(b, row.second), b, equal_nan=True)


@pytest.mark.parametrize("reading", ["exponent", "dropped"])
@pytest.mark.parametrize("kinds", slow_but(["tiny large", " ".join(KINDS[:-1])], "tiny large"), ids=len)
def test_a_card_that_is_the_model_agrees_with_the_reading_it_has(kinds: str, reading: str) -> None:
    records = compared(lambda row, a, b: model(row, a, b, reading), kinds=kinds.split())
    assert all(record["differ"][reading] == 0 for record in records)
    both = {row.name for row in ROWS if row.operand.startswith("float8")} | {"binary16 -> binary32"}
    for name, what in settled(records).items():
        one = f"agrees with zero_c={reading}"
        assert what == ("agrees with zero_c=exponent and dropped" if name in both else one), name


@pytest.mark.parametrize("step", [-1, 1])
def test_a_card_that_keeps_another_number_of_bits_is_reported(step: int) -> None:
    records = compared(other_fraction(step), kinds=("cut", "carried", "cancelled"))
    assert set(settled(records).values()) == {"differs from both readings"}
    text = "\n".join(lines(records))
    assert "    a = [" in text and "card " in text
    first = next(record for record in records if record["differ"]["exponent"])
    a = np.array([float.fromhex(x) for x in first["examples"][0]["a"]])
    b = np.array([float.fromhex(x) for x in first["examples"][0]["b"]])
    ours = model(ROWS[0], a[np.newaxis], b[:, np.newaxis])[0, 0]
    assert float(ours).hex() == first["examples"][0]["exponent"] != first["examples"][0]["card"]


def test_zero_signs_and_overflow_are_seen() -> None:
    def without_infinities(row: Row, a: Any, b: Any) -> Any:
        return np.clip(model(row, a, b), -fpsim.format(row.output).max, fpsim.format(row.output).max)

    def minus_zero(row: Row, a: Any, b: Any) -> Any:
        y = model(row, a, b)
        return np.where(y == 0.0, -0.0, y)

    half = ROWS[1]
    (record,) = compared(without_infinities, [half], ["large"])
    assert record["differ"]["exponent"] > 100
    (record,) = compared(minus_zero, [half], ["zeros"])
    assert record["differ"]["exponent"] > 100


def test_chained_kinds_settle_nothing_and_a_refusal_is_named() -> None:
    def one_order(row: Row, a: Any, b: Any) -> Any:
        terms = row.model("exponent").terms
        if row.operand == "tf32":
            raise RuntimeError("no such kernel\nand more")
        if a.shape[1] == terms:
            return model(row, a, b)
        return model(row, np.roll(a, terms, axis=1), np.roll(b, terms, axis=0))

    records = compared(one_order, ROWS[:4], ("random", "chained", "chained cut"))
    assert any(r["kind"] == "chained cut" and r["differ"]["exponent"] for r in records if "error" not in r)
    found = settled(records)
    assert found.pop("tf32 -> binary32") == "not computed"
    assert set(found.values()) == {"agrees with zero_c=exponent and dropped"}
    assert any("not computed: no such kernel" in line for line in lines(records))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_one_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1 and "CUDA" in printed.err


def test_the_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(card, "facts", lambda: {"card": "a card", "torch": "2", "cuda": "13"})
    monkeypatch.setattr(card, "product", model)
    monkeypatch.setattr(command, "compared", lambda card, seed: compared(card, ROWS[3:], KINDS[1:3], seed))
    assert command.main(["--json", str(tmp_path / "record.json")]) == 0
    text = capsys.readouterr().out
    assert "a card, torch 2" in text and "the library's own" in text and "mma.sync" in text
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["card"] == "a card" and len(record["records"]) == 8
    monkeypatch.setattr(card, "product", other_fraction(-1))
    assert command.main([]) == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_card_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0, capsys.readouterr().out
