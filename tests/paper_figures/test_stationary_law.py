"""The stationary law: a bar and a dot for each state that is visited, claims that fail for other data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from paper_figures import style
from paper_figures.figure import ClaimError, check
from paper_figures.gallery import stationary_law
from paper_figures.journals import JOURNALS


def law(middle: float, gap: float) -> dict[str, Any]:
    weights = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1])
    states = middle + gap * np.arange(-4, 5)
    return {"states": states.tolist(), "exact": (weights / 256).tolist(), "counted": (40 * weights).tolist()}


EXAMPLE = {"v": law(1.0, 0.0625), "w": law(1.25, 0.0625), "steps": 7, "lanes": 40 * 256, "random bits": 8}


def test_a_bar_and_a_dot_for_each_state() -> None:
    with style.journal_style(JOURNALS["siam"]):
        moments, weights = stationary_law.draw(EXAMPLE, JOURNALS["siam"]).axes
    for axes, name in ((moments, "v"), (weights, "w")):
        bars, dots = axes.containers
        assert [bar.get_height() for bar in bars] == EXAMPLE[name]["exact"]
        assert list(dots[0].get_ydata()) == pytest.approx(EXAMPLE[name]["exact"])
        assert axes.get_ylim()[0] == 0
    assert moments.get_ylabel() == "share of time"


@pytest.mark.parametrize(
    ("name", "part", "change", "says"),
    [
        ("v", "counted", 400, "v: no run is where the law is not; v: counts within 4.5"),
        ("w", "exact", 0.125, "w: the law's shares add up to 1"),
    ],
)
def test_claims_fail_for_other_data(name: str, part: str, change: float, says: str) -> None:
    check(stationary_law.FIGURE, EXAMPLE)
    altered = copy.deepcopy(EXAMPLE)
    altered[name][part][4] += change
    with pytest.raises(ClaimError, match=says):
        check(stationary_law.FIGURE, altered)


@pytest.mark.slow
def test_a_short_run_bears_the_claims_out() -> None:
    tiny = stationary_law.PARAMETERS | {"steps": 200, "lanes": 4096, "seed": 3}
    check(stationary_law.FIGURE, stationary_law.compute(tiny, Path(), lambda share: None))
