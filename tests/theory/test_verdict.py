"""The rule of the design: 99.9 % confidence limits against the upper end of the enclosure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from theory.theorem import Bound, Hypothesis
from theory.verdict import confidence_interval, verdict

MET = (Hypothesis("met", True),)
SAMPLES = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02, 0.98])


def bound(upper: float, **fields: object) -> Bound:
    return Bound("T0", "x", MET, upper * (1 - 1e-15), upper, **fields)


def test_interval_matches_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.t.interval(0.999, 7, SAMPLES.mean(), SAMPLES.std(ddof=1) / math.sqrt(8))
    assert confidence_interval(SAMPLES) == pytest.approx(expected, rel=1e-12)


def test_interval_of_equal_and_of_single_samples() -> None:
    assert confidence_interval([0.1] * 5) == (0.1, 0.1)
    assert confidence_interval([0.1]) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="at least one value"):
        confidence_interval([])
    with pytest.raises(ValueError, match="finite"):
        confidence_interval([1.0, math.nan])


@pytest.mark.parametrize(
    ("upper", "status"), [(0.5, "violated"), (2.0, "holds"), (1.01, "undecided"), (0.99, "undecided")]
)
def test_three_outcomes(upper: float, status: str) -> None:
    result = verdict(SAMPLES, bound(upper))
    assert result.status == status
    assert result.ratio == pytest.approx(upper / SAMPLES.mean())
    assert result.low < SAMPLES.mean() < result.high


@pytest.mark.parametrize("upper", [1.01, 0.99, 1.05])
def test_the_number_of_seeds_decides(upper: float) -> None:
    needed = verdict(SAMPLES, bound(upper)).seeds_needed
    assert needed is not None
    spread, distance = SAMPLES.std(ddof=1), abs(upper - SAMPLES.mean())
    special = pytest.importorskip("scipy.special")
    assert special.stdtrit(needed - 1, 0.9995) * spread / math.sqrt(needed) <= distance
    assert special.stdtrit(needed - 2, 0.9995) * spread / math.sqrt(needed - 1) > distance


def test_one_seed_never_decides_an_expectation() -> None:
    assert verdict([1.0], bound(10.0)).status == "undecided"


def test_squares_are_compared_as_roots() -> None:
    result = verdict(SAMPLES**2, bound(2.0, exponent=2))
    assert result.status == "holds"
    assert result.ratio == pytest.approx(2.0 / math.sqrt(np.mean(SAMPLES**2)))
    assert verdict([0.0, 0.0], bound(0.0, exponent=2)).status == "holds"


def test_each_seed_against_its_own_bound() -> None:
    limits = np.array([1.0, 2.0, math.nan])
    assert verdict([1.0, 1.5, 9.0], bound(1.6, per_seed=limits)).status == "holds"
    result = verdict([1.0, 2.5, 9.0], bound(1.6, per_seed=limits))
    assert result.status == "violated"
    assert result.reason.startswith("seed 1: 2.5 > 2")
    assert verdict([0.0, 0.0, 0.0], bound(1.6, per_seed=limits)).ratio == math.inf
    assert verdict([math.nan] * 3, bound(1.6, per_seed=limits)).status == "undecided"


def test_a_failed_hypothesis_is_named() -> None:
    failed = Bound("T0", "x", (*MET, Hypothesis("halted", False, "3 of 8")))
    result = verdict(SAMPLES, failed)
    assert (result.status, result.reason) == ("not applicable", "halted: 3 of 8")


def test_laws_are_met_or_missed() -> None:
    law = Bound("T9", "variance", (), lower=0.9, upper=1.1, two_sided=True)
    assert verdict([1.0, 1.01, 0.99, 1.0], law).status == "met"
    assert verdict([1.2, 1.21, 1.19, 1.2], law).status == "missed"
    assert verdict([0.8, 0.81, 0.79, 0.8], law).status == "missed"
    assert verdict([0.5, 1.6, 0.7, 1.3], law).status == "met"
