"""What the benches share: arrays to measure on, rounding modes, and the check that comes before the clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.bench.measure import WrongResult
from fpsim import exact
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import Rounding, Stochastic, random_bits

KEY = Key(1)
LARGE, CACHED = 1 << 24, 1 << 15
MODES: dict[str, Rounding] = {
    "nearest_even": "nearest_even",
    "nearest_away": "nearest_away",
    "toward_zero": "toward_zero",
    "up": "up",
    "stochastic16": Stochastic(16),
    "stochastic32": Stochastic(32),
}
_CHECKED = 256


def values(size: int, dtype: str, low: float, high: float, seed: int = 0) -> npt.NDArray[Any]:
    """Both signs, magnitudes log-uniform in 2^low..2^high."""
    rng = np.random.Generator(np.random.SFC64(seed))
    out = rng.random(size, dtype=np.float32 if dtype == "float32" else np.float64)
    out *= high - low
    out += low
    np.exp2(out, out=out)
    out[rng.random(size, dtype=np.float32) < 0.5] *= -1
    return out


def spread_of(fmt: Format, dtype: str) -> tuple[float, float]:
    """Exponents from the format's subnormal numbers to just inside its largest, as far as the dtype has them."""
    bottom = -126 if dtype == "float32" else -1022
    return max(float(fmt.emin - fmt.mantissa_bits), float(bottom)), min(float(fmt.emax), 127.0)


def holds(dtype: str, fmt: str) -> bool:
    """Whether arrays of float32 or float64 hold every value of a format."""
    return named_format(dtype).holds(named_format(fmt))


def check(kind: str, inputs: Sequence[npt.NDArray[Any]], fmt: str, mode: Rounding, got: npt.NDArray[Any]) -> None:
    """Hold some results against the specification, bit for bit.

    Raises
    ------
    WrongResult
        Naming the first operands whose result is wrong.
    """
    size, bits, target = len(got), random_bits(mode), named_format(fmt)
    where = np.unique(np.linspace(0, size - 1, min(size, _CHECKED)).astype(np.int64))
    draws = array_draw(KEY, where, bits) if bits else None
    for i, e in enumerate(where):
        operands = [float(x[e]) for x in inputs]
        expected = exact.operation(kind, operands, target, mode, None if draws is None else int(draws[i]))
        if np.float64(got[e]).tobytes() != np.float64(expected).tobytes():
            raise WrongResult(f"{kind} {fmt} {mode} of {operands} gave {float(got[e])!r}, not {expected!r}")
