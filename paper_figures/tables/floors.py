"""Floors of formats that exist: measured and proven, for three optimizers and two roundings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpsim.formats import NAMED
from paper_figures.figure import Data, Report
from paper_figures.gallery.anatomy import patterns
from paper_figures.studies import FLOOR, rows
from paper_figures.table import NOTHING, Column, PaperTable, Row, number

OPTIMIZERS = {"sgd": "SGD", "rmsprop": "RMSprop", "adam": "Adam"}
MODES = {"nearest_even": "to nearest", "stochastic": "stochastic"}
FORMATS = {
    "binary32": "binary32", "tf32": "TF32", "binary16": "binary16", "bfloat16": "bfloat16",
    "float8_e4m3fn": "FP8 E4M3", "float8_e5m2": "FP8 E5M2",
}  # fmt: skip
EPS = 1e-8  # of RMSprop and Adam
COLUMNS = ("optimizer", "rounding", "overrides", "steps", "bound", "verdict", *FLOOR)


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    common = {"problem": "quadratic", "exponent": 8, "mantissa": 23, "seeds": parameters["seeds"]}
    studies = {
        f"{optimizer}_{mode}_{fmt}": common
        | {
            "optimizer": optimizer,
            "steps": steps,
            "rounding": mode,
            "overrides": [dict.fromkeys(patterns(optimizer), fmt)],
        }
        for optimizer, steps in parameters["steps"].items()
        for mode in MODES
        for fmt in FORMATS
    }
    found = rows(studies, folder, report, COLUMNS)
    names = [(fmt, row) for fmt, row in zip(list(FORMATS) * (len(found) // len(FORMATS)), found, strict=True)]
    return {"rows": [{"format": fmt} | row for fmt, row in names], "seeds": parameters["seeds"]}


def _find(data: Data, optimizer: str, mode: str, fmt: str) -> Mapping[str, Any]:
    wanted = {"optimizer": optimizer, "rounding": mode, "format": fmt}
    found: Mapping[str, Any] = next(row for row in data["rows"] if all(row[k] == x for k, x in wanted.items()))
    return found


def columns(data: Data) -> Sequence[Column]:
    heads = [Column(text, "r") for label in OPTIMIZERS.values() for text in (label, "bound")]
    return (Column("rounding"), Column("format"), *heads)


def groups(data: Data) -> Sequence[Sequence[Row]]:
    return [
        [
            (MODES[mode] if not i else "", label, *(c for o in OPTIMIZERS for c in _cells(_find(data, o, mode, fmt))))
            for i, (fmt, label) in enumerate(FORMATS.items())
        ]
        for mode in MODES
    ]


def _cells(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["rms_gradient"] is None:
        return str(row["outcome"]), NOTHING
    mark = "" if row["stationary"] else "*"
    return number(row["rms_gradient"]) + mark, NOTHING if _bound(row) is None else number(row["bound"])


def _bound(row: Mapping[str, Any]) -> float | None:
    return None if row["verdict"] == "not applicable" else row["bound"]


def _gain(data: Data, fmt: str) -> float:
    high, low = (_find(data, "sgd", mode, fmt)["rms_gradient"] for mode in MODES)
    return float(high) / float(low)


def _broken(data: Data) -> list[tuple[str, str]]:
    """(optimizer, format) of runs that are not finite."""
    return sorted({(row["optimizer"], row["format"]) for row in data["rows"] if row["rms_gradient"] is None})


def caption(data: Data) -> str:
    steps = {name: _find(data, name, "stochastic", "binary32")["steps"] for name in OPTIMIZERS}
    moving = sum(not row["stationary"] for row in data["rows"] if row["rms_gradient"] is not None)
    bounds = sum(_bound(row) is not None for row in data["rows"])
    broken = " and ".join(FORMATS[fmt] for fmt in FORMATS if fmt in {fmt for _, fmt in _broken(data)})
    return (
        "Floors of formats, all values of a step stored in them: root mean square of the gradient norm over the second "
        f"half of the run on the quadratic problem ({data['seeds']} seeds), and the proven bound where one applies "
        f"({bounds} of {len(data['rows'])}). SGD without gradient noise, RMSprop and Adam with it. Stochastic rounding "
        f"lowers SGD's floor in bfloat16 by a factor of {_gain(data, 'bfloat16'):.0f}."
        + (
            rf" RMSprop and Adam are not finite in {broken}, where $\epsilon = 10^{{-8}}$ is stored as 0."
            if broken
            else ""
        )
        + (f" *: not settled yet ({moving})." if moving else "")
        + f" Steps: {', '.join(f'{label} {steps[name]}' for name, label in OPTIMIZERS.items())}."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = [("no run violates a bound", all(row["verdict"] != "violated" for row in data["rows"]))]
    found.append(("SGD is finite in every format", not any(optimizer == "sgd" for optimizer, _ in _broken(data))))
    if not found[-1][1]:
        return found
    for mode, name in MODES.items():
        norms = [_find(data, "sgd", mode, fmt)["rms_gradient"] for fmt in ("binary32", "tf32", "bfloat16")]
        found.append((f"{name}: SGD's floor rises from binary32 to TF32 to bfloat16", norms == sorted(norms)))
    for fmt, label in FORMATS.items():
        found.append((f"{label}: stochastic rounding lowers SGD's floor", _gain(data, fmt) > 1.0))
    lost = all(NAMED[fmt].smallest_subnormal / 2 > EPS for _, fmt in _broken(data))
    found.append(("runs are not finite only where eps is stored as 0", lost))
    return found


TABLE = PaperTable(
    "table_floors", "floors per format, measured and proven", True,
    {"quick": {"seeds": 8, "steps": {"sgd": 6000, "rmsprop": 4000, "adam": 4000}},
     "full": {"seeds": 16, "steps": {"sgd": 24000, "rmsprop": 16000, "adam": 16000}}},
    compute, columns, groups, caption, claims, "19 s of CPU time",
)  # fmt: skip
