"""The overview of tightness: a number for each theorem and format, gaps where none applies, claims that can fail."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from paper_figures import style
from paper_figures.figure import ClaimError, check
from paper_figures.gallery import tightness
from paper_figures.journals import JOURNALS
from theory.theorems import theorems

EXAMPLE = tightness.compute({}, Path(), lambda share: None)


def test_every_theorem_of_the_record_has_a_label() -> None:
    assert set(EXAMPLE["theorems"]) == set(tightness.SHORT) == set(theorems())


def test_a_number_for_each_theorem_and_format() -> None:
    with style.journal_style(JOURNALS["siam"]):
        axes = tightness.draw(EXAMPLE, JOURNALS["siam"]).axes[0]
    rows = [row for row in EXAMPLE["theorems"].values() if any(row["median"].values())]
    assert len(axes.texts) == len(rows) * len(tightness.FORMATS)
    assert sum(text.get_text() == "–" for text in axes.texts) == sum(
        row["median"][x] is None for row in rows for x in tightness.FORMATS
    )
    assert axes.get_yticklabels()[0].get_text().endswith(" T1")
    assert len(axes.lines) == 1


@pytest.mark.parametrize(
    ("theorem", "change", "says"),
    [
        ("T1", {"failed": 1}, "no theorem is violated"),
        ("T14", {"median": {"bfloat16": 0.5}}, "below what was measured"),
        ("X1", {"median": {"bfloat16": 1.0}}, "the literature's bounds are typically wider"),
    ],
)
def test_claims_fail_for_other_data(theorem: str, change: dict[str, Any], says: str) -> None:
    check(tightness.FIGURE, EXAMPLE)
    altered = copy.deepcopy(EXAMPLE)
    altered["theorems"][theorem] |= change
    if theorem == "X1":
        altered["theorems"]["X2"] |= change
    with pytest.raises(ClaimError, match=says):
        check(tightness.FIGURE, altered)
