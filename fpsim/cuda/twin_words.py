"""Philox4x32-10 on int64 tensors: the words of ``fpsim.random_bits``, which defines what they are.

A product of 32 by 32 bits does not fit into int64. It is formed from halves of 16 bits, whose products do.
"""

from __future__ import annotations

from typing import Any

import torch

from fpsim.cuda.twin_magnitudes import Tensor
from fpsim.random_bits import MULTIPLIER_0, MULTIPLIER_1, WEYL_0, WEYL_1, Key

_LOW = 0xFFFFFFFF


def philox(c0: Tensor, c1: Tensor | int, c2: Tensor | int, c3: Tensor | int, key: Key) -> tuple[Tensor, ...]:
    """Four words for the counters (c0, c1, c2, c3), int64 tensors of 32-bit values that broadcast, or integers."""
    x0, x1, x2, x3 = (torch.as_tensor(c, dtype=torch.int64, device=c0.device) for c in (c0, c1, c2, c3))
    k0, k1 = key.k0, key.k1
    for _ in range(10):
        high0, low0 = _product(x0, MULTIPLIER_0)
        high1, low1 = _product(x2, MULTIPLIER_1)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + WEYL_0) & _LOW, (k1 + WEYL_1) & _LOW
    return tuple(torch.broadcast_tensors(x0, x1, x2, x3))


def _product(x: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The upper and lower 32 bits of a 32 x 32 bit product."""
    low, high = x * (m & 0xFFFF), x * (m >> 16)  # below 2^48 each
    high = high + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def program_place(slot: int, drawn: int) -> tuple[int, int, int]:
    """(group of the counter, word, half) that holds the draw of a slot; ``drawn`` is 16 or 32 bits."""
    per_word = 2 if drawn <= 16 else 1
    group, position = divmod(slot, 4 * per_word)
    return group, *divmod(position, per_word)


def program_words(key: Key, element: Tensor, step: int, run: Tensor, group: int) -> tuple[Tensor, ...]:
    """The words of a group of slots in one step; ``element`` and ``run`` broadcast."""
    return philox(element, step & _LOW, run, group + ((step >> 32) << 16), key)


def array_draw(key: Key, elements: range, bits: int, device: Any) -> Tensor:
    """The draws of an array function for the elements of its result that have these numbers in C order.

    A block of 64 counters serves 256 elements: the first word of each, then the second one, and so on; or 512, by the
    lower halves of all words and then by the upper ones.
    """
    length = 512 if bits <= 16 else 256
    first, end = elements.start // length, -(-elements.stop // length)
    counter = torch.arange(first * 64, end * 64, dtype=torch.int64, device=device)
    words = torch.stack([word.reshape(-1, 64) for word in philox(counter & _LOW, counter >> 32, 0, 0, key)], 1)
    draws = torch.stack([top_bits(words, half, bits, bits) for half in range(length // 256)], 1).reshape(-1)
    return draws[elements.start - first * length : elements.stop - first * length]


def top_bits(word: Tensor, half: int, drawn: int, bits: int) -> Tensor:
    """The top ``bits`` of a word, or of its low (half 0) or high (half 1) 16 bits where ``drawn`` is at most 16."""
    if drawn > 16:
        return word >> (32 - bits)
    return ((word >> (half * 16)) & 0xFFFF) >> (16 - bits)
