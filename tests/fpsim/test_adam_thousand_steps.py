"""A thousand steps of Adam: the CPU machine equals the exact reader bit for bit, in every mode."""

import numpy as np
import pytest

import fpsim
from fpsim.rounding import CODES

MODES = [*CODES, fpsim.Stochastic(8), fpsim.Stochastic(16), fpsim.Stochastic(32)]
STEPS, DIMENSION = 1000, 1


def _uniform(name):
    return lambda mode: fpsim.Precision.uniform(name, mode)


def _mixed(mode):
    """Weights wide, moments narrow, one operation in another mode and one format with an unusual edge."""
    other = "down" if mode != "down" else "nearest_even"
    return fpsim.Precision.uniform("e8m10", mode).replace(
        {
            "w": ("binary32", mode),
            "w.sub": ("binary32", mode),
            "m*": ("bfloat16", mode),
            "v.*": ("e8m12", other),
            "update.div": ("float8_e5m2", "nearest_away"),
            "g": ("binary16", mode),
        }
    )


PRECISIONS = {name: _uniform(name) for name in ("bfloat16", "binary16", "float8_e4m3fn", "e8m10")} | {"mixed": _mixed}


QUICK = (
    ("mixed", fpsim.Stochastic(16)),
    ("mixed", "nearest_even"),
    ("float8_e4m3fn", "nearest_even"),
    ("bfloat16", "toward_zero"),
)
CASES = [
    pytest.param(name, mode, id=f"{name}-{mode}", marks=() if (name, mode) in QUICK else pytest.mark.slow)
    for name in PRECISIONS
    for mode in MODES
]


@pytest.mark.parametrize(("precision", "mode"), CASES)
def test_machine_equals_exact_reader(precision, mode):
    rng = np.random.default_rng(7)
    program = fpsim.optim.adam.bind(lr=2.0**-3, beta2=0.99, eps=2.0**-6)
    state = {"w": rng.normal(size=(DIMENSION, 1)), "m": np.zeros(DIMENSION), "v": np.zeros(DIMENSION)}
    gradient = rng.normal(size=(STEPS, DIMENSION, 1)) * np.exp2(rng.integers(-4, 3, size=(STEPS, 1, 1)))
    given = (program, state, {"g": gradient}, PRECISIONS[precision](mode), fpsim.Key(3))
    options = {"steps": STEPS, "runs": [11], "record": ["w", "m", "v"]}
    fast = fpsim.run(*given, **options)
    slow = fpsim.run(*given, **options, device="exact")
    for name in ("w", "m", "v"):
        np.testing.assert_array_equal(
            fast.records[name].view(np.int64), slow.records[name].view(np.int64), err_msg=name
        )
    # rounded up in 4 bits, v grows at every step until it overflows; elsewhere every step is a number
    finite = 20 if (precision, mode) == ("float8_e4m3fn", "up") else STEPS
    assert np.isfinite(fast.records["w"][:finite]).all()
    assert len(np.unique(fast.records["w"])) > 3  # it moved, so the comparison says something
