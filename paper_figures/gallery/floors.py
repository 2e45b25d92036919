"""Floors against mantissa bits: what was measured beside what is proven, for three optimizers and two roundings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures import style
from paper_figures.figure import Data, PaperFigure, Report
from paper_figures.studies import FLOOR, rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

OPTIMIZERS = {"sgd": "SGD", "rmsprop": "RMSprop", "adam": "Adam"}
PROBLEMS = {"quadratic": "quadratic", "rational": "rational"}
MODES = {"nearest_even": ("to nearest", style.VERMILLION, "s"), "stochastic": ("stochastic", style.BLUE, "o")}
COLUMNS = ("optimizer", "problem", "rounding", "mantissa_bits", "steps", "bound", "theorem", "verdict", *FLOOR)
HIGHEST = 12.0  # a bound this many times above the largest measured floor leaves the panel at the top


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    common = {"problem": list(PROBLEMS), "rounding": list(MODES), "seeds": parameters["seeds"]}
    common |= {"mantissa": parameters["mantissa"]}
    studies = {name: common | {"optimizer": name, "steps": steps} for name, steps in parameters["steps"].items()}
    return {"rows": rows(studies, folder, report, COLUMNS), "seeds": parameters["seeds"]}


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 3.1)
    panels = figure.subplots(len(PROBLEMS), len(OPTIMIZERS), sharex=True, sharey="row", squeeze=False)
    for i, problem in enumerate(PROBLEMS):
        for j, optimizer in enumerate(OPTIMIZERS):
            _panel(panels[i, j], _chosen(data, optimizer=optimizer, problem=problem))
            if i == 0:
                panels[i, j].set_title(OPTIMIZERS[optimizer])
        shown = _chosen(data, problem=problem)
        top = HIGHEST * max(row["rms_gradient"] for row in shown)
        panels[i, 0].set_ylim(0.5 * min(row["rms_gradient"] for row in shown), top)
        panels[i, 0].set_ylabel(PROBLEMS[problem])
    widths = [row["mantissa_bits"] for row in data["rows"]]
    panels[0, 0].set_xticks([width for width in (2, 5, 10, 15, 20) if width <= max(widths)])
    panels[0, 0].set_xlim(min(widths) - 0.8, max(widths) + 0.8)
    _name(panels[0, 0], data)
    panels[0, -1].text(0.97, 0.05, "marker: measured\nline: proven bound", transform=panels[0, -1].transAxes,
                       ha="right", fontsize="small", color="0.25")  # fmt: skip
    figure.supxlabel("stored mantissa bits $m$ (8 exponent bits)")
    figure.supylabel(r"gradient norm where the run settles")
    return figure


def _panel(axes: Axes, chosen: Sequence[Mapping[str, Any]]) -> None:
    axes.set_yscale("log")
    axes.grid(True, which="major")
    axes.tick_params(which="minor", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    for mode, (_, colour, marker) in MODES.items():
        line = sorted((row for row in chosen if row["rounding"] == mode), key=lambda row: row["mantissa_bits"])
        at = [row["mantissa_bits"] for row in line]
        low, high = ([row[f"rms_gradient_{end}"] for row in line] for end in ("low", "high"))
        axes.fill_between(at, low, high, color=colour, alpha=0.3, linewidth=0)
        axes.plot(at, [row["rms_gradient"] for row in line], linestyle="none", marker=marker, color=colour,
                  markersize=3.4 if mode == "nearest_even" else 2.2, markeredgewidth=0.6, zorder=3,
                  markerfacecolor="white" if mode == "nearest_even" else colour)  # fmt: skip
        axes.plot(at, [_bound(row) for row in line], color=colour, linestyle="-" if mode == "stochastic" else "--")


def _name(axes: Axes, data: Data) -> None:
    """Names beside the curves of the first panel."""
    lines = {mode: _chosen(data, optimizer="sgd", problem="quadratic", rounding=mode) for mode in MODES}
    for mode, (label, colour, _) in MODES.items():
        line = sorted(lines[mode], key=lambda row: row["mantissa_bits"])
        above = mode == "nearest_even"
        row = line[len(line) // 2 if above else len(line) // 3]
        axes.annotate(label, (row["mantissa_bits"], row["rms_gradient"]), color=colour, fontsize="small",
                      xytext=(5, 4) if above else (-4, -5), textcoords="offset points",
                      ha="left" if above else "right", va="bottom" if above else "top")  # fmt: skip


def _chosen(data: Data, **wanted: str) -> list[Mapping[str, Any]]:
    return [row for row in data["rows"] if all(row[key] == value for key, value in wanted.items())]


def _bound(row: Mapping[str, Any]) -> float:
    return math.nan if row["bound"] is None or row["verdict"] == "not applicable" else float(row["bound"])


def _ratio(data: Data, **wanted: str) -> float:
    """Median of bound/measured where the bound applies."""
    covered = [row for row in _chosen(data, **wanted) if not math.isnan(_bound(row))]
    return float(statistics.median(_bound(row) / row["rms_gradient"] for row in covered))


def _unsettled(data: Data) -> int:
    return sum(not row["stationary"] for row in data["rows"])


def _gain(data: Data, problem: str) -> float:
    """How many times lower stochastic rounding's floor of SGD is, the median over widths."""
    pairs = [_chosen(data, optimizer="sgd", problem=problem, rounding=mode) for mode in MODES]
    low = {row["mantissa_bits"]: row["rms_gradient"] for row in pairs[1]}
    return float(statistics.median([float(row["rms_gradient"]) / low[row["mantissa_bits"]] for row in pairs[0]]))


def caption(data: Data) -> str:
    ratios = "; ".join(
        f"{label} {_ratio(data, optimizer=name, rounding='nearest_even'):.2f} to nearest and "
        f"{_ratio(data, optimizer=name, rounding='stochastic'):.2f} stochastic"
        for name, label in OPTIMIZERS.items()
    )
    covered = sum(not math.isnan(_bound(row)) for row in data["rows"])
    steps = {label: _chosen(data, optimizer=name)[0]["steps"] for name, label in OPTIMIZERS.items()}
    return (
        r"The floor, the root mean square of $\|\nabla F(w_t)\|$ over the second half of the run, with every operation "
        f"rounded: measured (markers; bands, mostly narrower than a marker: 95 % confidence over {data['seeds']} "
        f"seeds) and proven (lines; {covered} of {len(data['rows'])} runs have a bound). Median of bound over "
        f"measurement: {ratios}. SGD runs without gradient noise, and its floor is all the format's doing: it halves "
        f"with each bit, and with stochastic rounding it is lower by a median factor of {_gain(data, 'quadratic'):.0f} "
        f"(quadratic) and {_gain(data, 'rational'):.0f} (rational). RMSprop and Adam run with Gaussian noise, and stop "
        "gaining bits where that noise takes over. A bound above the panel is not drawn. "
        f"Not settled yet: {_unsettled(data)} of {len(data['rows'])} runs. "
        f"Steps: {', '.join(f'{label} {number}' for label, number in steps.items())}."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = [("no run violates a bound", all(row["verdict"] != "violated" for row in data["rows"]))]
    found.append(("no more than 1 run in 50 has not settled", 50 * _unsettled(data) <= len(data["rows"])))
    with_bound = [row for row in data["rows"] if not math.isnan(_bound(row))]
    found.append(
        ("measured floors lie below their bounds", all(x["rms_gradient_low"] <= x["bound"] for x in with_bound))
    )
    for problem in PROBLEMS:
        found.append((f"{problem}: stochastic rounding lowers SGD's floor", _gain(data, problem) > 1.0))
        for mode in MODES:
            line = sorted(
                _chosen(data, optimizer="sgd", problem=problem, rounding=mode), key=lambda x: x["mantissa_bits"]
            )
            first, last = line[len(line) // 3], line[-1]
            halvings = math.log2(first["rms_gradient"] / last["rms_gradient"])
            rate = halvings / (last["mantissa_bits"] - first["mantissa_bits"])
            found.append((f"{problem}, {mode}: SGD's floor halves with each bit", 0.9 < rate < 1.1))
        for optimizer in ("rmsprop", "adam"):
            a, b = (
                max(
                    _chosen(data, optimizer=optimizer, problem=problem, rounding=mode), key=lambda x: x["mantissa_bits"]
                )
                for mode in MODES
            )
            same = 0.9 < a["rms_gradient"] / b["rms_gradient"] < 1.1
            found.append((f"{problem}: wide formats leave {optimizer} the noise's floor alone", same))
    return found


FIGURE = PaperFigure(
    "floors", "floors against mantissa bits, measured beside proven", True,
    {"quick": {"mantissa": "2..16", "seeds": 8, "steps": {"sgd": 6000, "rmsprop": 4000, "adam": 4000}},
     "full": {"mantissa": "2..23", "seeds": 16, "steps": {"sgd": 24000, "rmsprop": 16000, "adam": 16000}}},
    compute, draw, caption, claims, "71 s on one core",
)  # fmt: skip
