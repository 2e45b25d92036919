"""What sum, dot, matvec and matmul refuse, and what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fpsim import contractions
from fpsim.accumulator import Accumulator
from fpsim.formats import format as named

BF16 = named("bfloat16")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contractions.matmul(np.ones(3), np.ones((3, 1)), BF16), r"a has shape \(3,\); admissible: 2 or more"),
        (
            lambda: contractions.dot(np.ones((1, 3)), np.ones(3), BF16),
            r"a has shape \(1, 3\); admissible: 1 dimension$",
        ),
        (lambda: contractions.matvec(np.ones((2, 3)), np.ones(2), BF16), "do not fit: 3 and 2 terms"),
        (
            lambda: contractions.matmul(np.ones((2, 1, 3)), np.ones((3, 3, 1)), BF16),
            r"a of shape \(2, 1, 3\) and b of shape \(3, 3, 1\) do not fit: the leading dimensions \(2,\) and \(3,\)",
        ),
        (lambda: contractions.sum(1.0, BF16, axis=0), "axis=0 for an array of 0 dimensions; admissible: None"),
        (lambda: contractions.sum(torch.tensor([(1 << 53) + 1]), "binary64"), "an integer operand reaches 90071992"),
        (lambda: contractions.sum(np.ones(3), BF16, "stochastic"), "key=None: sum_rounding stochastic16 needs a Key"),
        (lambda: contractions.sum(np.ones(3), Accumulator.uniform(BF16), "up"), "rounding='up' beside an accumulator"),
        (
            lambda: contractions.sum(np.ones(3), BF16, axis=1),
            r"axis=1 for an array of 1 dimensions; admissible: -1\.\.0",
        ),
        (lambda: contractions.sum(np.ones((2, 2)), BF16, axis=(0, -2)), "names an axis twice"),
        (lambda: contractions.sum(np.ones(3, dtype=np.float16), BF16), "float16 cannot hold the format e8m7"),
        (lambda: contractions.sum(np.ones(3), BF16, out=np.ones(2)), r"out has shape \(2,\); admissible: \(\)"),
        (lambda: contractions.sum(np.ones(3), "bfloat17"), "'bfloat17' is unknown"),
        (lambda: contractions.sum(np.ones(3), BF16, ["up"]), r"rounding=\['up'\]; admissible: nearest_even"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: contractions.dot([1.0], [1.0], None),
            "accumulator=None; admissible: Accumulator, tensor core, Format",
        ),  # type: ignore[arg-type]
        (lambda: contractions.sum(np.ones(3), BF16, axis=1.0), r"axis=1\.0; admissible: an integer, a tuple"),  # type: ignore[arg-type]
        (lambda: contractions.sum(np.ma.ones(2), BF16), "a masked array"),
        (lambda: contractions.dot(torch.ones(2), np.ma.ones(2), BF16), "a masked array"),
    ],
)
def test_input_of_a_wrong_type(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()
