"""What the operations themselves cost: one step of Adam on a strip that stays in the first-level cache.

Written out by hand, with the format's constants compiled in: no machine, no table, no check for what is beyond the
largest value. It rounds with the emulator's own definitions and draws its random words, so it computes the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.cpu import codes, jit
from fpsim.cpu.bits import SIGN, ZERO, from_bits, pointer, to_bits
from fpsim.cpu.format_table import HIGHEST, LOWEST, MAGIC, QUANTUM, tables
from fpsim.cpu.fused_kernels import WIDEST_FIXED
from fpsim.cpu.operation_elements import compute
from fpsim.cpu.random_words import fill_words
from fpsim.cpu.rounding_elements import draw_of, fixed_point, magnitude_within
from fpsim.cpu.tiers import Range, choose
from fpsim.number_format import Format
from fpsim.rounding import Rounding, code, random_bits

STRIP = 256
OPERATIONS = 16
W, M, V, CENTER, CURVATURE, BETA1, REST1, BETA2, REST2, CORRECTION1, CORRECTION2, EPS, LR = range(13)
ROWS = 18  # and five for intermediate results
_G, _X, _Y, _Z, _U = range(13, 18)
_N = np.uint64(STRIP)
_LOW = np.uint64(0xFFFFFFFF)


@jit.inline
def _operation(
    kind: int, tier: int, mode: int, slot: int, row: Any, right: Any, rows: Any, words: Any, a: int, b: int, to: int
) -> None:
    """rows[to] = rows[a] (kind) rows[b]; ``slot`` numbers the random bits as in the program."""
    u, v, d = np.uint64(a) * _N, np.uint64(b) * _N, np.uint64(to) * _N
    place = slot // 2 if right >= np.uint64(16) else slot
    left = np.uint64(16) if right >= np.uint64(16) and slot % 2 == 0 else ZERO
    first, kept = np.uint64(place) * _N, (_LOW >> right) << right
    for i in range(_N):
        x, y = rows[u + i], rows[v + i]
        if kind == codes.SUB:
            y = from_bits(to_bits(y) ^ SIGN)
        value, _ = compute(codes.ADD if kind == codes.SUB else kind, tier, mode, x, y, y)
        bits = to_bits(value)
        if mode == codes.FIXED:
            size = fixed_point(bits, row, ((words[first + i] << left) & _LOW) & kept)
        else:
            draw = draw_of(words[first + i], left, right) if mode == codes.STOCHASTIC else ZERO
            size = magnitude_within(mode, bits, row, draw)
        rows[d + i] = from_bits(to_bits(size) | (bits & SIGN))


def steps_on_a_strip(fmt: Format, rounding: Rounding) -> Any:
    """A compiled function (rows, words, elements, runs, key0, key1, first step, steps) that overwrites W, M and V."""
    sources, bits, mode = jit.SOURCES, random_bits(rounding), code(rounding)
    of_format = Range.of_format(fmt)
    tier = {kind: choose(kind, [of_format] * (1 if kind == "sqrt" else 2), fmt, rounding)
            for kind in ("add", "mul", "div", "sqrt")}  # fmt: skip
    cut = codes.ODD if rounding == "nearest_even" else codes.CUT
    add, mul, div, root = (codes.PLAIN if tier[kind] == codes.PLAIN else cut for kind in tier)
    if mode == codes.STOCHASTIC and fmt.mantissa_bits <= WIDEST_FIXED:
        mode = codes.FIXED
    integers, _ = tables([(fmt, bits)])
    lowest, highest, magic, shift = (int(integers[0, i]) for i in (LOWEST, HIGHEST, MAGIC, QUANTUM))
    groups = 0 if bits == 0 else 3 if bits <= 16 else 5

    @jit.entry
    def run(given: Any, drawn: Any, elements: Any, runs: Any, key0: Any, key1: Any, first_step: int, steps: int) -> int:
        r, w, right = pointer(given), pointer(drawn), np.uint64(32 - bits)
        # As ``format_row``; what is behind the first four belongs to overflow and to other modes.
        q = (
            np.uint64(lowest), np.uint64(highest), np.uint64(magic), np.uint64(shift),
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ZERO,
        )  # fmt: skip
        for t in range(first_step, first_step + steps):
            for g in range(groups):
                fill_words(
                    w, np.uint64(4 * g) * _N, _N, elements, np.uint64(t), runs, np.uint64(g), key0, key1, _N
                )  # fmt: skip
            _operation(codes.SUB, add, mode, 1, q, right, r, w, W, CENTER, _X)
            _operation(codes.MUL, mul, mode, 2, q, right, r, w, CURVATURE, _X, _G)
            _operation(codes.MUL, mul, mode, 4, q, right, r, w, BETA1, M, _X)
            _operation(codes.MUL, mul, mode, 5, q, right, r, w, REST1, _G, _Y)
            _operation(codes.ADD, add, mode, 6, q, right, r, w, _X, _Y, M)
            _operation(codes.MUL, mul, mode, 7, q, right, r, w, BETA2, V, _X)
            _operation(codes.MUL, mul, mode, 8, q, right, r, w, _G, _G, _Y)
            _operation(codes.MUL, mul, mode, 9, q, right, r, w, REST2, _Y, _Z)
            _operation(codes.ADD, add, mode, 10, q, right, r, w, _X, _Z, V)
            _operation(codes.DIV, div, mode, 11, q, right, r, w, M, CORRECTION1, _X)
            _operation(codes.DIV, div, mode, 12, q, right, r, w, V, CORRECTION2, _Y)
            _operation(codes.SQRT, root, mode, 13, q, right, r, w, _Y, _Y, _Z)
            _operation(codes.ADD, add, mode, 14, q, right, r, w, _Z, EPS, _Y)
            _operation(codes.DIV, div, mode, 15, q, right, r, w, _X, _Y, _Z)
            _operation(codes.MUL, mul, mode, 16, q, right, r, w, LR, _Z, _Y)
            _operation(codes.SUB, add, mode, 17, q, right, r, w, W, _Y, _U)
            for i in range(_N):
                r[np.uint64(W) * _N + i] = r[np.uint64(_U) * _N + i]
        return sources

    return run


def words_of(rounding: Rounding) -> npt.NDArray[np.uint32]:
    """Room for the random words of a strip."""
    return np.zeros(20 * STRIP if random_bits(rounding) else 1, dtype=np.uint32)
