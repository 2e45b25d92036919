"""The random words behind start points, noise and minibatches: which counter of which key each of them reads.

Each purpose has a key of its own, ``key.fold(START)`` and so on. A counter is (element, step low 32 bits, run, step
high 32 bits), so a draw depends on nothing but its place: not on chunks, on lanes or on what was drawn before.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from experiments.jit import inline, kernel
from fpsim.random_bits import Key, philox4x32

UInt32 = npt.NDArray[np.uint32]

# The purposes, as ASCII words.
START = 0x53545254
NOISE = 0x4E4F4953
MINIBATCH = 0x42415443
ROTATION = 0x524F5441


@inline
def _philox_round(x0, x1, x2, x3, k0, k1, i):
    p0 = np.uint64(x0) * np.uint64(0xD2511F53)
    p1 = np.uint64(x2) * np.uint64(0xCD9E8D57)
    key0 = np.uint32(k0 + np.uint32(i) * np.uint32(0x9E3779B9))
    key1 = np.uint32(k1 + np.uint32(i) * np.uint32(0xBB67AE85))
    return (
        np.uint32(np.uint32(p1 >> np.uint64(32)) ^ x1 ^ key0),
        np.uint32(p1),
        np.uint32(np.uint32(p0 >> np.uint64(32)) ^ x3 ^ key1),
        np.uint32(p0),
    )


@inline
def philox(x0, x1, x2, x3, k0, k1):
    """Philox4x32-10 as in ``fpsim.random_bits``; unrolled, because a loop over the rounds would not vectorise."""
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 0)
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 1)
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 2)
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 3)
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 4)
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 5)
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 6)
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 7)
    x0, x1, x2, x3 = _philox_round(x0, x1, x2, x3, k0, k1, 8)
    return _philox_round(x0, x1, x2, x3, k0, k1, 9)


@kernel
def _index_kernel(out, step, run, count, k0, k1):
    step_low, step_high = np.uint32(step), np.uint32(step >> np.uint64(32))
    size = np.uint64(count)
    threshold = np.uint64(2**32) % size
    low_half = np.uint64(0xFFFFFFFF)
    for j in range(out.shape[0]):
        row = out[j]
        rejected = np.uint64(0)
        for i in range(run.shape[0]):
            w0, _, _, _ = philox(np.uint32(j), step_low, run[i], step_high, k0, k1)
            product = np.uint64(w0) * size
            row[i] = np.int64(product >> np.uint64(32))
            rejected |= np.uint64((product & low_half) < threshold)
        attempt = 0
        while rejected != 0:  # rare: redo the row by the definition, word after word, counter after counter
            rejected = np.uint64(0)
            for i in range(run.shape[0]):
                done = False
                for a in range(attempt + 1):
                    words = philox(np.uint32(j + (a << 16)), step_low, run[i], step_high, k0, k1)
                    for word in words:
                        product = np.uint64(word) * size
                        if not done and (product & low_half) >= threshold:
                            row[i] = np.int64(product >> np.uint64(32))
                            done = True
                rejected |= np.uint64(not done)
            attempt += 1


def indices(key: Key, step: int, runs: npt.ArrayLike, count: int, out: npt.NDArray[np.int64]) -> None:
    """Fill ``out`` [batch, len(runs)] with indices in 0..count-1, independent and exactly uniform.

    Index j of a run reads the words of the counters (j + 2^16 a, step low, run, step high), a = 0, 1, .., in order and
    takes the first word x with (x * count mod 2^32) >= (2^32 mod count); the index is floor(x * count / 2^32). The
    words that pass split evenly over the indices (Lemire, "Fast random integer generation in an interval", TOMACS
    2019).
    """
    _index_kernel(out, np.uint64(step), run_numbers(runs), count, np.uint32(key.k0), np.uint32(key.k1))


def run_numbers(runs: npt.ArrayLike) -> UInt32:
    """Run numbers as counter words; they must lie in 0..2^32-1."""
    numbers = np.asarray(runs)
    if numbers.dtype == np.uint32:
        return numbers
    outside = (numbers < 0) | (numbers >= 1 << 32)
    if outside.any():
        raise ValueError(f"run number {numbers[outside][0]} is outside 0..2^32-1")
    return numbers.astype(np.uint32)


def uniform(key: Key, dimension: int, runs: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Uniform numbers in (-1, 1), ``[dimension, len(runs)]``; exactly symmetric, never 0.

    Words 0 and 1 of the counter (element, 0, run, 0): the top bit of word 0 is the sign, its low 20 bits and word 1 are
    k, the magnitude is (k + 1/2) 2^-52.
    """
    high, low, _, _ = philox4x32(np.arange(dimension)[:, None], 0, run_numbers(runs)[None, :], 0, key)
    k = ((high & np.uint32(0xFFFFF)).astype(np.int64) << 32) | low
    return np.where(high < 1 << 31, 1.0, -1.0) * ((k + 0.5) * 2.0**-52)


@functools.lru_cache(maxsize=64)
def folded(key: Key, purpose: int) -> Key:
    """``key.fold(purpose)``, remembered: it is asked for in every step."""
    return key.fold(purpose)
