"""Noise as dither: floors, bands and bounds of two roundings, claims that fail for other data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from paper_figures import style
from paper_figures.figure import ClaimError, check
from paper_figures.gallery import dither
from paper_figures.journals import JOURNALS


def row(level: float, floor: float, theorem: str) -> dict[str, Any]:
    made = {"level": level, "floor": floor, "low": 0.97 * floor, "high": 1.03 * floor, "theorem": theorem}
    return made | {"bound": 1.25 * floor, "verdict": "holds"}


def made() -> dict[str, Any]:
    levels = (0.0, *dither.LEVELS)
    nearest = (0.0766, 0.059, 0.0407, 0.0136, 0.0163, 0.0282, 0.0507, 0.098)
    stochastic = (0.0127, 0.0129, 0.0139, 0.0169, 0.0223, 0.0315, 0.0527, 0.0993)
    return {
        name: [row(x, y, first if x == 0 else "T25") for x, y in zip(levels, floors, strict=True)]
        for name, floors, first in (("nearest_even", nearest, "T6"), ("stochastic", stochastic, "T8"))
    }


EXAMPLE = made()


def test_lines_bands_and_labels() -> None:
    with style.journal_style(JOURNALS["siam"]):
        (axes,) = dither.draw(EXAMPLE, JOURNALS["siam"]).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [7, 1, 7, 1] * 2
    assert list(axes.lines[0].get_ydata()) == [x["floor"] for x in EXAMPLE["nearest_even"][1:]]
    assert len(axes.collections) == 2
    assert [text.get_text() for text in axes.texts] == ["to nearest", "bound", "stochastic"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1/32", "1/8", "1/2", "2"]
    assert "gradient norm" in axes.get_ylabel()


@pytest.mark.parametrize(
    ("name", "place", "change", "says"),
    [
        ("nearest_even", 0, {"floor": 0.02}, "without noise stochastic rounding wins"),
        ("nearest_even", 5, {"floor": 0.033}, "from half a gap on rounding to nearest wins"),
        ("stochastic", 3, {"verdict": "violated"}, "no bound is violated"),
        ("stochastic", 2, {"bound": 0.01}, "bounds lie above the floor"),
    ],
)
def test_claims_fail_for_other_data(name: str, place: int, change: dict[str, Any], says: str) -> None:
    check(dither.FIGURE, EXAMPLE)
    altered = copy.deepcopy(EXAMPLE)
    altered[name][place] |= change
    with pytest.raises(ClaimError, match=says):
        check(dither.FIGURE, altered)


@pytest.mark.slow
def test_a_short_run_bears_the_claims_out(tmp_path: Path) -> None:
    tiny = {"steps": 1000, "seeds": 4, "levels": [0.03125, 0.5, 1.0]}
    check(dither.FIGURE, dither.compute(tiny, tmp_path, lambda share: None))
