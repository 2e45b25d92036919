"""Rounding under pytest-benchmark, for comparing two states of the code: ``pytest tests/benchmarks -m benchmark``.

No time is asserted here. ``fpsim bench`` measures against copies and peers and knows the targets.
"""

import numpy as np
import pytest

from experiments.bench.cases import CACHED, KEY, MODES, spread_of, values
from fpsim import arrays, formats

pytest.importorskip("pytest_benchmark")


@pytest.mark.benchmark(group="round")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [CACHED, 1 << 20])
def test_round(benchmark, size, dtype, mode):
    x = values(size, dtype, *spread_of(formats.format("bfloat16"), dtype))
    out = np.empty_like(x)
    benchmark(arrays.round, x, "bfloat16", MODES[mode], KEY, out=out)
    assert np.isfinite(out).all()
