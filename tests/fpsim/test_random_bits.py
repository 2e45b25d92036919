"""Philox4x32-10 and the definition of the draws, frozen by golden vectors and a scalar implementation of their own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fpsim.random_bits import Key, array_draw, philox4x32, program_draw

# Rounds, counter, key, output. The first three rows of ten rounds are Random123's kat_vectors.
GOLDEN = [
    (10, "00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (10, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    (10, "00000001 00000000 00000000 00000000", "00000000 00000000", "f8e4cca4 5cb200db b1a574eb 097eff67"),
    (7, "00000000 00000000 00000000 00000000", "00000000 00000000", "5f6fb709 0d893f64 4f121f81 4f730a48"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def philox(counter: tuple[int, int, int, int], k0: int, k1: int) -> tuple[int, int, int, int]:
    """Salmon et al. 2011, section 3.3, with Python integers."""
    a, b, c, d = counter
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (second >> 32) ^ b ^ k0, second % 2**32, (first >> 32) ^ d ^ k1, first % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return a, b, c, d


def draw_of_a_program(key: Key, element: int, step: int, run: int, slot: int, bits: int) -> int:
    """DESIGN section 2, word for word."""
    low, high = step % 2**32, step // 2**32
    group = slot >> 2 if bits > 16 else slot >> 3
    block = philox((element, low, run, group + (high << 16)), key.k0, key.k1)
    if bits > 16:
        return block[slot & 3] >> (32 - bits)
    word = block[(slot & 7) >> 1]
    half = word >> 16 if slot & 1 else word & 0xFFFF
    return half >> (16 - bits)


def draw_of_an_array(key: Key, e: int, bits: int) -> int:
    block_of = e >> 8 if bits > 16 else e >> 9  # blocks of 256 words or 512 halves
    counter = block_of * 64 + (e & 63)
    block = philox((counter % 2**32, counter >> 32, 0, 0), key.k0, key.k1)
    word = block[(e >> 6) & 3]
    if bits > 16:
        return word >> (32 - bits)
    half = word >> 16 if (e >> 8) & 1 else word & 0xFFFF
    return half >> (16 - bits)


@pytest.mark.parametrize(("rounds", "counter", "key", "expected"), GOLDEN)
def test_known_answers(rounds: int, counter: str, key: str, expected: str) -> None:
    k0, k1 = words(key)
    assert [int(w) for w in philox4x32(*words(counter), Key(k0 | k1 << 32), rounds=rounds)] == words(expected)
    if rounds == 10:
        assert list(philox(tuple(words(counter)), k0, k1)) == words(expected)  # type: ignore[arg-type]


def test_vectorised_over_broadcast_counters() -> None:
    rng = np.random.default_rng(1)
    c = rng.integers(0, 2**32, (4, 50), dtype=np.uint64)
    block = philox4x32(c[0][:, None], c[1][:, None], c[2][:, None], c[3][None, :], Key(0x123456789ABCDEF0))
    assert all(w.shape == (50, 50) and w.dtype == np.uint32 for w in block)
    for i, j in ((0, 0), (3, 41), (49, 49)):
        expected = philox((int(c[0, i]), int(c[1, i]), int(c[2, i]), int(c[3, j])), 0x9ABCDEF0, 0x12345678)
        assert tuple(int(w[i, j]) for w in block) == expected


def test_keys() -> None:
    key = Key(0x0123456789ABCDEF)
    assert (key.k0, key.k1) == (0x89ABCDEF, 0x01234567)
    assert Key(5) == Key(np.uint64(5))
    assert hash(Key(5)) == hash(Key(np.int32(5)))
    folded = key.fold(0x1122334455667788)
    assert (folded.k0, folded.k1) == philox((0x55667788, 0x11223344, 0x464F4C44, 0), key.k0, key.k1)[:2]
    assert (Key(0).fold(0).seed, Key(0).fold(1).seed) == (0x8460F70018FEAC33, 0x6043601181F85537)
    assert len({key.fold(n).seed for n in range(1000)} | {key.seed}) == 1001


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "1", None])
def test_bad_seeds_raise(seed: object) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.2\^64-1"):
        Key(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [-1, 2**64])
def test_bad_folds_raise(n: int) -> None:
    with pytest.raises(ValueError, match=f"fold n={n}"):
        Key(0).fold(n)


@pytest.mark.parametrize("bits", [1, 7, 15, 16, 17, 24, 32])
def test_program_draws(bits: int) -> None:
    key = Key(0xFEDCBA9876543210)
    places = itertools.product((0, 1, 63, 2**32 - 1), (0, 5, 2**32 + 3, 2**48 - 1), (0, 7, 2**32 - 1), range(19))
    for element, step, run, slot in places:
        assert int(program_draw(key, element, step, run, slot, bits)) == draw_of_a_program(
            key, element, step, run, slot, bits
        )
    many = program_draw(key, np.arange(5)[:, None], 3, np.arange(4, dtype=np.uint64), 9, bits)
    assert many.dtype == np.uint32
    assert many.tolist() == [[draw_of_a_program(key, e, 3, r, 9, bits) for r in range(4)] for e in range(5)]


def test_every_slot_has_bits_of_its_own() -> None:
    """Words of a counter, halves of a word: no two of 64 slots share theirs, in one step and between steps."""
    for bits in (16, 32):
        draws = [
            program_draw(Key(3), np.arange(8), step, 0, slot, bits).tolist() for step in (0, 1) for slot in range(64)
        ]
        assert len({tuple(draw) for draw in draws}) == 128


@pytest.mark.parametrize(("name", "width"), [("element", 32), ("step", 48), ("run", 32)])
def test_places_outside_the_counter_raise(name: str, width: int) -> None:
    place = {"element": 0, "step": 0, "run": 0, name: [0, 2**width]}
    with pytest.raises(ValueError, match=f"{name}={2**width} is outside"):
        program_draw(Key(0), **place, slot=0, bits=8)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1, 8, 16, 17, 32])
def test_array_draws(bits: int) -> None:
    key = Key(42)
    places = [*range(0, 2100, 13), 2**38, 2**41 + 77]
    expected = [draw_of_an_array(key, e, bits) for e in places]
    assert array_draw(key, places, bits).tolist() == expected
    assert int(array_draw(key, places[-1], bits)) == expected[-1]


@pytest.mark.parametrize("bits", [16, 32])
def test_array_draws_use_every_bit_once(bits: int) -> None:
    """1024 places take 1024 different words or halves out of 1024 * bits / 128 counters."""
    halves = array_draw(Key(1), np.arange(1024), bits)
    counters = np.arange(1024 * bits // 128)
    block = np.stack(philox4x32(counters, 0, 0, 0, Key(1))).ravel()
    pieces = block if bits == 32 else np.concatenate([block & 0xFFFF, block >> 16])
    assert sorted(halves.tolist()) == sorted(pieces.tolist())


def test_golden_draws() -> None:
    """Frozen values: a change here changes every stochastic result ever stored."""
    key = Key(2024)
    assert [int(program_draw(key, 3, 10, 2, slot, 16)) for slot in range(9)] == GOLDEN_HALVES
    assert [int(program_draw(key, 3, 10, 2, slot, 32)) for slot in range(5)] == GOLDEN_WORDS
    assert array_draw(key, [0, 1, 63, 64, 255, 256, 511, 512], 16).tolist() == GOLDEN_ARRAY_HALVES
    assert array_draw(key, [0, 1, 63, 64, 255, 256], 32).tolist() == GOLDEN_ARRAY_WORDS


GOLDEN_HALVES = [0x8902, 0x1FB9, 0x1CEA, 0x3F60, 0x80AC, 0xA471, 0x3DF5, 0xE62D, 0xAC64]
GOLDEN_WORDS = [0x1FB98902, 0x3F601CEA, 0xA47180AC, 0xE62D3DF5, 0x0A0AAC64]
GOLDEN_ARRAY_HALVES = [0x6B73, 0x14EF, 0x643D, 0x9046, 0xB0DC, 0x9A8B, 0xBF41, 0xE478]
GOLDEN_ARRAY_WORDS = [0x9A8B6B73, 0x58A614EF, 0xA490643D, 0x44C09046, 0xBF41B0DC, 0x8AA3E478]


@pytest.mark.parametrize("n", [-1, 1 << 64, 1.5, "x", True])
def test_a_fold_takes_whole_numbers(n: Any) -> None:
    with pytest.raises(ValueError, match="fold n="):
        Key(0).fold(n)
