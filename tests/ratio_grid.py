"""The fixed grid on which bound/measured is held to a limit: studies in tests/theory/grid, the same in every format.

A file names its theorems, the limit of the median of each (theorem, format), the formats, and studies with the keys of
``fpsim scan``. Formats lay themselves over every study, so each has the same number of cells over problems, step sizes
and decays. Cells on which a theorem does not apply carry no ratio; how many do is printed and must not be none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """

    name: str
    theorems: tuple[str, ...]
    limits: dict[str, float]
    open: dict[str, str]
    studies: tuple[dict[str, Any], ...]

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


def parts() -> Iterator[Part]:
    """Every file, in the order of their names."""
    for path in sorted(Path(__file__).parent.joinpath("theory", "grid").glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        limits = {fmt: float(raw["limits"].get(fmt, raw["limits"]["any"])) for fmt in raw["formats"]}
        yield Part(path.stem, tuple(raw["theorems"]), limits, raw.get("open", {}), tuple(raw["study"]))
