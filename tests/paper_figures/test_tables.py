"""Tables: the same cells in LaTeX and Markdown, escaped and complete; claims that fail; built like figures."""

import json
import re

import pytest

pytest.importorskip("matplotlib")

from gallery_rows import altered, broken, floor

from paper_figures.build import build
from paper_figures.journals import JOURNALS
from paper_figures.table import Column, PaperTable, latex, markdown, number
from paper_figures.tables import constants, floors, formats, tables, theorems
from paper_figures.tables.constants import TABLE as CONSTANTS
from paper_figures.tables.floors import FORMATS, MODES, OPTIMIZERS
from paper_figures.tables.floors import TABLE as FLOORS

COLUMNS = (Column("a_b"), Column("$x$", "r"), Column("words", "l", 0.3))


def table(groups):
    return PaperTable(
        "table_toy", "toy", False, {"quick": {}, "full": {}}, lambda parameters, folder, report: {"k": 1},
        lambda data: COLUMNS, lambda data: groups, lambda data: "50 % of $k_1$",
        lambda data: [("k is 1", data["k"] == 1)], "",
    )  # fmt: skip


GROUPS = [[("5 % & 1_2", 1, "|m|"), (None, 2.5e-7, "$a_1 & b$")], [("c", 0, "~^")]]


def test_latex_escapes_words_and_leaves_mathematics():
    text = latex(table(GROUPS), {}, "50 % of $k_1$")
    body = re.search(r"\\toprule\n(.*)\\bottomrule", text, re.DOTALL)[1].splitlines()
    assert body == [
        r"a\_b & $x$ & words \\", r"\midrule",
        r"5 \% \& 1\_2 & 1 & \textbar{}m\textbar{} \\", r"- & $2.5 \cdot 10^{-7}$ & $a_1 & b$ \\", r"\midrule",
        r"c & 0 & \textasciitilde{}\textasciicircum{} \\",
    ]  # fmt: skip
    assert r"\caption{50 \% of $k_1$}" in text
    assert r"\begin{tabular}{@{}lr>{\raggedright\arraybackslash}p{0.3\linewidth}@{}}" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_markdown_has_the_same_cells():
    lines = markdown(table(GROUPS), {}, "caption").splitlines()
    assert lines[0] == "caption"
    assert lines[2:4] == ["| a_b | $x$ | words |", "| :-- | --: | :-- |"]
    assert lines[4] == r"| 5 % & 1_2 | 1 | \|m\| |"
    assert len(lines) == 7


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="has 1 cells; admissible: 3"):
        latex(table([[("a",)]]), {}, "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "$0$"), (65504.0, "$65504$"), (-2.5, "$-2.5$"), (1.234e-5, r"$1.23 \cdot 10^{-5}$"), (float("nan"), "-")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_a_table_is_built_like_a_figure(tmp_path):
    made = [build(table(GROUPS), JOURNALS["icml"], tmp_path) for _ in range(2)]
    assert [path.name for path in made[0].files] == ["table_toy.tex", "table_toy.md", "table_toy.txt", "table_toy.json"]
    assert json.loads((tmp_path / "table_toy.json").read_text())["claims"] == ["k is 1"]
    first = (tmp_path / "table_toy.tex").read_bytes()
    build(table(GROUPS), JOURNALS["icml"], tmp_path, formats=["svg"])
    assert (tmp_path / "table_toy.tex").read_bytes() == first


def nothing(share):
    pass


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return {
        module.TABLE.name: module.TABLE.compute(module.TABLE.parameters["quick"], folder, nothing)
        for module in (theorems, formats, constants)
    }


@pytest.mark.parametrize("name", ["table_theorems", "table_formats", "table_constants"])
def test_claims_hold_and_both_texts_have_every_row(computed, name):
    found, data = tables()[name], computed[name]
    assert not broken(found, data)
    rows = sum(len(group) for group in found.groups(data))
    assert latex(found, data, "").count(r" \\") == rows + 1
    assert markdown(found, data, "").count("\n| ") == rows + 2
    assert rows >= 15


@pytest.mark.parametrize(
    ("name", "key", "changes", "claim"),
    [
        ("table_theorems", "theorems", {"steps": 0}, "has a derivation"),
        ("table_theorems", "theorems", {"identifier": "T2"}, "names are unique"),
        ("table_theorems", "theorems", {"tightness": "loose"}, "every kind is known"),
        ("table_formats", "formats", {"eps": 1.0}, "u is half of eps"),
        ("table_formats", "formats", {"bits": 5}, "bits add up"),
        ("table_formats", "formats", {"max": 0.0}, "in order"),
        ("table_constants", "rows", {"values": dict.fromkeys(constants.FORMATS, 1.0)}, "within 1 %"),
        ("table_constants", "rows", {"values": {**dict.fromkeys(constants.FORMATS, 1.0), "binary32": 2.0}}, "larger"),
        ("table_constants", "rows", {"reasons": {"binary32": "who knows"}}, "only for the reasons"),
    ],
)
def test_claims_fail_for_altered_data(computed, name, key, changes, claim):
    data = computed[name]
    wrong = {**data, key: [data[key][0] | changes, *data[key][1:]]}
    assert any(claim in text for text in broken(tables()[name], wrong))


def test_constants_say_where_there_is_no_bound(computed):
    text = CONSTANTS.caption(computed["table_constants"])
    assert "Adam $Q_V$ in bfloat16" in text
    assert r"$\frac{2 \beta_{2} u}{1 - \beta_{2}} + 3 u$" in latex(CONSTANTS, computed["table_constants"], text)


@pytest.fixture(scope="module")
def floor_data():
    rows = []
    for optimizer in OPTIMIZERS:
        for mode in MODES:
            for i, fmt in enumerate(FORMATS):
                value = 2.0 ** (i - 20) * (8 if mode == "nearest_even" else 1)
                told = {"optimizer": optimizer, "rounding": mode, "format": fmt, "steps": 60, "bound": 2 * value}
                lost = {"rms_gradient": None, "outcome": "not finite", "verdict": "not applicable", "bound": None}
                fine = optimizer == "sgd" or not fmt.startswith("float8")
                rows.append(floor(value, **told, verdict="holds") | ({} if fine else lost))
    return {"rows": rows, "seeds": 8}


def test_floors_of_formats(floor_data):
    assert not broken(FLOORS, floor_data)
    caption = FLOORS.caption(floor_data)
    assert "(28 of 36)" in caption
    assert "by a factor of 8" in caption
    assert "FP8 E4M3 and FP8 E5M2" in caption
    text = markdown(FLOORS, floor_data, caption)
    assert text.count("not finite |") == 8
    moving = altered(floor_data, {"stationary": False}, optimizer="sgd", format="tf32")
    assert "*: not settled yet (2)" in FLOORS.caption(moving)
    assert "$* |" in markdown(FLOORS, moving, "")


@pytest.mark.parametrize(
    ("change", "wanted", "claim"),
    [
        ({"verdict": "violated"}, {"optimizer": "adam", "format": "tf32"}, "no run violates"),
        ({"rms_gradient": None}, {"optimizer": "sgd", "format": "tf32"}, "SGD is finite"),
        ({"rms_gradient": 9.0}, {"optimizer": "sgd", "format": "binary32"}, "rises from binary32"),
        ({"rms_gradient": 1e-9}, {"optimizer": "sgd", "format": "binary16", "rounding": "nearest_even"}, "lowers SGD"),
        ({"rms_gradient": None}, {"optimizer": "adam", "format": "bfloat16"}, "only where eps is stored as 0"),
    ],
)
def test_claims_about_floors_fail_for_altered_data(floor_data, change, wanted, claim):
    assert any(claim in text for text in broken(FLOORS, altered(floor_data, change, **wanted)))
    assert floors.TABLE is FLOORS
