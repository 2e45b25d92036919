"""``fpsim figures``: errors in one line, damaged or foreign results are not drawn, runs may be refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from experiments.cli import INTERRUPTED, main
from paper_figures import gallery, results, tables
from paper_figures.gallery import number_lines

SMALL = {"points": 8}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The gallery with one figure, computed from a few points; its parts can be replaced."""

    def use(**parts: Any) -> None:
        parameters = {"quick": SMALL, "full": {"points": 16}}
        claims = {"claims": lambda data: [("there is a curve", bool(data["worst"]))]}  # so few points bear out no more
        figure = replace(number_lines.FIGURE, **{"parameters": parameters} | claims | parts)
        monkeypatch.setattr(gallery, "figures", lambda: {"number_lines": figure})
        monkeypatch.setattr(tables, "tables", dict)

    use()
    return use


def called(out: Path, *words: str) -> int:
    return main(["figures", "build", *(words or ("number_lines",)), "--out", str(out), "--format", "svg"])


def drawn(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*.*")) if out.exists() else []


def test_the_list_names_figures_styles_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", "list"]) == 0
    said = capsys.readouterr().out
    assert all(figure.title in said and figure.full_cost in said for figure in gallery.figures().values())
    assert "styles: neurips, iclr, icml, jmlr, siam, thesis" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["number_line"], "NAME: 'number_line' is unknown; admissible: all, number_lines"),
        (["number_lines", "--style", "nature"], "--style: 'nature' is unknown; admissible: neurips, iclr, icml"),
        (["number_lines", "--format", "pdf,jpg"], "--format: 'jpg' is unknown; admissible: pdf, png, svg, pgf"),
        (["number_lines", "--format", ""], "--format: '' is unknown"),
        ([], "build needs a NAME; admissible: all, number_lines"),
    ],
)
@pytest.mark.usefixtures("small")
def test_what_is_unknown(words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", "build", *words, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert drawn(tmp_path / "out") == []


@pytest.mark.usefixtures("small")
def test_results_are_kept_and_no_run_needs_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(tmp_path, "number_lines", "--no-run") == 1
    assert "number_lines: no results of profile quick" in capsys.readouterr().err
    assert drawn(tmp_path) == []
    assert called(tmp_path) == 0
    first = {name: (tmp_path / name).read_bytes() for name in drawn(tmp_path)}
    assert sorted(first) == ["number_lines.json", "number_lines.svg", "number_lines.txt"]
    assert called(tmp_path, "all", "--no-run") == 0
    assert {name: (tmp_path / name).read_bytes() for name in drawn(tmp_path)} == first
    assert called(tmp_path, "number_lines", "--no-run", "--profile", "full") == 1


def test_results_of_other_code_are_computed_anew(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(tmp_path) == 0
    monkeypatch.setattr(results, "code_version", lambda: "0.1.0+other")
    assert called(tmp_path, "number_lines", "--no-run") == 1
    assert called(tmp_path) == 0
    assert json.loads((tmp_path / "number_lines.json").read_text())["code"] == "0.1.0+other"


def test_results_of_other_parameters_are_computed_anew(small: Any, tmp_path: Path) -> None:
    assert called(tmp_path) == 0
    small(parameters={"quick": {"points": 4}, "full": {"points": 4}})
    assert called(tmp_path, "number_lines", "--no-run") == 1
    assert called(tmp_path) == 0
    assert json.loads((tmp_path / "number_lines.json").read_text())["parameters"] == {"points": 4}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda found: b"{", "is damaged"),
        (lambda found: b"\xff\xfe", "is damaged"),
        (lambda found: b"[1, 2]", "is no results file of a figure"),
        (lambda found: b'{"optimizer": "adam"}', "is no results file of a figure"),
        (lambda found: found.replace(b'"number_lines"', b'"floors"'), "holds results of 'floors', not of"),
        (lambda found: found.replace(b"0.5", b"0.25", 1), "its data have another digest"),
    ],
)
@pytest.mark.usefixtures("small")
def test_a_damaged_or_foreign_file_is_named_and_not_drawn(
    damage: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(tmp_path) == 0
    path = tmp_path / "data" / "number_lines_quick.json"
    path.write_bytes(damage(path.read_bytes()))
    for name in drawn(tmp_path):
        (tmp_path / name).unlink()
    capsys.readouterr()
    assert called(tmp_path) == 1
    said = capsys.readouterr().err
    assert says in said
    assert str(path) in said
    assert drawn(tmp_path) == []


def test_data_that_bear_out_no_caption_are_not_drawn(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(claims=lambda data: [("it shines", False), ("it is there", True)])
    assert called(tmp_path) == 1
    assert "number_lines: not borne out: it shines" in capsys.readouterr().err
    assert drawn(tmp_path) == []


@pytest.mark.parametrize("part", ["compute", "draw"])
def test_interruption(part: str, small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    small(**{part: stop})
    assert called(tmp_path) == INTERRUPTED
    assert "interrupted; results that were finished are kept" in capsys.readouterr().err
    assert drawn(tmp_path) == []
    assert (tmp_path / "data" / "number_lines_quick.json").exists() == (part == "draw")


@pytest.mark.parametrize("kind", ["missing", "broken"])
@pytest.mark.usefixtures("small")
def test_pgf_without_a_tex_that_works(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before any run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if kind == "broken":
        tex = folder / "xelatex"
        tex.write_text("#!/bin/sh\ncat > /dev/null\necho 'This is TeX'\necho '! Font cmr10 is missing.'\nexit 1\n")
        tex.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/nowhere" if kind == "missing" else f"{folder}:/usr/bin:/bin")
    assert main(["figures", "build", "number_lines", "--out", str(tmp_path / "out"), "--format", "pdf,pgf"]) == 2
    said = capsys.readouterr().err
    if kind == "missing":
        assert "none of xelatex, lualatex, pdflatex is installed" in said
    else:
        assert "xelatex cannot set text here: ! Font cmr10 is missing." in said
    assert said.count("\n") == 1
    assert not list(tmp_path.rglob("*.pdf"))
