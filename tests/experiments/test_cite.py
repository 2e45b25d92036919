"""fpsim cite: BibTeX of a study or its results, and errors of one line."""

import pytest

from experiments.cli import main

STUDY = 'optimizer = "sgd,adam"\nproblem = "quadratic"\nmantissa = "3,7"\ndimension = 6\nseeds = 4\nsteps = 1500\n'


def keys(text):
    return [line.partition("{")[2].rstrip(",") for line in text.splitlines() if line.startswith("@")]


def test_results_name_theorems_and_the_code_that_made_them(folder, capsys):
    assert main(["cite", str(folder), "--format", "mx9"]) == 0
    printed = capsys.readouterr()
    found = keys(printed.out)
    assert found[0] == "fpsim"
    assert {"ieee754", "bfloat16", "microexponents", "croci2022", "robbins1951", "kingma2015", "xia2022"} <= set(found)
    assert len(set(found)) == len(found)
    assert not printed.err
    assert main(["cite", str(folder), "--format", "mx9"]) == 0
    assert capsys.readouterr().out == printed.out


def test_a_study_file_finds_its_results_or_says_that_theorems_are_left_out(folder, tmp_path, capsys):
    file = tmp_path / "widths.toml"
    file.write_text(STUDY)
    assert main(["cite", str(file), "--results", str(folder)]) == 0
    printed = capsys.readouterr()
    assert "xia2022" in keys(printed.out) and not printed.err
    assert main(["cite", str(file), "--results", str(tmp_path / "nothing")]) == 0
    printed = capsys.readouterr()
    assert "xia2022" not in keys(printed.out) and "kingma2015" in keys(printed.out)
    assert printed.err.count("\n") == 1 and "theorems are left out" in printed.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing.toml"], "missing.toml cannot be read (No such file"),
        (["."], "there are no results in .;"),
        (["wrong.toml"], "wrong.toml is not a TOML file"),
        (["key.toml"], "key.toml: optimiser: unknown key (close: optimizer, options)"),
        (["--format", "e4"], "--format: format 'e4' is unknown"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.toml").write_text("optimizer =")
    (tmp_path / "key.toml").write_text('optimiser = "sgd"')
    assert main(["cite", *words]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.count("\n") == 1 and says in printed.err


def test_a_damaged_plan_is_named(tmp_path, capsys):
    (tmp_path / "study.json").write_text("{")
    assert main(["cite", str(tmp_path)]) == 2
    assert "study.json is damaged" in capsys.readouterr().err
