"""Number lines and error curves: one stroke a value, a curve for each format, claims that fail for other data."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from paper_figures import style
from paper_figures.figure import ClaimError, check
from paper_figures.gallery.number_lines import CURVES, FIGURE, LINES
from paper_figures.journals import JOURNALS

EXAMPLE = FIGURE.compute({"points": 2048}, Path(), lambda share: None)


def test_every_format_is_drawn() -> None:
    with style.journal_style(JOURNALS["neurips"]):
        line, curve = FIGURE.draw(EXAMPLE, JOURNALS["neurips"]).axes
    assert len(line.collections) == len(LINES)
    assert [len(strokes.get_positions()) for strokes in line.collections] == [8, 32, 32, 28]
    assert len(curve.lines) == len(curve.texts) == len(CURVES)
    assert "relative error" in curve.get_ylabel()


def test_claims_fail_for_other_data() -> None:
    check(FIGURE, EXAMPLE)
    for at, value in ((0.0, 1.0), (-25.0, 0.0)):
        altered = copy.deepcopy(EXAMPLE)
        altered["worst"]["binary16"][altered["binades"].index(at)] = value
        with pytest.raises(ClaimError, match="number_lines: not borne out: binary16"):
            check(FIGURE, altered)
