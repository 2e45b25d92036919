"""How sharp the bounds are: medians of bound/measured per theorem and format over the grid, the worst case beside."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
from ratio_grid import FORMATS, Part, Sharpness, parts

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


@pytest.mark.parametrize("name", PARTS)
def test_families_differ_in_keys_that_the_file_varies(name: str) -> None:
    part = PARTS[name]
    skip_unknown(part)
    given = [study | study.get("options", {}) | study.get("hyperparameters", {}) for study in part.studies]
    for key in part.family:
        assert any(isinstance(study.get(key), list) or "," in str(study.get(key)) for study in given), key
    fmt = next(iter(part.limits))
    families = {part.family_of(cell) for cell in part.cells(fmt)}
    assert (len(families) < len(part.cells(fmt))) == bool(part.family)


def test_cells_of_a_family_differ_in_its_keys_alone() -> None:
    study = {"optimizer": "adam", "problem": "sequence", "rounding": "up,down", "beta2": [0.9, 0.99], "lr": [0.5, 0.25]}
    study["options"] = {"kind": ["constant", "normal"], "scale": [1.0, 2.0]}
    cells = Part("made up", ("T1",), {"bfloat16": 3.0}, {}, (study,)).cells("bfloat16")
    for family, count in ((("kind",), 16), (("kind", "lr"), 8), (("kind", "rounding", "scale"), 4), ((), 32)):
        part = Part("made up", ("T1",), {"bfloat16": 3.0}, {}, (study,), family)
        assert len({part.family_of(cell) for cell in cells}) == count


def test_a_family_is_as_sharp_as_its_nearest_member() -> None:
    """Of a family's ratios the smallest counts; of its violations every one."""
    verdicts = [("a", "holds", 7.0), ("a", "holds", 2.0), ("a", "not applicable", 1.0), ("b", "holds", 5.0)]
    verdicts += [("b", "violated", 0.5), ("c", "holds", 3.0), ("c", "missed", math.inf), ("d", "not applicable", 1.0)]
    found = Sharpness.of([*verdicts, ("e", "holds", math.nan)])
    assert (found.median, found.worst, found.single) == (2.0, 3.0, 3.0)
    assert (found.families, found.cells, found.violated) == ((3, 5), (5, 9), 2)
    assert found.line(3) == "median 2.000 <= 3, worst 3.000, 3 of 5 families; over single cells median 3.000, 5 of 9"


def test_without_families_every_cell_counts_for_itself() -> None:
    found = Sharpness.of([("a", "holds", 7.0), ("b", "holds", 2.0), ("c", "holds", 3.0), ("d", "not applicable", 1.0)])
    assert found.line(1.2) == "median 3.000 <= 1.2, worst 7.000, 3 of 4 cells"
    nothing = Sharpness.of([("a", "not applicable", 1.0)])
    assert math.isnan(nothing.median)
    assert nothing.line(3) == "median nan <= 3, worst nan, 0 of 1 cells"


def evaluated(part: Part) -> dict[tuple[str, str], list[tuple[str, str, float]]]:
    """(theorem, format) -> family, status and ratio of every cell."""
    batches: dict[bytes, list[tuple[str, Cell]]] = defaultdict(list)
    for fmt in part.limits:
        for cell in part.cells(fmt):
            batches[kin(cell)].append((fmt, cell))
    found: dict[tuple[str, str], list[tuple[str, str, float]]] = defaultdict(list)
    for batch in batches.values():
        made: list[Window] = windows([cell for _, cell in batch])
        for (fmt, cell), window in zip(batch, made, strict=True):
            for identifier in part.theorems:
                if identifier in theorems():
                    verdict = held(theorems()[identifier], window)
                    # 0/0 is 1 where a law says 0; among the members of a family it would pass for the sharpest
                    ratio = math.nan if part.family and verdict.high == 0 else verdict.ratio
                    found[identifier, fmt].append((part.family_of(cell), verdict.status, ratio))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_medians(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    part = PARTS[name]
    skip_unknown(part)
    missing = [identifier for identifier in part.theorems if identifier not in theorems()]
    wrong, lines = [], [f"no {identifier} in this version" for identifier in missing]
    for (identifier, fmt), cells in evaluated(part).items():
        found = Sharpness.of(cells)
        line = f"{identifier} {fmt}: {found.line(part.limits[fmt])}"
        reason = part.open.get(f"{identifier} {fmt}", "")
        lines.append(f"{line}; open: {reason}" if reason else line)
        if found.violated or (found.median <= part.limits[fmt]) == bool(reason):
            wrong.append(f"{line}, {found.violated} violated{', no longer open' if reason else ''}")
    with capsys.disabled():
        print("", *lines, sep="\n  ")
    assert not wrong, "\n".join(wrong)
