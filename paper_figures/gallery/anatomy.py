"""The anatomy of a floor: one kind of value rounded at a time, and all but one, against everything and nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.defaults import HYPERPARAMETERS
from paper_figures import style
from paper_figures.figure import Data, PaperFigure, Report
from paper_figures.studies import FLOOR, rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

OPTIMIZERS = {"sgd": "SGD", "rmsprop": "RMSprop", "adam": "Adam"}
MODES = {"nearest_even": ("to nearest", style.VERMILLION, "s"), "stochastic": ("stochastic", style.BLUE, "o")}
# kind of value -> its name, and the slots that hold it
KINDS = {
    "weights": ("weights $w$", ("w", "w.*")),
    "gradient": ("gradient $g$", ("g", "gradient.*")),
    "first": ("1st moment $m$", ("m", "m.*")),
    "second": ("2nd moment $v$", ("v", "v.*")),
    "update": ("update", ("update.*",)),
    "constants": ("constants", ("scalar.*",)),
}
WITHOUT = {"sgd": ("first", "second"), "rmsprop": ("first",), "adam": ()}
COLUMNS = ("optimizer", "mantissa_bits", "overrides", *FLOOR)


def _kinds(optimizer: str) -> list[str]:
    return [kind for kind in KINDS if kind not in WITHOUT[optimizer]]


def patterns(optimizer: str) -> list[str]:
    """Patterns of all slots of a step and its gradient, but for the problem's own numbers."""
    return [pattern for kind in _kinds(optimizer) for pattern in KINDS[kind][1]]


def _cases(optimizer: str) -> dict[str, list[str]]:
    """Name of a case -> kinds of values that it rounds."""
    kinds = _kinds(optimizer)
    cases = {"none": [], "all": kinds} | {f"only {kind}": [kind] for kind in kinds}
    return cases | {f"but {kind}": [other for other in kinds if other != kind] for kind in kinds}


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    studies: dict[str, dict[str, Any]] = {}
    for optimizer in OPTIMIZERS:
        for mode in MODES:
            choice = f"e11m{parameters['mantissa']} {mode}"
            tables = [{slot: choice for kind in case for slot in KINDS[kind][1]} for case in _cases(optimizer).values()]
            studies[f"{optimizer}_{mode}"] = {
                "optimizer": optimizer, "problem": "quadratic", "noise": "gaussian", "sigma": parameters["sigma"],
                "lr": parameters["lr"][optimizer], "steps": parameters["steps"], "seeds": parameters["seeds"],
                "mantissa": 52, "exponent": 11, "rounding": "nearest_even", "overrides": tables,
            }  # fmt: skip
    found = rows(studies, folder, report, COLUMNS)
    names = [(o, mode, case) for o in OPTIMIZERS for mode in MODES for case in _cases(o)]
    keys = ("optimizer", "rounding", "case")
    told = [
        dict(zip(keys, name, strict=True)) | {c: row[c] for c in FLOOR} for name, row in zip(names, found, strict=True)
    ]
    return {"rows": told, "mantissa": parameters["mantissa"], "seeds": parameters["seeds"]}


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 2.3)
    panels = figure.subplots(1, len(OPTIMIZERS), sharey=True, sharex=True)
    for axes, optimizer in zip(panels, OPTIMIZERS, strict=True):
        _panel(axes, data, optimizer)
    labels = ["all of them", *(label for label, _ in KINDS.values())]
    panels[0].set_yticks(range(len(labels)), labels)
    low, high = panels[0].get_xlim()
    panels[0].set_xticks([10.0**k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)])
    panels[0].set_xlim(low, high)
    panels[0].set_ylim(len(labels) - 0.4, -1.1)
    panels[0].annotate("nothing rounded", (_floor(data, "sgd", "stochastic", "none"), -0.75), xytext=(3, 0),
                       textcoords="offset points", va="center", fontsize="small", color="0.35")  # fmt: skip
    figure.supxlabel("gradient norm where the run settles")
    figure.legend(handles=_handles(), loc="outside upper center", ncols=4, handletextpad=0.2, columnspacing=1.2)
    return figure


def _panel(axes: Axes, data: Data, optimizer: str) -> None:
    axes.set_xscale("log")
    axes.set_title(OPTIMIZERS[optimizer])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", which="minor", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(True, axis="x")
    axes.axhline(0.5, color="0.7", linewidth=0.5)
    for number, kind in enumerate(["all", *KINDS]):
        if kind in WITHOUT[optimizer]:
            axes.text(_floor(data, optimizer, "stochastic", "none") * 1.25, number, "none", color="0.5", va="center",
                      fontsize="small")  # fmt: skip
            continue
        for mode, (_, colour, marker) in MODES.items():
            at = number + (-0.17 if mode == "nearest_even" else 0.17)
            for case in ("all",) if kind == "all" else (f"but {kind}", f"only {kind}"):
                row = _row(data, optimizer, mode, case)
                axes.plot([row["rms_gradient_low"], row["rms_gradient_high"]], [at, at], color=colour)
                axes.plot(row["rms_gradient"], at, marker=marker, color=colour, markersize=3.6, markeredgewidth=0.7,
                          markerfacecolor="white" if case.startswith("but") else colour, linestyle="none",
                          zorder=3)  # fmt: skip
    axes.axvline(_floor(data, optimizer, "stochastic", "none"), color="0.35", linewidth=0.8, linestyle=(0, (2, 2)))


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    handles = []
    for label, colour, marker in MODES.values():
        for what, face in (("only this", colour), ("all but this", "white")):
            handles.append(
                Line2D([], [], linestyle="none", marker=marker, color=colour, markerfacecolor=face, markersize=3.6,
                       label=f"{label}, {what}")
            )  # fmt: skip
    return handles


def _row(data: Data, optimizer: str, mode: str, case: str) -> Mapping[str, Any]:
    wanted = {"optimizer": optimizer, "rounding": mode, "case": case}
    found: Mapping[str, Any] = next(row for row in data["rows"] if all(row[k] == x for k, x in wanted.items()))
    return found


def _floor(data: Data, optimizer: str, mode: str, case: str) -> float:
    value: float = _row(data, optimizer, mode, case)["rms_gradient"]
    return value


def caption(data: Data) -> str:
    def times(optimizer: str, mode: str, case: str) -> str:
        return f"{_floor(data, optimizer, mode, case) / _floor(data, optimizer, mode, 'none'):.2g}"

    weights = "; ".join(
        f"{label} {times(name, 'nearest_even', 'only weights')} and {times(name, 'stochastic', 'only weights')} times "
        f"(all rounded: {times(name, 'nearest_even', 'all')} and {times(name, 'stochastic', 'all')})"
        for name, label in OPTIMIZERS.items()
    )
    rest = ", ".join(f"{label} {times(name, 'stochastic', 'but weights')}" for name, label in OPTIMIZERS.items())
    constants = ", ".join(f"{OPTIMIZERS[o]} {times(o, 'nearest_even', 'only constants')}" for o in ("rmsprop", "adam"))
    return (
        f"Which roundings make a floor. Filled: only the named values have {data['mantissa']} stored mantissa bits (11 "
        "exponent bits, so that no range is left), and all others are binary64; hollow: all but the named values. "
        "Dashed: nothing rounded, where the gradient noise alone sets the norm. Bars (mostly narrower than a marker): "
        f"95 % confidence over {data['seeds']} seeds. The stored weights make the floor; rounding them alone "
        f"multiplies the norm of binary64, to nearest and stochastically: {weights}. With all but the weights rounded "
        "(stochastic) the norm is that of "
        f"binary64 times: {rest}. Rounding the constants changes the method rather than its accuracy (times binary64: "
        rf"{constants}): $\beta_2$ is stored as 1, $v$ only grows, and the steps shrink."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    tie = 1.0 - 2.0 ** -(data["mantissa"] + 2)  # below 1 numbers lie 2^-(m+1) apart: what exceeds this rounds to 1
    found = []
    for optimizer, label in OPTIMIZERS.items():
        for mode in MODES:
            none = _floor(data, optimizer, mode, "none")
            alone = {kind: _floor(data, optimizer, mode, f"only {kind}") for kind in _kinds(optimizer)}
            rest = _floor(data, optimizer, mode, "but weights")
            found += [
                (f"{label}, {mode}: the weights raise the floor most", max(alone, key=alone.__getitem__) == "weights"),
                (f"{label}, {mode}: the weights alone raise the floor by half or more", alone["weights"] > 1.5 * none),
                (f"{label}, {mode}: all but the weights raise it by at most a quarter", rest < 1.25 * none),
            ]
        if optimizer != "sgd":
            lower = _floor(data, optimizer, "nearest_even", "only constants") < 0.8 * none
            found.append((f"{label}: rounded constants lower the norm", lower))
            found.append((f"{label}: beta2 is stored as 1", HYPERPARAMETERS[optimizer]["beta2"] > tie))
    return found


FIGURE = PaperFigure(
    "anatomy", "which roundings make a floor: one kind of value at a time", True,
    {profile: {"mantissa": 4, "sigma": 0.1, "lr": {"sgd": 0.05, "rmsprop": 0.01, "adam": 0.01}, "steps": steps,
               "seeds": seeds} for profile, steps, seeds in (("quick", 4000, 8), ("full", 16000, 32))},
    compute, draw, caption, claims, "14 minutes of CPU time",
)  # fmt: skip
