"""What is said of the literature's questions is what the record shows, and the record is what the studies give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.cli import main
from experiments.questions import questions
from experiments.questions.question import Question

RECORD = Path(__file__).parents[2] / "experiments" / "records" / "questions.json"
OF_NETWORKS = ("accumulation", *(x for x in questions() if x.startswith("network_")))  # test_network_questions.py


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
@pytest.mark.parametrize("name", [x for x in questions() if x not in OF_NETWORKS])
def test_a_short_run_gives_rows_of_the_same_kind(name: str, record: dict[str, Any]) -> None:
    rows = questions()[name].run(True)
    assert rows
    assert all(row.keys() == record[name]["rows"][0].keys() for row in rows)


def test_bad_input_is_one_line_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("rows")
    for words, says in (
        (["nonsense"], "NAME: 'nonsense' is unknown; admissible: accumulation, components, "),
        (["--list", "--json", "a.json"], "--json has no meaning with --list; leave it out"),
        (["--json", str(tmp_path)], "--json: "),
        (["--json", str(tmp_path / "list.json")], "--json: "),
        (["--json", str(tmp_path / "text.json")], "--json: "),
    ):
        assert main(["questions", *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"fpsim questions: error: {says}")
        assert printed.err.count("\n") == 1


def test_questions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["questions", "--list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == [*questions()]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the questions "eps" and "rounding" do in place of their studies; "eps" gives a row and a finding at once."""
    told: dict[str, Any] = {"row": 1.5, "borne out": True, "rounding": KeyboardInterrupt()}

    def interrupted(quick: bool) -> list[dict[str, Any]]:
        raise told["rounding"]

    made = Question(
        "eps", "Why?", lambda quick: [{"x": told["row"], "many": [1, 2]}], lambda rows: f"x is {rows[0]['x']}.",
        lambda rows: [("x is small", told["borne out"])],
    )  # fmt: skip
    known = {"eps": made, "rounding": replace(made, name="rounding", run=interrupted)}
    monkeypatch.setattr("experiments.questions.questions", lambda: known)
    return told


def test_a_table_a_finding_and_a_record(
    fake: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "q.json"
    assert main(["questions", "eps", "--json", str(file)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("eps: Why?\n\nx\n1.5\n\nx is 1.5.\n\nrecord: ")
    assert printed.err == "fpsim questions: eps (1 of 1)\n"
    fake |= {"row": 2.5, "borne out": False}
    assert main(["questions", "eps"]) == 1
    assert "NOT BORNE OUT: x is small" in capsys.readouterr().out
    assert msgspec.json.decode(file.read_bytes())["questions"]["eps"]["rows"] == [{"x": 1.5, "many": [1, 2]}]


def test_what_stops_a_question_leaves_the_others(
    fake: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "q.json"
    assert main(["questions", "--json", str(file)]) == 130
    assert "fpsim questions: interrupted; 1 of 2 were answered" in capsys.readouterr().err
    fake |= {"row": 2.5, "rounding": ValueError("no such\nthing")}
    assert main(["questions", "rounding", "eps", "--json", str(file)]) == 1
    assert "fpsim questions: rounding failed: ValueError: no such thing\n" in capsys.readouterr().err
    kept = msgspec.json.decode(file.read_bytes())["questions"]
    assert kept == {"eps": {"question": "Why?", "finding": "x is 2.5.", "rows": [{"x": 2.5, "many": [1, 2]}]}}
