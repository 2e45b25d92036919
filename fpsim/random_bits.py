"""Random bits as a pure function of a key and a counter: Philox4x32-10.

The bits are the same on every device, thread count, chunking and order of runs, and after a resume, because nothing but
the key and the place of the draw enters. The golden vectors in the tests freeze the definition.

Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

UInt32 = npt.NDArray[np.uint32]

MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
WEYL_0 = 0x9E3779B9
WEYL_1 = 0xBB67AE85
FOLD = 0x464F4C44  # "FOLD" in ASCII
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Key:
    """A 64-bit key. A value, not a generator: the same key gives the same bits every time.

    Parameters
    ----------
    seed : int in 0..2^64-1

    Raises
    ------
    ValueError
        ``seed`` is no integer of that interval.

    Examples
    --------
    >>> Key(7) == Key(7), Key(7).fold(1) == Key(7).fold(2)
    (True, False)
    """

    seed: int = 0
    k0: int = field(init=False, repr=False, compare=False)
    k1: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.seed, (int, np.integer)) or isinstance(self.seed, bool) or not 0 <= self.seed < 1 << 64:
            raise ValueError(f"Key seed={self.seed!r} is outside 0..2^64-1")
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "k0", self.seed & _LOW)
        object.__setattr__(self, "k1", self.seed >> 32)

    def fold(self, n: int) -> Key:
        """A key of its own for the purpose ``n`` (0..2^64-1): unrelated bits, derived from this key."""
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or not 0 <= n < 1 << 64:
            raise ValueError(f"fold n={n!r} is outside 0..2^64-1")
        n = int(n)
        # The rounds of philox4x32 in Python's integers: networks fold a key for every rounding, and arrays of one
        # number would take ten times as long.
        x0, x1, x2, x3, k0, k1 = n & _LOW, n >> 32, FOLD, 0, self.k0, self.k1
        for _ in range(10):
            p0, p1 = x0 * MULTIPLIER_0, x2 * MULTIPLIER_1
            x0, x1, x2, x3 = (p1 >> 32) ^ x1 ^ k0, p1 & _LOW, (p0 >> 32) ^ x3 ^ k1, p0 & _LOW
            k0, k1 = (k0 + WEYL_0) & _LOW, (k1 + WEYL_1) & _LOW
        return Key(x0 | x1 << 32)


def check_key(key: object) -> None:
    """Raise ``TypeError`` for what is neither a Key nor None; a seed alone is not a key."""
    if key is not None and not isinstance(key, Key):
        raise TypeError(f"key={key!r}: a Key is needed, such as fpsim.Key(seed=0)")


def philox4x32(
    c0: npt.ArrayLike, c1: npt.ArrayLike, c2: npt.ArrayLike, c3: npt.ArrayLike, key: Key, rounds: int = 10
) -> tuple[UInt32, UInt32, UInt32, UInt32]:
    """Four 32-bit words for the counter (c0, c1, c2, c3), elementwise over broadcast arrays."""
    with np.errstate(over="ignore"):
        x0, x1, x2, x3 = (np.asarray(c, dtype=np.uint64) for c in (c0, c1, c2, c3))
        k0, k1 = key.k0, key.k1
        for _ in range(rounds):
            p0 = x0 * np.uint64(MULTIPLIER_0)
            p1 = x2 * np.uint64(MULTIPLIER_1)
            x0, x1, x2, x3 = (
                (p1 >> np.uint64(32)) ^ x1 ^ np.uint64(k0),
                p1 & np.uint64(_LOW),
                (p0 >> np.uint64(32)) ^ x3 ^ np.uint64(k1),
                p0 & np.uint64(_LOW),
            )
            k0, k1 = (k0 + WEYL_0) & _LOW, (k1 + WEYL_1) & _LOW
        words = np.broadcast_arrays(x0, x1, x2, x3)
        w0, w1, w2, w3 = (np.asarray(word, dtype=np.uint32) for word in words)
        return w0, w1, w2, w3


def program_draw(
    key: Key, element: npt.ArrayLike, step: npt.ArrayLike, run: npt.ArrayLike, slot: int, bits: int
) -> UInt32:
    """The draw of ``bits`` random bits of one program slot, elementwise over broadcast element, step and run.

    ``element`` is the C-order index inside one run's array, ``run`` the global run number (both below 2^32), ``step``
    counts from 0 (below 2^48), ``slot`` is the position in ``program.slots``. Words are shared: four slots a counter,
    eight for bits <= 16. A word of one may therefore be two halves of the other: a program in which some slot has more
    than 16 random bits asks for 32 bits everywhere, and takes the top of them.

    Raises
    ------
    ValueError
        A place outside its interval: its counter would be another place's.
    """
    for name, place, width in (("element", element, 32), ("step", step, 48), ("run", run, 32)):
        if np.any(np.asarray(place, dtype=np.uint64) >> np.uint64(width)):
            raise ValueError(f"{name}={np.max(np.asarray(place))} is outside 0..2^{width}-1")
    per_word = 2 if bits <= 16 else 1
    group, position = divmod(slot, 4 * per_word)
    word, half = divmod(position, per_word)
    time = np.asarray(step, dtype=np.uint64)
    words = philox4x32(
        element,
        time & np.uint64(_LOW),
        run,
        np.uint64(group) + ((time >> np.uint64(32)) << np.uint64(16)),
        key,
    )
    return _top_bits(words[word], half, bits)


def array_draw(key: Key, index: npt.ArrayLike, bits: int) -> UInt32:
    """The draw of an array function for the elements at the C-order positions ``index`` of its result."""
    e = np.asarray(index, dtype=np.uint64)
    log_block = 9 if bits <= 16 else 8  # a block of 64 counters serves 256 words or 512 halves
    counter = (e >> np.uint64(log_block)) * np.uint64(64) + (e & np.uint64(63))
    words = np.stack(philox4x32(counter & np.uint64(_LOW), counter >> np.uint64(32), 0, 0, key))
    which = ((e >> np.uint64(6)) & np.uint64(3)).astype(np.intp)
    word = np.take_along_axis(words, which[np.newaxis, ...], axis=0)[0]
    half = (e >> np.uint64(8)) & np.uint64(1) if bits <= 16 else np.zeros_like(e)
    return _top_bits(word, half, bits)


def _top_bits(word: UInt32, half: npt.ArrayLike, bits: int) -> UInt32:
    """The top ``bits`` of a word, or of its low (half 0) or high (half 1) 16 bits when bits <= 16."""
    if bits > 16:
        return (word >> np.uint32(32 - bits)).astype(np.uint32)
    shift = np.asarray(half, dtype=np.uint32) * np.uint32(16)
    return (((word >> shift) & np.uint32(0xFFFF)) >> np.uint32(16 - bits)).astype(np.uint32)
