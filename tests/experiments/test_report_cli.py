"""fpsim report: the page of results and of a study file, the same bytes again, errors of one line; a browser."""

import os
import re
import shutil
import subprocess

import pytest
from page_checks import Page

from experiments.cli import main
from experiments.verify import results
from experiments.verify.run import verify
from experiments.verify.summary import summarize
from theory.theorems import theorems

STUDY = 'optimizer = "sgd,adam"\nproblem = "quadratic"\nmantissa = "3,7"\ndimension = 6\nseeds = 4\nsteps = 1500\n'
FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
FLAGS += (
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
    "hide-scrollbars",
    "window-size=1200,900",
)


@pytest.fixture
def dated(folder, tmp_path):
    """A copy of the results of a small study, all of one day."""
    out = shutil.copytree(folder, tmp_path / "results")
    for path in out.rglob("*.parquet"):
        os.utime(path, (1.7e9, 1.7e9))
    return out


def test_the_page_of_a_folder_is_the_same_when_written_again(dated, tmp_path, capsys):
    assert main(["report", str(dated), "--no-verify"]) == 0
    printed = capsys.readouterr().out
    assert f"page: {dated / 'report.html'} (" in printed and "8 of 8 cells" in printed
    content = (dated / "report.html").read_text()
    found = Page(content)
    assert found.faults == []
    assert "written 2023-11-14" in found.words and "Study results" in found.words
    again = tmp_path / "again.html"
    assert main(["report", str(dated), "--no-verify", "--out", str(again)]) == 0
    assert again.read_text() == content


def test_the_page_of_a_study_file_shows_its_text(dated, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("paper_figures.report.page.drawings", lambda *_: [])
    file = tmp_path / "<script>.toml"
    file.write_text(STUDY)
    out = tmp_path / "page.html"
    assert main(["report", str(file), "--results", str(dated), "--no-verify", "--out", str(out)]) == 0
    found = Page(out.read_text())
    assert found.faults == [] and found.count("script") == 1
    assert "Study <script>" in found.words and 'mantissa = "3,7"' in found.words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing.toml"], "missing.toml cannot be read (No such file"),
        (["."], "there are no results in .;"),
        (["begun"], "no cell of begun is finished in begun; fpsim scan makes them"),
        (["broken"], "study.json is damaged"),
        (["other"], "other cannot be read"),
        (["study.toml"], "no cell of study is finished in fpsim-results/scan"),
        (["study.toml", "--results", "broken"], "study.json is damaged"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, plan in (("begun", '{"study": {}, "keys": ["ab"]}'), ("broken", "{"), ("other", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("study.json" if plan else "scan.parquet")).write_text(plan or "PAR1")
    (tmp_path / "study.toml").write_text(STUDY)
    assert main(["report", *words]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.count("\n") == 1 and says in printed.err
    assert not [*tmp_path.rglob("*.html")]


def test_a_page_that_cannot_be_written_is_refused_before_any_work(dated, tmp_path, capsys):
    assert main(["report", str(dated), "--out", str(tmp_path / "no" / "page.html")]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "--out" in printed.err and not printed.out


def test_damaged_cells_are_named_and_left_out(dated, capsys, monkeypatch):
    monkeypatch.setattr("paper_figures.report.page.drawings", lambda *_: [])
    file = sorted((dated / "cells").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-9])
    assert main(["report", str(dated), "--no-verify"]) == 0
    assert "7 of 8 cells" in capsys.readouterr().out
    words = Page((dated / "report.html").read_text()).words
    assert f"{file.name} is damaged" in words and "Missing cells: 1;" in words


@pytest.mark.slow
def test_every_theorem_is_held_against_every_cell_as_fpsim_verify_does(dated, capsys):
    assert main(["report", str(dated)]) == 0
    assert "held against 8 of 8 cells" in capsys.readouterr().out
    words = Page((dated / "report.html").read_text()).words
    assert "Every theorem was held against 8 of 8 cells, as fpsim verify does." in words
    summary = verify(dated, [*results.open_results(dated).keys], [*theorems().values()], 1, lambda n: None)
    for name, found in summarize(summary.rows).items():
        counts = found["all"]
        told = [str(counts.get(x, 0)) for x in ("holds", "undecided", "met", "not applicable") if x in words]
        assert f"{name} all {' '.join(told)}" in words


@pytest.mark.slow
def test_the_page_in_a_browser(dated, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    out = tmp_path / "page.html"
    assert main(["report", str(dated), "--out", str(out)]) == 0
    content = out.read_text()

    def shown(page, *more):
        flags = [f"--{x}" for x in (*FLAGS, f"user-data-dir={tmp_path / 'profile'}", *more)]
        command = [browser, *flags, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=80, check=False)
        assert done.returncode == 0, done.stderr
        return done

    # As it is: its own script runs under its policy, and nothing is said on the console.
    plain = shown(out, "dump-dom", "enable-logging=stderr")
    buttons = plain.stdout.count('aria-label="sort by ')
    assert buttons == Page(content).count("th") > 20
    assert "CONSOLE" not in plain.stderr
    # With a script of the test, which no policy of the page would let run.
    probe = tmp_path / "probe.html"
    allowing = re.sub(r"script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", content)
    probe.write_text(allowing.replace("</body>", PROBE))
    found = Page(shown(probe, "dump-dom").stdout)
    said = dict(next(attrs for tag, attrs in found.elements if tag == "body"))
    assert said["data-loaded"] == "0"
    assert said["data-wide"] == ""
    first, up, down = ([int(x) for x in said[f"data-{x}"].split()] for x in ("first", "up", "down"))
    assert up == sorted(first) != first
    assert down == up[::-1]
    assert said["data-aria"] == "descending"
    pdf = tmp_path / "page.pdf"
    shown(out, f"print-to-pdf={pdf}")
    assert pdf.read_bytes()[:5] == b"%PDF-"


PROBE = """<script>
const table = document.getElementById("table-cells");
const column = [...table.tHead.rows[0].cells].findIndex((x) => x.firstChild.data === "m");
const read = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent).join(" ");
const body = document.body.dataset;
body.first = read();
const button = table.tHead.rows[0].cells[column].querySelector("button");
button.click();
body.up = read();
button.click();
body.down = read();
body.aria = table.tHead.rows[0].cells[column].getAttribute("aria-sort");
body.loaded = performance.getEntriesByType("resource").length;
const wide = (x) => x.scrollWidth > x.clientWidth + 1;
body.wide = [document.documentElement, ...document.querySelectorAll(".scroll, figure > div")]
  .filter(wide).map((x) => x.getAttribute("aria-label") || x.tagName).join(";");
</script></body>"""
