"""What is said of the literature's questions is what the record shows, and the record is what the studies give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.questions import questions
from experiments.questions.__main__ import main

RECORD = Path(__file__).parents[2] / "experiments" / "records" / "questions.json"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return msgspec.json.decode(RECORD.read_bytes())["questions"]


@pytest.mark.parametrize("name", questions())
def test_the_record_bears_out_what_is_said(name: str, record: dict[str, Any]) -> None:
    question, rows = questions()[name], record[name]["rows"]
    assert question.name == name
    assert question.finding(rows) == record[name]["finding"]
    claims = question.claims(rows)
    assert claims
    assert [text for text, true in claims if not true] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", questions())
def test_a_short_run_gives_rows_of_the_same_kind(name: str, record: dict[str, Any]) -> None:
    rows = questions()[name].run(True)
    assert rows
    assert all(row.keys() == record[name]["rows"][0].keys() for row in rows)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])
    assert "admissible: " in capsys.readouterr().err
