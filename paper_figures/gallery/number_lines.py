"""Where the numbers of small formats lie, and how far a number is from the next one that a format has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsim import arrays
from fpsim.codes import decode
from fpsim.formats import format as named_format
from paper_figures import style
from paper_figures.figure import Data, PaperFigure, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

LINES = ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "e3m2")
CURVES = ("float8_e4m3fn", "float8_e5m2", "binary16", "bfloat16")
LABELS = {
    "float4_e2m1fn": "FP4 E2M1", "float6_e2m3fn": "FP6 E2M3", "float6_e3m2fn": "FP6 E3M2", "e3m2": "IEEE-like E3M2",
    "float8_e4m3fn": "FP8 E4M3", "float8_e5m2": "FP8 E5M2", "binary16": "binary16", "bfloat16": "bfloat16",
}  # fmt: skip
_BINADES = (-26, 20)


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    lines = {}
    for name in LINES:
        fmt = named_format(name)
        values = np.unique(decode(np.arange(1 << fmt.bits), fmt))
        lines[name] = values[np.isfinite(values) & (values >= 0.0)].tolist()
    # the largest relative error of a binade, over numbers that lie evenly in it
    share = np.linspace(1.0, 2.0, parameters["points"], endpoint=False)
    worst = {}
    for name in CURVES:
        fmt = named_format(name)
        errors = []
        for binade in range(*_BINADES):
            x = np.ldexp(share, binade)
            found = arrays.round(x, fmt)
            errors.append(float(np.max(np.abs(found - x) / x)) if np.isfinite(found).all() else None)
        worst[name] = errors
        report(len(worst) / len(CURVES))
    units = {name: named_format(name).unit_roundoff("nearest_even") for name in CURVES}
    return {"lines": lines, "binades": list(range(*_BINADES)), "worst": worst, "unit": units}


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 2.5)
    line, curve = figure.subplots(1, 2, width_ratios=[1.0, 1.0])
    line.eventplot(list(data["lines"].values()), lineoffsets=list(range(len(LINES))), linelengths=0.7, linewidths=0.6,
                   colors=list(style.COLOURS[: len(LINES)]))  # fmt: skip
    line.set_yticks(range(len(LINES)), [LABELS[name] for name in LINES])
    line.set_ylim(len(LINES) - 0.4, -0.6)
    line.tick_params(axis="y", length=0)
    line.set_xlabel("nonnegative values")
    line.spines[["top", "left", "right"]].set_visible(False)
    for i, (name, errors) in enumerate(data["worst"].items()):
        points = [(binade, error) for binade, error in zip(data["binades"], errors, strict=True) if error is not None]
        curve.plot(*zip(*points, strict=True), color=style.COLOURS[i], drawstyle="steps-post")
        lowest = min(points, key=lambda point: (point[1], abs(point[0] - 6 + 3 * i)))
        curve.annotate(LABELS[name], lowest, xytext=(0, 3), textcoords="offset points", color=style.COLOURS[i],
                       ha="center", fontsize="small")  # fmt: skip
    curve.set_yscale("log", base=2)
    curve.set_xlabel(r"binade $\lfloor \log_2 |x| \rfloor$")
    curve.set_ylabel("largest relative error")
    curve.spines[["top", "right"]].set_visible(False)
    return figure


def _flat(data: Data, name: str) -> list[float]:
    return [error for error in data["worst"][name] if error is not None and error <= data["unit"][name]]


def caption(data: Data) -> str:
    counts = ", ".join(f"{LABELS[name]} {len(values)}" for name, values in data["lines"].items())
    binades = ", ".join(f"{LABELS[name]} {len(_flat(data, name))}" for name in data["worst"])
    first, last = data["binades"][0], data["binades"][-1]
    return (
        f"Left: the nonnegative values of four small formats ({counts}). Right: the largest relative error of rounding "
        f"to nearest in each binade from $2^{{{first}}}$ to $2^{{{last}}}$; a curve ends where numbers overflow. It is "
        r"at most the unit roundoff $u = 2^{-p}$ in the binades of normal numbers (here: " + binades + "), and below "
        "them it doubles from binade to binade up to 1."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = []
    for name, unit in data["unit"].items():
        fmt = named_format(name)
        pairs = [(b, e) for b, e in zip(data["binades"], data["worst"][name], strict=True) if e is not None]
        normal = [error for binade, error in pairs if binade >= fmt.emin]
        below = [error for binade, error in pairs if binade < fmt.emin]
        found.append((f"{name}: at most u where numbers are normal", max(normal) <= unit))
        found.append((f"{name}: more than u below", all(error > unit for error in below)))
    return found


PARAMETERS = {"points": 4096}
FIGURE = PaperFigure(
    "number_lines", "values and relative errors of formats", True, {"quick": PARAMETERS, "full": PARAMETERS},
    compute, draw, caption, claims, "the same",
)  # fmt: skip
