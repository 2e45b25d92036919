"""The fixed recipes: accurate as claimed, the same bits everywhere, exactly symmetric."""

from __future__ import annotations

import hashlib
import math
import struct

import mpmath
import numpy as np
import pytest

from experiments import recipes
from fpsim.random_bits import Key, philox4x32

GOLDEN = {
    "exp": "6ac5db58c228b1f3",
    "log": "8d1fd2b60ca11500",
    "sigmoid": "c950c450135faa08",
    "softplus": "e27cb59e685e7300",
    "normal": "14d0d25324b00e6e",
}

MP = mpmath.MPContext()
MP.prec = 140


def worst(got: np.ndarray, exact: list) -> tuple[float, float]:
    """Largest error in ulps and largest relative error in units of u = 2^-53."""
    ulps, relative = 0.0, 0.0
    for g, e in zip(got.tolist(), exact, strict=True):
        error = abs(MP.mpf(g) - e)
        ulps = max(ulps, float(error / math.ulp(abs(float(e)))))
        relative = max(relative, float(error / abs(e)) * 2.0**53)
    return ulps, relative


def spread(low: float, high: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(low, high, 2000), rng.uniform(-1.5, 1.5, 2000), [0.0, -0.0, 1e-300, -1e-17]])


def test_exp_keeps_its_bound():
    x = spread(-700.0, 700.0, 1)
    ulps, relative = worst(recipes.exp(x), [MP.exp(MP.mpf(v)) for v in x.tolist()])
    assert relative * recipes.UNIT <= recipes.EXP_ERROR
    assert ulps <= 1.2


def test_sigmoid_keeps_its_bound():
    x = spread(-700.0, 60.0, 2)
    ulps, relative = worst(recipes.sigmoid(x), [1 / (1 + MP.exp(-MP.mpf(v))) for v in x.tolist()])
    assert relative * recipes.UNIT <= recipes.SIGMOID_ERROR
    assert ulps <= 2.5


def test_log_and_softplus_are_accurate():
    x = np.concatenate([np.exp(spread(-37.0, 0.0, 3)), [2.0**-54, 1.0 + 2.0**-52, 1.0 - 2.0**-53, 2.0**-1022]])
    x = x[x != 1.0]  # log 1 = 0 has no relative error; it is exact:
    assert recipes.log(np.array([1.0]))[0] == 0.0
    assert worst(recipes.log(x), [MP.log(MP.mpf(v)) for v in x.tolist()])[0] <= 1.0
    x = spread(-600.0, 600.0, 4)
    assert worst(recipes.softplus(x), [MP.log1p(MP.exp(MP.mpf(v))) for v in x.tolist()])[0] <= 2.5


def test_exp_at_the_ends():
    x = np.array([710.0, 1e308, np.inf, -745.2, -np.inf, np.nan, -740.0, 709.7])
    with np.errstate(over="ignore"):
        got, libm = recipes.exp(x), np.exp(x)
    assert np.array_equal(got[:5], [np.inf, np.inf, np.inf, 0.0, 0.0])
    assert math.isnan(got[5])
    assert got[6] == pytest.approx(libm[6], abs=2e-323)
    assert got[7] == pytest.approx(libm[7], rel=1e-15)


def test_the_kernels_do_what_is_written():
    """The same operations in Python floats, which know no fused multiply-add: contraction would show here."""

    def bits(x: float) -> int:
        return struct.unpack("<q", struct.pack("<d", x))[0]

    def number(b: int) -> float:
        return struct.unpack("<d", struct.pack("<q", b))[0]

    def exp(x: float) -> float:
        shifted = x * float.fromhex("0x1.71547652b82fep+0") + 1.5 * 2.0**52
        n = shifted - 1.5 * 2.0**52
        r = (x - n * float.fromhex("0x1.62e42feep-1")) - n * float.fromhex("0x1.a39ef35793c76p-33")
        q = 1.0 / math.factorial(13)
        for k in range(12, -1, -1):
            q = q * r + 1.0 / math.factorial(k)
        return math.ldexp(q, int(n))

    def log(x: float) -> float:
        moved = bits(x) + 0x3FF0000000000000 - 0x3FE6A09E667F3BCD
        f = number((moved & ((1 << 52) - 1)) + 0x3FE6A09E667F3BCD) - 1.0
        k = float((moved >> 52) - 1023)
        s = f / (2.0 + f)
        z = s * s
        q = 2.0 / 23.0
        for i in range(10, 0, -1):
            q = q * z + 2.0 / (2 * i + 1)
        h = 0.5 * f * f
        low = float.fromhex("0x1.a39ef35793c76p-33")
        return k * float.fromhex("0x1.62e42feep-1") - ((h - (s * (h + q * z) + k * low)) - f)

    x = spread(-700.0, 700.0, 5)
    assert np.array_equal(recipes.exp(x), [exp(v) for v in x.tolist()])
    positive = np.abs(x[np.abs(x) > 1e-30])
    assert np.array_equal(recipes.log(positive), [log(v) for v in positive.tolist()])


def words(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Words that visit the centre, the middle tail and the far tail (p < e^-25) of the normal law."""
    rng = np.random.default_rng(6)
    high = rng.integers(0, 1 << 20, count).astype(np.uint32)
    low = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    high[: count // 4] >>= rng.integers(0, 21, count // 4).astype(np.uint32)
    high[: count // 8] = 0
    low[: count // 10] >>= rng.integers(0, 33, count // 10).clip(max=31).astype(np.uint32)
    low[0] = 0
    return high, low


def test_normal_inverts_the_distribution_function():
    high, low = words(1600)
    ulps = 0.0
    for h, lo, got in zip(high.tolist(), low.tolist(), recipes.normal(high, low).tolist(), strict=True):
        k = (h << 32) | lo
        exact = MP.sqrt(2) * MP.erfinv((MP.mpf(2) ** 53 - 2 * k - 1) / MP.mpf(2) ** 53)
        ulps = max(ulps, float(abs(MP.mpf(got) - exact) / math.ulp(float(exact))))
    assert ulps <= 6.0


def test_normal_is_exactly_symmetric_and_bounded():
    high, low = words(4000)
    x = recipes.normal(high, low)
    assert np.array_equal(recipes.normal(high | np.uint32(1 << 31), low), -x)
    assert x.min() > 0.0  # p < 1/2 strictly: the law has no atom at 0
    assert 8.29 < x[0] == x.max() <= recipes.NORMAL_MAX
    # bits 20..30 are not used
    assert np.array_equal(recipes.normal(high | np.uint32(0x7FF00000), low), x)


def test_golden_bits():
    """Frozen: a change here changes every trajectory with noise."""
    x = (np.arange(1001) - 500) / 16.0
    high, low, _, _ = philox4x32(np.arange(1001), 0, 0, 0, Key(5))
    digest = {
        "exp": recipes.exp(x),
        "log": recipes.log((np.arange(1001) + 1) / 64.0),
        "sigmoid": recipes.sigmoid(x),
        "softplus": recipes.softplus(x),
        "normal": recipes.normal(high, low),
    }
    found = {name: hashlib.sha256(value.tobytes()).hexdigest()[:16] for name, value in digest.items()}
    assert found == GOLDEN


def test_results_do_not_depend_on_place_or_layout():
    x = np.random.default_rng(8).normal(size=(37, 23))
    whole = recipes.sigmoid(x)
    assert np.array_equal(recipes.sigmoid(x[5:6, 3:4]), whole[5:6, 3:4])
    assert np.array_equal(recipes.sigmoid(x.T), whole.T)
    out = np.empty_like(x)
    assert recipes.sigmoid(x, out=out) is out
    assert np.array_equal(out, whole)
    with pytest.raises(ValueError, match="overlaps"):
        recipes.sigmoid(x, out=x)
