"""Adam and Muon on the matrix Rosenbrock function with one array rounded: which of them needs its mantissa?

The experiment of arXiv:2510.21314 with constants of ours: the exponent is kept (11 bits), the mantissa is rounded
stochastically, and everything else of the run is binary64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.study import Study
from paper_figures import ablation, style
from paper_figures.figure import Data, PaperFigure, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

ARRAYS = {"adam": "wgmv", "muon": "wgm"}
TITLES = {"adam": "Adam", "muon": "Muon"}
SHOWN = 7  # bits of the courses
LR = "2**-3*(1-(t-1)/T)**3"
WINDOW = 0.05  # of the steps, at the end: the converged norm
# The decay rate that goes to 1, and what is rounded meanwhile: array, bits, rounding.
DECAYS = {"adam": ("beta2", "v"), "muon": ("beta1", "m")}
NARROW = {"w": 10, "v": 4, "m": 4}
SYMBOLS = {"beta1": r"\beta_1", "beta2": r"\beta_2"}


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    found: dict[str, Any] = {name: parameters[name] for name in ("rows", "columns", "steps", "seeds", "bits")}
    found |= {"runs": {}, "sweeps": {}}
    for i, (optimizer, arrays) in enumerate(ARRAYS.items()):
        alone = [{"array": array, "bits": bits} for array in arrays for bits in parameters["bits"]]
        overrides = [{x["array"]: f"e11m{x['bits']} stochastic"} for x in alone]
        rows = _study(parameters, optimizer, overrides=[{}, *overrides]).run(out=folder / optimizer).to_dicts()
        cells = ablation.cells_of(rows, [{}, *alone])
        found["runs"][optimizer] = {"steps": rows[0]["trace_step"], "wide": cells[0], "cells": cells[1:]}
        report((2 * i + 1) / 4)
        found["sweeps"][optimizer] = _sweep(parameters, optimizer, folder)
        report((2 * i + 2) / 4)
    return found


def _study(parameters: Mapping[str, Any], optimizer: str, **more: Any) -> Study:
    rows, columns = parameters["rows"], parameters["columns"]
    common = {"problem": "rosenbrock", "options": {"rows": rows}, "dimension": rows * columns, "gradient": "exact"}
    common |= {"mantissa": 52, "exponent": 11, "rounding": "nearest_even", "noise": "none", "window": WINDOW}
    return Study(optimizer=optimizer, steps=parameters["steps"], seeds=parameters["seeds"], lr=LR, **common, **more)


def _sweep(parameters: Mapping[str, Any], optimizer: str, folder: Path) -> list[dict[str, Any]]:
    name, moment = DECAYS[optimizer]
    ways = [(None, ""), ("w", "stochastic"), (moment, "stochastic"), (moment, "nearest_even")]
    overrides: list[dict[str, str]] = [{a: f"e11m{NARROW[a]} {rounding}"} if a else {} for a, rounding in ways]
    decays = parameters[name]
    study = _study(parameters, optimizer, overrides=overrides, **{name: decays})
    rows = study.run(out=folder / f"{optimizer}_{name}").to_dicts()
    about = [{"decay": decay, "array": array, "rounding": rounding} for decay in decays for array, rounding in ways]
    kept = ablation.cells_of(rows, about)
    return [{key: value for key, value in cell.items() if key != "trace"} for cell in kept]


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 4.1)
    panels = figure.subplots(2, 3, sharey="row")
    for i, (optimizer, run) in enumerate(data["runs"].items()):
        steps, bits, decay = panels[i]
        shown = [cell for cell in run["cells"] if cell["bits"] == SHOWN]
        ablation.course(steps, run["steps"], run["wide"], shown)
        ablation.against_bits(bits, run["wide"], run["cells"])
        _decay(decay, optimizer, data["sweeps"][optimizer])
        ablation.limit(steps, [run["wide"], *run["cells"], *data["sweeps"][optimizer]])
        steps.set_ylabel(TITLES[optimizer] + r": $\Vert\nabla F\Vert$")
        moment = DECAYS[optimizer][1]
        narrow = f"${{w}}$: {NARROW['w']}, ${{{moment}}}$: {NARROW[moment]} bits"
        for axes, letter, title in zip(
            panels[i], "abcdef"[3 * i :], (f"$M = {SHOWN}$", f"last {100 * WINDOW:g} % of steps", narrow), strict=False
        ):
            axes.set_title(f"({letter}) {title}", loc="left", fontsize="medium")
    entries = ablation.handles("wgmv", "binary64", "to nearest")
    figure.legend(handles=entries, loc="outside lower center", ncols=3, columnspacing=1.2, handlelength=2.4)
    return figure


def _decay(axes: Axes, optimizer: str, cells: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import NullLocator

    for array, rounding in dict.fromkeys((cell["array"], cell["rounding"]) for cell in cells):
        chosen = [cell for cell in cells if (cell["array"], cell["rounding"]) == (array, rounding)]
        look = ablation.ARRAYS[array] if array else ablation.WIDE
        x = [1 - cell["decay"] for cell in chosen]
        ablation.band(axes, x, chosen, look, hollow=rounding == "nearest_even", width=1.0 if array else 2.2)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"$1 - {SYMBOLS[DECAYS[optimizer][0]]}$")
    ablation.logarithmic(axes)


def _ratios(data: Data, optimizer: str, array: str, bits: Sequence[int]) -> list[float]:
    run = data["runs"][optimizer]
    return [ablation.ratio(x, run["wide"]) for x in run["cells"] if x["array"] == array and x["bits"] in bits]


def _few(data: Data) -> list[int]:
    """Widths up to that of binary16."""
    return [bits for bits in data["bits"] if bits <= 10]


def _others(data: Data, optimizer: str) -> list[float]:
    bits = [bits for bits in data["bits"] if bits >= 4]
    return [x for array in ARRAYS[optimizer] if array != "w" for x in _ratios(data, optimizer, array, bits)]


def _frozen(data: Data) -> tuple[float, Mapping[str, Any]]:
    """Where rounding v to nearest changes most against drawing it stochastically: (ratio, cell)."""
    of = {(x["decay"], x["rounding"]): x for x in data["sweeps"]["adam"] if x["array"] == "v"}
    pairs = [(ablation.ratio(x, of[decay, "stochastic"]), x) for (decay, how), x in of.items() if how == "nearest_even"]
    return max(pairs, key=lambda pair: abs(math.log(pair[0])))


def _weights_always(data: Data, optimizer: str) -> float:
    """The least ratio of weights of a few bits over a moment of fewer, over all decay rates."""
    moment = DECAYS[optimizer][1]
    of = {(x["decay"], x["array"]): x for x in data["sweeps"][optimizer] if x["rounding"] == "stochastic"}
    return min(ablation.ratio(of[decay, "w"], of[decay, moment]) for decay, array in of if array == "w")


def caption(data: Data) -> str:
    number = ablation.number
    said = []
    for optimizer, title in TITLES.items():
        weights, others = _ratios(data, optimizer, "w", _few(data)), _others(data, optimizer)
        said.append(
            f"{title} {number(min(weights))} to {number(max(weights))} times for $w$, against {number(min(others))} to "
            f"{number(max(others))} times for every other array of 4 bits or more"
        )
    frozen, at = _frozen(data)
    return (
        f"Which array needs its mantissa? Adam (top) and Muon (bottom, exact polar factor) on the matrix Rosenbrock "
        f"function, ${data['rows']} \\times {data['columns']}$, {data['steps']} steps without noise, step size "
        f"$2^{{-3}} (1 - (t-1)/T)^3$; one array is stored with $M$ mantissa bits, rounded stochastically, all else is "
        "binary64 (exponents are kept: 11 bits). (a, d) Gradient norm (root mean square over seeds) against steps, "
        f"$M = {SHOWN}$. (b, e) Its root mean square in the last {100 * WINDOW:g} % of the steps: "
        f"{ablation.confidence(data['seeds'])}. Up to {max(_few(data))} bits it is above that of binary64 by: "
        f"{'; '.join(said)}. (c, f) The same with a decay rate that goes to 1, hollow: rounded to nearest. Drawn "
        f"stochastically, $v$ and $m$ of 4 bits stay below weights of {NARROW['w']} bits by a factor of "
        f"{number(min(_weights_always(data, optimizer) for optimizer in ARRAYS))} at least; rounded to nearest, $v$ "
        f"can freeze: at $\\beta_2 = {at['decay']:g}$ the norm is {number(frozen)} times that."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = []
    for optimizer, title in TITLES.items():
        weights = _ratios(data, optimizer, "w", _few(data))
        found.append((f"{title}: weights of at most 10 bits raise the norm tenfold", min(weights) > 10))
        others = _others(data, optimizer)
        found.append((f"{title}: no other array of 4 bits or more raises it threefold", max(others) < 3))
        always = _weights_always(data, optimizer)
        found.append((f"{title}: at every decay rate weights of 10 bits are worse than a moment of 4", always > 1))
    least = abs(math.log(_frozen(data)[0]))
    found.append(("v to nearest changes the norm a hundredfold, at some decay rate", least > math.log(100)))
    return found


_COMMON: dict[str, Any] = {
    "seeds": 6,
    "beta1": [0.8, 0.9, 0.95, 0.99, 0.995],
    "beta2": [0.9, 0.97, 0.99, 0.999, 0.9999],
}
_QUICK = {"rows": 12, "columns": 24, "steps": 2000, "bits": [2, 4, 7, 10, 13, 16, 20, 23]}
_FULL = {"rows": 50, "columns": 100, "steps": 10_000, "bits": [2, 4, 7, 10, 13, 16, 20, 23]}
FIGURE = PaperFigure(
    "ablation_rosenbrock", "one array of Adam or Muon rounded, matrix Rosenbrock function", True,
    {"quick": _QUICK | _COMMON, "full": _FULL | _COMMON}, compute, draw, caption, claims,
    "about 2 hours of one core (from single cells: 6 s a seed for Adam, 19 s for Muon)",
)  # fmt: skip
