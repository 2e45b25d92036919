"""Noise as dither: the floors of rounding to nearest and of stochastic rounding over the level of the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.study import Study
from paper_figures import style
from paper_figures.figure import Data, PaperFigure, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

BITS, LR = 7, 0.25
LEVELS = tuple(2.0**k for k in range(-5, 2))  # standard deviation of lr * noise in gaps of the weights at 1
ROUNDINGS = {"nearest_even": "to nearest", "stochastic": "stochastic"}


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "optimizer": "sgd", "problem": "quadratic", "mantissa": str(BITS), "rounding": list(ROUNDINGS),
        "random_bits": 32, "gradient": "exact", "hyperparameters": {"lr": LR},
        "overrides": [{"g": "binary64", "update.scale": "binary64"}], "steps": parameters["steps"],
        "seeds": parameters["seeds"],
    }  # fmt: skip
    levels = parameters["levels"]
    noisy = Study(noise="gaussian", sigma=[x * 2.0**-BITS / LR for x in levels], **shared)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ROUNDINGS}
    for level, study in ((0.0, Study(noise="none", **shared)), (None, noisy)):
        for row in study.run(out=folder / ("still" if level == 0.0 else "noisy")).iter_rows(named=True):
            found[row["rounding"]].append({
                "level": row["sigma"] * LR * 2.0**BITS if level is None else level, "floor": row["rms_gradient"],
                "low": row["rms_gradient_low"], "high": row["rms_gradient_high"], "theorem": row["theorem"],
                "bound": row["bound"], "verdict": row["verdict"],
            })  # fmt: skip
        report(1.0 if level is None else 0.2)
    return {name: sorted(rows, key=lambda row: row["level"]) for name, rows in found.items()}


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(False), 2.3)
    axes = figure.subplots()
    still = min(row["level"] for row in data["stochastic"] if row["level"] > 0) / 4  # where no noise is drawn
    for (name, label), colour, marker in zip(ROUNDINGS.items(), style.COLOURS, style.MARKERS, strict=False):
        rows = data[name]
        x = [row["level"] or still for row in rows]
        low, high = ([row[side] for row in rows[1:]] for side in ("low", "high"))
        axes.fill_between(x[1:], low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(x[1:], [row["floor"] for row in rows[1:]], color=colour, marker=marker)
        axes.plot(x[:1], [rows[0]["floor"]], color=colour, marker=marker, linestyle="")
        axes.plot(x[1:], [row["bound"] for row in rows[1:]], color=colour, linestyle=":")
        axes.plot(x[:1], [rows[0]["bound"]], color=colour, linestyle="", marker="_", markersize=6)
        below = rows[0]["floor"] < max(data[other][0]["floor"] for other in ROUNDINGS)
        if below:
            axes.annotate(label, (x[0], rows[0]["floor"]), (-3, -5), textcoords="offset points", color=colour, va="top")
        else:
            axes.annotate(label, (x[0], rows[0]["bound"]), (-3, 5), textcoords="offset points", color=colour)
            axes.annotate("bound", (x[2], rows[2]["bound"]), (0, 3), textcoords="offset points", color=colour,
                          ha="center", fontsize="small")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    levels = [row["level"] for row in data["stochastic"][1:]]
    axes.set_xticks([still, *levels[::2]], ["0", *(f"{x:g}" if x >= 1 else f"1/{1 / x:g}" for x in levels[::2])])
    axes.set_xlabel("noise of a step / gap of the weights")
    axes.set_ylabel("gradient norm at the floor")
    axes.margins(y=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _ratios(data: Data) -> dict[float, float]:
    """Level -> floor to nearest over the stochastic one."""
    pairs = zip(data["nearest_even"], data["stochastic"], strict=True)
    return {nearest["level"]: nearest["floor"] / stochastic["floor"] for nearest, stochastic in pairs}


def _bounds(data: Data) -> list[float]:
    return [row["bound"] / row["floor"] for name in ROUNDINGS for row in data[name] if row["bound"] is not None]


def caption(data: Data) -> str:
    ratios = _ratios(data)
    levels = sorted(ratios)
    theorems = ", ".join(dict.fromkeys(row["theorem"] for name in ROUNDINGS for row in data[name]))
    crossing = next(x for x in levels if all(ratios[y] < 1 for y in levels if y >= x))
    return (
        f"Noise dithers: gradient descent on a quadratic with weights of {BITS} mantissa bits, lr = {LR}; the noise is "
        f"lr times that of the gradient in gaps of the weights at 1. Without noise the floor to nearest is "
        f"{ratios[0.0]:.1f} times the stochastic one, since a weight stops where its step is below half a gap; from "
        f"{crossing:g} gaps on it is lower, {min(ratios.values()):.3f} times at best. Bands: 95 % over seeds; dotted "
        f"and dashes: proven bounds ({theorems}), {min(_bounds(data)):.2f} to {max(_bounds(data)):.2f} times the floor."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    ratios = _ratios(data)
    return [
        ("without noise stochastic rounding wins by more than 5", ratios[0.0] > 5),
        ("from half a gap on rounding to nearest wins", all(x < 1 for level, x in ratios.items() if level >= 0.5)),
        ("no bound is violated", not any(row["verdict"] == "violated" for name in ROUNDINGS for row in data[name])),
        ("bounds lie above the floor", min(_bounds(data)) >= 1),
    ]


PARAMETERS = {"steps": 2000, "seeds": 8, "levels": list(LEVELS)}
FIGURE = PaperFigure(
    "dither", "floor over noise level: to nearest against stochastic rounding", False,
    {"quick": PARAMETERS, "full": PARAMETERS | {"steps": 20000, "seeds": 32}},
    compute, draw, caption, claims, "a minute of one core",
)  # fmt: skip
