"""The page of fpsim report: parsed, it is whole and loads nothing; names are text; the same results, the same bytes."""

import math

import pytest
from page_checks import Page

from experiments.cell import Cell
from experiments.schema import SCHEMA, failed_row
from paper_figures.report import html, svg
from paper_figures.report.page import page
from paper_figures.report.results import Results, cell_of

HOW = "As the rows tell."
EVIL = '<script>alert("1")</script>&\'x'


def cell(optimizer="sgd", mantissa=3, rounding="nearest_even", **changes):
    plain = {"problem": "quadratic", "noise": "none", "sigma": 0.0, "batch": 0, "random_bits": 16, "exponent_bits": 8}
    plain |= {"hyperparameters": {"lr": 0.1}, "dimension": 6, "seeds": 4, "seed": 0, "steps": 100, "window": 0.5}
    return Cell(**plain | {"optimizer": optimizer, "mantissa_bits": mantissa, "rounding": rounding} | changes)


def row(made, **changes):
    floor = 2.0**-made.mantissa_bits
    told = {"key": "0" * 32, "outcome": "floor", "stationary": True, "window_steps": 50, "loss_gap": floor**2}
    told |= {"rms_gradient": floor, "rms_gradient_low": 0.9 * floor, "rms_gradient_high": 1.1 * floor, "warnings": ""}
    told |= {"theorem": "T6", "quantity": "gradient norm where the run halted", "measured": floor, "bound": 3 * floor}
    told |= {"ratio": 3.0, "verdict": "holds", "reason": "", "frozen_share": 0.25, "seconds": 1.0}
    told |= {"trace_step": [0, 1, 10, 100], "trace_rms_gradient": [1.0, 0.5, 2 * floor, floor]}
    return dict.fromkeys(SCHEMA) | made.columns() | told | changes


def results(rows, **changes):
    plain = {"name": "widths", "text": "mantissa = 3", "settings": {"seed": 0}, "folder": None, "planned": len(rows)}
    plain |= {"rows": rows, "versions": {"code": ["0.1.0+ab"], "machine": ["x86_64"], "host": ["here"]}}
    return Results(**plain | {"made": ("2026-01-02", "2026-01-03"), "damaged": [], "kept": []} | changes)


def verdicts(rows):
    nan = math.nan
    return [{**x, "status": x["verdict"], "ratio": x["ratio"] or nan} for x in rows if x["theorem"]]


def rows():
    made = [row(cell(name, m, mode)) for name in ("sgd", "adam") for mode in ("nearest_even", "up") for m in (3, 7)]
    made[1] |= {"verdict": "undecided", "reason": "the interval 1..2 holds 1.5"}
    made[2] |= {"verdict": "not applicable", "ratio": None, "bound": None, "reason": "halted: 0 of 4"}
    made[3] |= {"warnings": "scalar.beta2 = 0.999 becomes 1; scalar.beta1 = 0.9 becomes 1", "outcome": "moving"}
    made[4] |= {"theorem": None, "quantity": None, "verdict": None, "ratio": None, "rms_gradient": math.inf}
    made[5] = failed_row(cell("adam", 7), EVIL)
    return made


@pytest.fixture(scope="module")
def content():
    return page(results(rows()), verdicts(rows()), HOW)


def test_a_parser_finds_the_page_whole_and_self_contained(content):
    found = Page(content)
    assert found.faults == []
    assert content.startswith("<!DOCTYPE html>")
    assert content.replace("http-equiv", "").count("http") == 0
    assert not any("url(" in x or "@import" in x for x in found.styles)
    assert not any(x in script for script in found.scripts for x in ("fetch", "import", "XMLHttp", "eval", "innerHTML"))


def test_a_reader_of_screens_finds_headings_headers_and_titles(content):
    found = Page(content)
    headings = [tag for tag, _ in found.elements if tag in ("h1", "h2", "h3")]
    assert headings[0] == "h1" and headings.count("h1") == 1
    assert dict(found.elements)["html"] == {"lang": "en"}
    assert all(attrs.get("scope") == "col" for tag, attrs in found.elements if tag == "th")
    assert found.count("table") == found.count("caption") == found.count("thead") >= 6
    drawn = [attrs for tag, attrs in found.elements if tag == "svg"]
    assert len(drawn) == found.count("figure") == found.count("figcaption") == 3
    for attrs in drawn:
        assert attrs["role"] == "img" and len(attrs["aria-labelledby"].split()) == 2
    assert found.count("desc") == 3
    assert all(x in found.styles[0] for x in ("prefers-color-scheme:dark", "@media print", "focus-visible"))


def test_what_the_page_tells(content):
    words = Page(content).words
    for told in (
        "Study widths", "8 of 8, 4 seeds each", "Failed cells: 1;", "undecided", "scalar.beta2 = 0.999 becomes 1",
        "sgd e8m7", "the interval 1..2 holds 1.5", "halted: 0 of 4", "Round-to-nearest gradient descent stops",
        "written 2026-01-02 to 2026-01-03 (UTC)", "host here", "0.1.0+ab", "mantissa = 3", "@misc{fpsim,",
        HOW,
    ):  # fmt: skip
        assert told in words, told
    assert "is a bug" not in words


def test_names_are_shown_as_text():
    bare = {"rms_gradient": None, "trace_rms_gradient": None}
    told = {"warnings": EVIL, "reason": EVIL, "verdict": "not applicable"}
    wild = [row(cell("sgd", 3), **bare), row(cell("sgd", 7), **bare, **told)]
    content = page(results(wild, name=EVIL, text=EVIL, damaged=[EVIL], versions={"host": [EVIL]}), verdicts(wild), HOW)
    found = Page(content)
    assert found.faults == []
    assert found.count("script") == 1
    assert found.words.count(EVIL) >= 5
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#x27;x" in content


def test_same_results_same_bytes_and_seconds_do_not_count(content):
    slower = [x | {"seconds": 9.0} for x in rows()]
    assert page(results(slower), verdicts(slower), HOW) == content
    other = [x | {"loss_gap": 9.0} for x in rows()]
    assert results(other).data_hash != results(rows()).data_hash


def test_violations_and_missing_cells_are_said_first():
    bare = {"verdict": "violated", "rms_gradient": None, "trace_rms_gradient": None}
    wrong = [row(cell(), **bare), row(cell("sgd", 7), theorem="X1", **bare)]
    words = Page(page(results(wrong, planned=5), verdicts(wrong), HOW)).words
    assert "Verdicts 'violated': 1. That is a bug of fpsim" in words  # a comparison is not ours to defend
    assert "Missing cells: 3;" in words


def test_a_study_without_floors_has_no_figure_and_says_so():
    words = Page(page(results([failed_row(cell(), "no")]), [], HOW)).words
    assert "No cell has a floor or a course to draw." in words
    assert "failed: no" in words


def test_a_row_gives_its_cell_back():
    made = cell("adam", 7, overrides=(("v", "e5m10", ""),), options={"size": 0.5})
    assert cell_of(row(made)) == made


def test_elements_escape_and_tables_sort_by_value():
    assert html.element("a", "<", href='"') == '<a href="&quot;">&lt;</a>'
    made = html.table("t", "c", ["a", "n"], [["x", html.Number("1.0e3", 1000.0)], ["y", html.Number("", None)]])
    assert '<th scope="col">a</th><th scope="col" class="number">n</th>' in made
    assert 'data-key="1000.0">1.0e3<' in made and 'data-key=""><' in made
    assert Page(made).faults == []


def test_a_drawing_that_refers_to_another_file_is_refused(tmp_path):
    file = tmp_path / "x.svg"
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt" viewBox="0 0 9 9"'
    file.write_text(f'{head}><g id="a" clip-path="url(#b)"/><use href="#a"/><path id="b"/></svg>')
    found = Page(svg.inline(file, "one", "title", "<words>"))
    assert found.faults == []
    assert {"one-a", "one-b", "one-title", "one-desc"} == set(found.ids)
    file.write_text(f'{head}><use href="other.svg#a"/></svg>')
    with pytest.raises(ValueError, match="is not in the drawing"):
        svg.inline(file, "one", "title", "words")
