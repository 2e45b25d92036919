"""Events of one operation on arrays: the machine that counts runs one line of a table on strips of a whole chunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes, execute
from fpsim.cpu.lower import Draws, Formats, Step, plan_of, rows_of
from fpsim.cpu.tiers import Range
from fpsim.events import NAMES
from fpsim.formats import BINARY64
from fpsim.number_format import Format
from fpsim.rounding import Rounding, random_bits

_CHUNK = 1 << 13


def counted(kind: str, arrays: list[Any], fmt: Format, rounding: Rounding, draws: Any) -> dict[str, int]:
    """How many elements had each event. ``arrays``: float64, flat, one length; ``draws``: a draw for each element."""
    formats = Formats()
    decision = formats.decide(kind, [Range.of_format(BINARY64)] * len(arrays), fmt, rounding)
    integers, floats = formats.tables()
    size = arrays[0].size
    counts = np.zeros((1, 1, len(NAMES)), dtype=np.int64)
    where = Draws((), {"": (0, 0, 0, 32 - random_bits(rounding))})
    nothing, no_words = np.empty(0), np.empty(0, dtype=np.uint64)
    for start in range(0, size, _CHUNK):
        n = min(_CHUNK, size - start)
        rows = np.zeros((len(arrays) + 1 + execute.SPARE, n))
        for row, array in zip(rows, arrays, strict=False):
            row[:] = array[start : start + n]
        places = [(i * n, 0, 0) for i in range(len(arrays) + 1)]
        steps = [Step(codes.KINDS[kind], "", 0, places[-1], tuple(places[:-1]), watch=execute.SWAMPED)]
        words = np.zeros(n, dtype=np.uint32)
        if draws is not None:
            words[:] = draws[start : start + n].astype(np.uint32) << np.uint32(32 - random_bits(rounding))
        execute.execute_counting(
            rows.reshape(-1), np.empty((1 + execute.SPARE) * n), words, rows_of(steps, where),
            plan_of(steps, [{"": decision}]), integers, floats, np.empty((1, 0, 1, 1)), 0, nothing, nothing, counts,
            no_words, no_words, no_words, np.uint64(0), np.uint64(0), 1, n, 1, n, np.uint64(0), 0, 1, 1,
        )  # fmt: skip
    return {name: int(count) for name, count in zip(NAMES, counts[0, 0], strict=True)}
