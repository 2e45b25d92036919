"""A language whose entropy is known: a Markov chain of first order, drawn anew for every batch."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import numpy.typing as npt

from experiments.datasets import TOKENS
from experiments.datasets.base import Batch, Dataset
from experiments.problems.base import checked_integer
from fpsim.random_bits import Key, philox4x32

LANGUAGE, EVALUATION, START = 0x4C414E47, 0x4556414C, 0x53545254  # "LANG", "EVAL", "STRT"
UNIT = 1 << 16  # probabilities are whole numbers of 1/65536, so that drawing from random words is exact
LEAST = 64  # of a probability, in that unit
MOST_EVALUATION = 1 << 12


class Markov(Dataset):
    """Sequences of a stationary chain; ``floor`` is its entropy rate in nats a token.

    No predictor has a smaller expected cross-entropy: what is known of the next token beyond the present one is
    nothing, and the first token of a sample has the stationary law (its probabilities rounded to 2^-32).
    """

    name, kind = "markov", TOKENS

    def __init__(self, tokens: int, length: int, key: Key) -> None:
        self.outputs, self.inputs = (
            checked_integer("tokens", tokens, 2, 64),
            (checked_integer("length", length, 1, 4096),),
        )
        self.counts = _counts(tokens, key.fold(LANGUAGE))
        self._edges = np.cumsum(self.counts, axis=1)
        self.stationary = _stationary(self.counts)
        self.floor = _entropy_rate(self.counts, self.stationary)
        self._first = np.array([math.floor(sum(self.stationary[: i + 1]) * 2**32) for i in range(tokens)])
        self._key = key
        self.record = {"tokens": tokens, "entropy": self.floor}

    def batch(self, key: Key, step: int, size: int) -> Batch:
        return self._drawn(key.fold(step), checked_integer("batch", size, 1, 1 << 16))

    def evaluation(self, size: int) -> Batch:
        return self._drawn(
            self._key.fold(EVALUATION), min(checked_integer("evaluation", size, 1, 1 << 24), MOST_EVALUATION)
        )

    def loss_of_law(self, x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> float:
        """The cross-entropy of the chain's own probabilities on some samples: its mean over all is ``floor``."""
        return math.fsum(-math.log(c / UNIT) for c in self.counts[x, y].reshape(-1).tolist()) / x.size

    def _drawn(self, key: Key, size: int) -> Batch:
        """Token t of sample i reads word t mod 4 of the counter (t div 4, i); the first has 32 bits, the others 16."""
        (length,) = self.inputs
        quads = np.arange((length + 4) // 4)
        words = np.stack(philox4x32(quads[:, None], np.arange(size)[None, :], START, 0, key), axis=1)
        words = words.reshape(4 * len(quads), size)
        rows = np.empty((size, length + 1), np.int64)
        rows[:, 0] = np.searchsorted(self._first[:-1], words[0], side="right")
        for t in range(1, length + 1):
            rows[:, t] = ((words[t] >> np.uint32(16))[:, None] >= self._edges[rows[:, t - 1], :-1]).sum(axis=1)
        return rows[:, :-1], rows[:, 1:]


def markov(*, tokens: int = 16, length: int = 32, data_seed: int = 0) -> Markov:
    """A language of ``tokens`` (2..64) tokens; a sample is ``length`` of them.

    Each row of the table of transitions is a random partition of 65536, of which every token has at least 64.

    Examples
    --------
    >>> language = markov(tokens=4)
    >>> 0.0 < language.floor < 1.3862943611198906  # log 4
    True
    """
    return Markov(tokens, length, Key(checked_integer("data_seed", data_seed, 0, (1 << 63) - 1)))


def _counts(tokens: int, key: Key) -> npt.NDArray[np.int64]:
    """[tokens, tokens], rows that sum to 65536: the squares of random words, in proportion, above ``LEAST``."""
    words = philox4x32(np.arange(tokens)[:, None], np.arange(tokens)[None, :], 0, 0, key)[0].astype(object)
    free, rows = UNIT - LEAST * tokens, []
    for row in words:
        weights = [int(word) ** 4 + 1 for word in row]  # a high power: few tokens are likely
        counts = [LEAST + free * weight // sum(weights) for weight in weights]
        counts[int(np.argmax(row))] += UNIT - sum(counts)
        rows.append(counts)
    return np.array(rows, dtype=np.int64)


def _stationary(counts: npt.NDArray[np.int64]) -> list[Fraction]:
    """pi = pi P with sum 1, in rational arithmetic: Gaussian elimination on the columns of P - 1 (Grassmann, Taksar
    and Heyman, Operations Research 1985, which subtracts nothing)."""
    n = len(counts)
    a = [[Fraction(int(c), UNIT) for c in row] for row in counts]
    for k in range(n - 1, 0, -1):
        out = sum(a[k][:k])
        for i in range(k):
            a[i][k] /= out
            for j in range(k):
                a[i][j] += a[i][k] * a[k][j]
    pi = [Fraction(1)]
    for k in range(1, n):
        pi.append(sum((pi[i] * a[i][k] for i in range(k)), Fraction(0)))
    return [p / sum(pi) for p in pi]


def _entropy_rate(counts: npt.NDArray[np.int64], stationary: list[Fraction]) -> float:
    """- sum_i pi_i sum_j P_ij log P_ij, with 60 digits, rounded once."""
    mp = mpmath.MPContext()
    mp.dps = 60
    total = mp.mpf(0)
    for p, row in zip(stationary, counts.tolist(), strict=True):
        inner = mp.fsum(-mp.mpf(c) / UNIT * mp.log(mp.mpf(c) / UNIT) for c in row)
        total += mp.mpf(p.numerator) / mp.mpf(p.denominator) * inner
    return float(total)
