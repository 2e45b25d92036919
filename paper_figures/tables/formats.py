"""The named formats: sizes, range and unit roundoff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpsim.formats import NAMED
from paper_figures.figure import Data, Report
from paper_figures.table import Column, PaperTable, Row, number


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    found = []
    for name, fmt in NAMED.items():
        found.append({
            "name": name, "bits": fmt.bits, "exponent": fmt.exponent_bits, "mantissa": fmt.mantissa_bits,
            "max": fmt.max, "normal": fmt.smallest_normal, "subnormal": fmt.smallest_subnormal, "eps": fmt.eps,
            "signed": fmt.signed, "infinity": fmt.has_infinity,
        })  # fmt: skip
    report(1.0)
    return {"formats": found}


def columns(data: Data) -> Sequence[Column]:
    heads = ("bits", "$e$", "$m$", "largest", "normal from", "smallest", "$u$")
    return (Column("format"), *(Column(head, "r") for head in heads), Column("inf"))


def groups(data: Data) -> Sequence[Sequence[Row]]:
    wide = [fmt for fmt in data["formats"] if fmt["bits"] > 8]
    narrow = [fmt for fmt in data["formats"] if fmt["bits"] <= 8]
    return [[_row(fmt) for fmt in group] for group in (wide, narrow)]


def _row(fmt: Mapping[str, Any]) -> Row:
    sizes = (fmt["name"], fmt["bits"], fmt["exponent"], fmt["mantissa"])
    reach = (number(fmt["max"]), number(fmt["normal"]), number(fmt["subnormal"]))
    return (*sizes, *reach, _power(fmt["mantissa"] + 1), "yes" if fmt["infinity"] else None)


def _power(p: int) -> str:
    return f"$2^{{-{p}}}$"


def caption(data: Data) -> str:
    few = min(data["formats"], key=lambda fmt: fmt["bits"])
    finite = sum(not fmt["infinity"] for fmt in data["formats"])
    return (
        f"The {len(data['formats'])} named formats: bits in all, exponent bits $e$, stored mantissa bits $m$, largest "
        "finite value, smallest normal and smallest positive value, and unit roundoff $u = 2^{-m-1}$ of rounding to "
        f"nearest. {finite} of them have no infinity; the narrowest, {few['name']}, has {few['bits']} bits. Further "
        "formats, eXmY and those of P3109, are made by name."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = []
    for fmt in data["formats"]:
        name = fmt["name"]
        found.append((f"{name}: u is half of eps", 2.0 ** -(fmt["mantissa"] + 1) == fmt["eps"] / 2))
        found.append((f"{name}: bits add up", fmt["signed"] + fmt["exponent"] + fmt["mantissa"] == fmt["bits"]))
        found.append((f"{name}: smallest, normal, largest in order", fmt["subnormal"] <= fmt["normal"] <= fmt["max"]))
    return found


PARAMETERS: dict[str, Any] = {}
TABLE = PaperTable(
    "table_formats", "named formats: sizes, range, unit roundoff", True, {"quick": PARAMETERS, "full": PARAMETERS},
    compute, columns, groups, caption, claims, "the same",
)  # fmt: skip
