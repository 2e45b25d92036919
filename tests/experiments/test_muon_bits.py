"""Why Muon with four mantissa bits may blow up where three or five do not: the margin of its polynomial.

p(x) = x (a + b x^2 + c x^4) maps singular values to about 1, if they stay below the point where p(x) = x. Its largest
value on the way there is the local maximum; between the two lies the margin. Rounded to four bits, the coefficients
are 3.5, -4.75 and 2, whose margin is less than the unit roundoff; to three bits, 3.5, -5 and 2, whose margin is wider
than that of the original ones.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from fpsim import Format, Precision, arrays
from fpsim.optim.matrix import METHODS
from fpsim.optim.matrix.newton_schulz import COEFFICIENTS


def rounded(width: int) -> tuple[float, float, float]:
    a, b, c = arrays.round(np.array(list(COEFFICIENTS.values())), Format(8, width), "nearest_even")
    return float(a), float(b), float(c)


def margin(a: float, b: float, c: float) -> float:
    """The relative distance from the local maximum of p to the point that p maps to itself."""
    place = (-3 * b - math.sqrt(9 * b * b - 20 * a * c)) / (10 * c)
    largest = math.sqrt(place) * (a + b * place + c * place**2)
    return math.sqrt((-b + math.sqrt(b * b - 4 * c * (a - 1))) / (2 * c)) / largest - 1


@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 7, 10])
def test_four_bits_alone_have_coefficients_whose_margin_rounding_uses_up(width: int) -> None:
    assert (margin(*rounded(width)) < 2.0 ** -(width + 1)) == (width == 4)
    assert margin(*COEFFICIENTS.values()) == pytest.approx(0.051, abs=5e-4)
    assert rounded(3) == rounded(2) == (3.5, -5.0, 2.0) and rounded(4) == (3.5, -4.75, 2.0)


def largest_step(width: int, **coefficients: float) -> float:
    """The largest spectral norm of twenty steps of length 1."""
    method, precision = METHODS["muon"].bind(lr=1.0, beta1=0.0, **coefficients), Precision.uniform(Format(8, width))
    draws, start, norms = np.random.default_rng(0), np.zeros((32, 32)), []
    for _ in range(20):
        g = draws.normal(size=(32, 32)) * np.exp(2.0 * draws.normal(size=32))
        norms.append(np.linalg.norm(method.step(method.start(start, precision), g, precision)["w"], 2))
    return float(max(norms))


def test_and_those_of_three_bits_keep_steps_bounded() -> None:
    assert (
        largest_step(4) > 10.0
    )  # values leave the interval, and every further iteration raises them to the fifth power
    assert largest_step(4, ns_a=3.5, ns_b=-5.0, ns_c=2.0) < 1.5
    assert largest_step(5) < 1.5 and largest_step(7) < 1.5
