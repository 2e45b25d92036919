"""The fixed grid on which bound/measured is held to a limit: studies in tests/theory/grid, the same in every format.

A file names its theorems, the limit of the median of each (theorem, format), the formats, and studies with the keys of
``fpsim scan``. Formats lay themselves over every study, so each has the same number of cells over problems, step sizes
and decays. Cells on which a theorem does not apply carry no ratio; how many do is printed and must not be none.

``family`` names keys, of a study or of its options, in which a statement is about the worst case: 'for every gradient
sequence' is as sharp as the sequence that comes nearest to the bound. Cells that differ in these keys alone are one
family, its ratio the smallest of its members; median and worst are over families, the median over single cells stands
beside. A violation counts in every cell.
"""

from __future__ import annotations

import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from experiments.cell import Cell
from experiments.hunt.draw import in_format
from experiments.registry import own_steps
from experiments.study import Study
from theory.theorems import theorems

# exponent, mantissa, and the format that lays itself over every slot
FORMATS = {
    "float8_e4m3fn": (4, 3, "float8_e4m3fn"),
    "float8_e5m2": (5, 2, ""),
    "binary16": (5, 10, ""),
    "bfloat16": (8, 7, ""),
    "tf32": (8, 10, ""),
    "binary32": (8, 23, ""),
}


@dataclass(frozen=True)
class Part:
    """What one file says.

    Attributes
    ----------
    limits : format -> largest admissible median
    open : "theorem format" -> why its median is above the limit, or no bound speaks: not yet what is wanted
    family : keys in which the cells of one family differ
    """

    name: str
    theorems: tuple[str, ...]
    limits: dict[str, float]
    open: dict[str, str]
    studies: tuple[dict[str, Any], ...]
    family: tuple[str, ...] = ()

    @property
    def unknown(self) -> tuple[str, ...]:
        """What it needs and this version has not: theorems, if none of them is there, or optimizers."""
        absent = tuple(x for x in self.theorems if x not in theorems())
        steps = {study["optimizer"] for study in self.studies} - set(own_steps())
        return (*(absent if len(absent) == len(self.theorems) else ()), *sorted(steps))

    def cells(self, fmt: str) -> list[Cell]:
        """The cells of one format."""
        exponent, mantissa, overall = FORMATS[fmt]
        found = []
        for study in self.studies:
            cells = Study.build(study | {"exponent": exponent, "mantissa": mantissa}).cells()
            found += [in_format(cell, overall) if overall else cell for cell in cells]
        return found

    def family_of(self, cell: Cell) -> str:
        """What the cells of one family and format share."""
        plain = msgspec.structs.asdict(cell)
        for name in ("options", "hyperparameters"):
            plain[name] = {key: value for key, value in plain[name].items() if key not in self.family}
        shared = {key: value for key, value in plain.items() if key not in self.family}
        return msgspec.json.encode(shared, order="deterministic").decode()


@dataclass(frozen=True)
class Sharpness:
    """What the cells of one (theorem, format) say.

    Attributes
    ----------
    median, worst : of the families' ratios, NaN if there are none
    families : how many have a ratio, and how many there are
    single : median over single cells
    cells : how many have a ratio, and how many there are
    violated : cells
    """

    median: float
    worst: float
    families: tuple[int, int]
    single: float
    cells: tuple[int, int]
    violated: int

    @classmethod
    def of(cls, verdicts: Iterable[tuple[str, str, float]]) -> Sharpness:
        """Of the family, status and ratio of every cell; one that is not applicable or not finite gives no ratio."""
        members: dict[str, list[float]] = defaultdict(list)
        count = violated = 0
        for family, status, ratio in verdicts:
            count += 1
            violated += status in ("violated", "missed")
            members[family] += [ratio] if status != "not applicable" and math.isfinite(ratio) else []
        nearest = [min(ratios) for ratios in members.values() if ratios]
        single = [ratio for ratios in members.values() for ratio in ratios]
        median, middle = (float(np.median(x)) if x else math.nan for x in (nearest, single))
        worst = max(nearest, default=math.nan)
        return cls(median, worst, (len(nearest), len(members)), middle, (len(single), count), violated)

    def line(self, limit: float) -> str:
        """One line of the report."""
        line = f"median {self.median:.3f} <= {limit:g}, worst {self.worst:.3f}, "
        if self.families[1] == self.cells[1]:
            return line + f"{self.cells[0]} of {self.cells[1]} cells"
        beside = f"over single cells median {self.single:.3f}, {self.cells[0]} of {self.cells[1]}"
        return f"{line}{self.families[0]} of {self.families[1]} families; {beside}"


def parts() -> Iterator[Part]:
    """Every file, in the order of their names."""
    for path in sorted(Path(__file__).parent.joinpath("theory", "grid").glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        limits = {fmt: float(raw["limits"].get(fmt, raw["limits"]["any"])) for fmt in raw["formats"]}
        family = tuple(raw.get("family", ()))
        yield Part(path.stem, tuple(raw["theorems"]), limits, raw.get("open", {}), tuple(raw["study"]), family)
