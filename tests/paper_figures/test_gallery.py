"""What holds for every figure of the gallery: size, fonts, text neither clipped nor covered, the same bytes."""

from __future__ import annotations

import itertools
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from tiers import slow_but

pytest.importorskip("matplotlib")

import gallery_checks
from gallery_examples import example, names

from experiments.cell import code_version
from paper_figures import style
from paper_figures.build import build
from paper_figures.figure import PROFILES, PaperFigure, check
from paper_figures.gallery import figures
from paper_figures.journals import JOURNALS
from paper_figures.results import content_of, digest, path_of

FORMATS = ("pdf", "png", "svg")


def store(name: str, out: Path) -> PaperFigure:
    """A results file with the figure's small data, as if its runs were done."""
    figure, data = figures()[name], json.loads(json.dumps(example(name)))
    path = path_of(figure, "quick", out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content_of(figure, "quick", data)))
    return figure


@pytest.mark.parametrize("name", names())
def test_what_a_figure_says_of_itself(name: str) -> None:
    figure = figures()[name]
    assert figure.name == name
    assert figure.title
    assert figure.full_cost
    assert tuple(figure.parameters) == PROFILES
    assert json.loads(json.dumps(dict(figure.parameters["full"])))
    check(figure, example(name))
    assert figure.claims(example(name))
    caption = figure.caption(json.loads(json.dumps(example(name))))
    assert caption.endswith(".")
    # TeX's braces stand in formulas alone; what is left of them, or "nan", is a placeholder that was not filled
    assert not re.search(r"[{}]|\bnan\b|\binf\b|\bNone\b(?! of)", re.sub(r"\$[^$]*\$", "", caption)), caption


@pytest.mark.parametrize(
    ("name", "journal"), slow_but(itertools.product(names(), JOURNALS), *((name, "siam") for name in names()))
)
def test_size_and_text(name: str, journal: str) -> None:
    """In every style; the narrowest one each time."""
    figure, width = figures()[name], JOURNALS[journal].width(figures()[name].wide)
    with style.journal_style(JOURNALS[journal]):
        drawn = figure.draw(example(name), JOURNALS[journal])
        assert drawn.get_figwidth() == pytest.approx(width, rel=0.01)
        assert 0.8 <= drawn.get_figheight() <= 8.5
        texts = gallery_checks.texts(drawn)
    assert texts
    assert gallery_checks.too_small(texts) == []
    assert gallery_checks.clipped(drawn, texts) == []
    assert gallery_checks.covered(texts) == []


@pytest.mark.parametrize("name", slow_but(names(), "number_lines"))
def test_files(name: str, tmp_path: Path) -> None:
    """Fonts that publishers take, the width of the column in each file, the same bytes when built again."""
    figure, journal = store(name, tmp_path), JOURNALS["icml"]
    built = build(figure, journal, tmp_path, formats=FORMATS, run=False)
    assert [path.name for path in built.files] == [f"{name}.{x}" for x in (*FORMATS, "txt", "json")]
    first = {path.name: path.read_bytes() for path in built.files}
    again = build(figure, journal, tmp_path, formats=FORMATS, run=False)
    assert {path.name: path.read_bytes() for path in again.files} == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*first, "data"])
    pdf, png, svg = (first[f"{name}.{x}"] for x in FORMATS)
    streams = re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    text = pdf + b"".join(zlib.decompressobj().decompress(s) for s in streams if s[:1] == b"x")
    assert b"/Type3" not in text
    assert re.findall(rb"/Subtype\s*/(?:CIDFontType2|Type42)|/FontFile2", text)
    width = journal.width(figure.wide)
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", text)
    assert box is not None
    assert float(box[1]) / 72 == pytest.approx(width, rel=0.01)
    assert struct.unpack(">I", png[16:20])[0] / 300 == pytest.approx(width, rel=0.01)
    points = re.search(rb'<svg [^>]*width="([\d.]+)pt"', svg)
    assert points is not None
    assert float(points[1]) / 72 == pytest.approx(width, rel=0.01)
    assert b"http" not in re.sub(rb'(xmlns(:\w+)?="[^"]*"|"-//W3C.*?>|<metadata>.*?</metadata>)', b"", svg, flags=re.S)
    about: dict[str, Any] = json.loads(first[f"{name}.json"])
    assert about["sha256 of the data"] == digest(json.loads(json.dumps(example(name))))
    assert about["figure"] == name
    assert about["style"] == "icml"
    assert about["parameters"] == figure.parameters["quick"]
    study = {"figure": name, "profile": "quick", "parameters": figure.parameters["quick"]}
    assert about["study"] == digest(json.loads(json.dumps(study)))
    assert about["seed"] == figure.parameters["quick"].get("seed", 0)
    assert about["code"] == code_version()
    assert about["versions"].keys() == {"numpy", "numba", "matplotlib", "python"}
    assert about["claims"]
    assert about["caption"] == built.caption == first[f"{name}.txt"].decode().rstrip("\n")
