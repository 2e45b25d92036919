"""How sharp the bounds are: medians of bound/measured per theorem and format over the grid, the worst case beside."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from ratio_grid import FORMATS, Part, parts

from experiments.hunt.run import held
from experiments.simulate import windows
from experiments.study import Cell, kin
from theory.theorems import theorems
from theory.window import Window

PARTS = {part.name: part for part in parts()}


def skip_unknown(part: Part) -> None:
    if part.unknown:
        pytest.skip(f"no {', '.join(part.unknown)} in this version")


@pytest.mark.parametrize("name", PARTS)
def test_every_format_has_the_same_cells(name: str) -> None:
    """Over problems, step sizes, decays and noise: whatever names a cell but its format."""
    part = PARTS[name]
    skip_unknown(part)
    assert set(part.limits) <= set(FORMATS)
    own = {"exponent_bits", "mantissa_bits", "overrides"}
    described = {
        fmt: [{k: v for k, v in cell.columns().items() if k not in own} for cell in part.cells(fmt)]
        for fmt in part.limits
    }
    first, *others = described.values()
    assert first
    assert all(other == first for other in others)


def evaluated(part: Part) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """(theorem, format) -> status and ratio of every cell."""
    batches: dict[bytes, list[tuple[str, Cell]]] = defaultdict(list)
    for fmt in part.limits:
        for cell in part.cells(fmt):
            batches[kin(cell)].append((fmt, cell))
    found: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for batch in batches.values():
        made: list[Window] = windows([cell for _, cell in batch])
        for (fmt, _), window in zip(batch, made, strict=True):
            for identifier in part.theorems:
                if identifier in theorems():
                    verdict = held(theorems()[identifier], window)
                    found[identifier, fmt].append((verdict.status, verdict.ratio))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_medians(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    part = PARTS[name]
    skip_unknown(part)
    missing = [identifier for identifier in part.theorems if identifier not in theorems()]
    wrong, lines = [], [f"no {identifier} in this version" for identifier in missing]
    for (identifier, fmt), cells in evaluated(part).items():
        ratios = [ratio for status, ratio in cells if status != "not applicable" and math.isfinite(ratio)]
        violated = sum(status in ("violated", "missed") for status, _ in cells)
        median, worst = (float(np.median(ratios)), max(ratios)) if ratios else (math.nan, math.nan)
        line = f"{identifier} {fmt}: median {median:.3f} <= {part.limits[fmt]:g}, worst {worst:.3f}, "
        line += f"{len(ratios)} of {len(cells)} cells"
        reason = part.open.get(f"{identifier} {fmt}", "")
        lines.append(f"{line}; open: {reason}" if reason else line)
        if violated or (median <= part.limits[fmt]) == bool(reason):
            wrong.append(f"{line}, {violated} violated{', no longer open' if reason else ''}")
    with capsys.disabled():
        print("", *lines, sep="\n  ")
    assert not wrong, "\n".join(wrong)
