"""Noise, start points and minibatch indices: pure functions of key and counter, exactly symmetric, exactly uniform."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from numba import njit

from experiments import noise, recipes, streams
from experiments.problems import PROBLEMS
from fpsim.random_bits import Key, philox4x32

KEY = Key(2024)


def test_noise_is_the_normal_variate_of_its_counter():
    steps, runs = range((1 << 32) - 2, (1 << 32) + 3), np.array([0, 7, (1 << 32) - 1], dtype=np.uint64)
    got = noise.gaussian(KEY, steps, 5, runs, sigma=0.3)
    for i, step in enumerate(steps):
        high, low, _, _ = philox4x32(
            np.arange(5)[:, None], step & 0xFFFFFFFF, runs[None, :], step >> 32, KEY.fold(streams.NOISE)
        )
        assert np.array_equal(got[i], 0.3 * recipes.normal(high.ravel(), low.ravel()).reshape(5, 3))


def test_noise_does_not_depend_on_chunks_or_lanes():
    whole = noise.gaussian(KEY, range(40), 33, range(50))
    pieces = [noise.gaussian(KEY, range(a, b), 33, range(50)) for a, b in ((0, 1), (1, 17), (17, 40))]
    assert np.array_equal(np.concatenate(pieces), whole)
    order = np.random.default_rng(0).permutation(50)
    assert np.array_equal(noise.gaussian(KEY, range(40), 33, order), whole[:, :, order])
    out = np.empty_like(whole)
    assert noise.gaussian(KEY, range(40), 33, range(50), out=out) is out
    assert np.array_equal(out, whole)


def test_noise_has_the_moments_of_the_normal_law():
    x = noise.gaussian(KEY, range(400), 64, range(80)).ravel()  # 2 million
    count = len(x)
    for moment, expected, spread in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(np.mean(x**moment) - expected) < 4.0 * np.sqrt(spread / count)
    assert abs(np.mean(x[:-1] * x[1:])) < 4.0 / np.sqrt(count)


def test_noise_golden_bits():
    x = noise.gaussian(Key(7), range(3, 9), 11, range(5, 12), sigma=0.125)
    assert hashlib.sha256(x.tobytes()).hexdigest()[:16] == "10128cf5b77fe7d4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": -1.0}, r"sigma=-1.0 is outside \[0, inf\)"),
        ({"sigma": float("nan")}, "sigma=nan"),
        ({"runs": [-1]}, "run number -1 is outside 0..2"),
        ({"runs": [1 << 32]}, "run number 4294967296"),
        ({"steps": range(0, 9, 2)}, "consecutive"),
        ({"out": np.empty((1, 1, 1))}, "float64"),
    ],
)
def test_bad_noise_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        noise.gaussian(**{"key": KEY, "steps": range(2), "dimension": 3, "runs": [0, 1]} | arguments)


def test_with_noise_appends_one_rounded_addition():
    for name in ("quadratic", "rational"):
        plain = PROBLEMS[name]().program
        noisy = noise.with_noise(plain)
        assert noisy.operations[:-1] == plain.operations
        last = noisy.operations[-1]
        assert (last.kind, last.slot, last.operands) == ("add", "noisy", (dict(plain.outputs)["g"], "noise"))
        assert noisy.inputs == (*plain.inputs, "noise")
        assert noisy.outputs == (("g", "noisy"),)


def test_start_words_are_exactly_symmetric_uniform():
    x = streams.uniform(KEY, 40, range(5000))
    high, low, _, _ = philox4x32(np.arange(40)[:, None], 0, np.arange(5000)[None, :], 0, KEY)
    k = (high.astype(np.int64) & 0xFFFFF) << 32 | low
    assert np.array_equal(np.abs(x) * 2.0**52 - 0.5, k)  # every step of the map is exact
    assert np.array_equal(x < 0, high >= 1 << 31)
    assert abs(x.mean()) < 4 * np.sqrt(1 / 3 / x.size)
    assert abs((x**2).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / x.size)


def drawn_by_definition(key: Key, j: int, step: int, run: int, count: int) -> int:
    for attempt in range(1000):
        for word in philox4x32(j + (attempt << 16), step & 0xFFFFFFFF, run, step >> 32, key):
            if int(word) * count % (1 << 32) >= (1 << 32) % count:
                return int(word) * count >> 32
    raise AssertionError


@pytest.mark.parametrize("count", [1, 2, 569, (1 << 31) + 1, 3 << 30, (1 << 32) - 1])
def test_indices_follow_their_definition(count):
    """Counts near 2^31 reject every other word, so that the rare branch is walked through, several counters deep."""
    runs, step = np.arange(64, dtype=np.uint32), (5 << 32) + 3
    out = np.empty((16, 64), dtype=np.int64)
    streams.indices(KEY, step, runs, count, out)
    assert out.tolist() == [[drawn_by_definition(KEY, j, step, run, count) for run in range(64)] for j in range(16)]


@njit(nogil=True)
def _accepted(first, last, count):
    threshold, total = np.uint64(2**32) % np.uint64(count), 0
    for word in range(first, last):
        total += (np.uint64(word) * np.uint64(count) & np.uint64(0xFFFFFFFF)) >= threshold
    return total


def test_the_map_from_words_to_indices_is_exactly_uniform():
    """All 2^32 words: those that map to k are an interval, and equally many of each interval pass."""
    count = 569
    edges = [-(-(k << 32) // count) for k in range(count + 1)]
    assert [edge * count >> 32 for edge in edges[:-1]] == list(range(count))
    assert [(edge - 1) * count >> 32 for edge in edges[1:]] == list(range(count))
    passed = {_accepted(a, b, count) for a, b in itertools.pairwise(edges)}
    assert passed == {(1 << 32) // count}
