"""Freeze maps: two lines a panel, the regions that T14 and T16 say, claims that fail for other data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from paper_figures import style
from paper_figures.figure import ClaimError, check
from paper_figures.gallery import freeze_maps
from paper_figures.journals import JOURNALS

BITS, SHARES = list(range(1, 13)), [2.0 ** -(k / 2 + 1.25) for k in range(28)]


def share(name: str, m: int, x: float) -> float:
    stuck, free = (freeze_maps._line(name, m, lines) for lines in ("-", "--"))
    return 1.0 if x < stuck else 0.5 if x < free else 0.0


def made() -> dict[str, Any]:
    tables = {name: [[share(name, m, x) for x in SHARES] for m in BITS] for name in ("v", "w")}
    theory = {f"{name} theory": copy.deepcopy(table) for name, table in tables.items()}
    return {"bits": BITS, "shares": SHARES, "steps": 7, **tables, **theory}


EXAMPLE = made()


def test_lines_and_limits() -> None:
    with style.journal_style(JOURNALS["siam"]):
        decay, weights, bar = freeze_maps.draw(EXAMPLE, JOURNALS["siam"]).axes
    assert len(decay.lines) == 3
    assert len(weights.lines) == 2
    assert decay.get_ylim() == (0.5, 12.5)
    assert decay.get_xlim() == pytest.approx((SHARES[-1] / 2**0.25, SHARES[0] * 2**0.25))
    assert bar.get_ylabel() == "share frozen"


@pytest.mark.parametrize(
    ("name", "at", "value", "says"),
    [
        ("v", (0, -1), 0.9, "every v is frozen left"),
        ("w", (11, 0), 0.1, "no w is frozen right"),
        ("v theory", (3, 4), 0.25, "T14 gives the share"),
        ("w theory", (3, 4), 0.25, "T16 gives the share"),
    ],
)
def test_claims_fail_for_other_data(name: str, at: tuple[int, int], value: float, says: str) -> None:
    check(freeze_maps.FIGURE, EXAMPLE)
    altered = copy.deepcopy(EXAMPLE)
    altered[name][at[0]][at[1]] = value
    with pytest.raises(ClaimError, match=says):
        check(freeze_maps.FIGURE, altered)


@pytest.mark.slow
def test_a_short_run_bears_the_claims_out() -> None:
    tiny = {"bits": 3, "octaves": [1, 6], "per octave": 2, "numbers": 8, "steps": 4}
    check(freeze_maps.FIGURE, freeze_maps.compute(tiny, Path(), lambda share: None))
