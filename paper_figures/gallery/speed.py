"""How fast the emulator is: beside a copy of the same bytes, other libraries, and a loop written out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures import style
from paper_figures.figure import Data, PaperFigure, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

MODES = {
    "nearest_even": "nearest even", "nearest_away": "nearest away", "toward_zero": "toward zero", "up": "up",
    "stochastic16": "stochastic,\n16 bits", "stochastic32": "stochastic,\n32 bits",
}  # fmt: skip
FORMATS = {"bfloat16": "bfloat16", "binary16": "binary16", "float8_e5m2": "FP8 E5M2"}
SCANS = {
    "nearest_even m 0..23": "nearest even", "toward_zero m 0..23": "toward zero",
    "stochastic16 m 0..17": "stochastic,\n$M \\leq 17$", "stochastic16 m 18..23": "stochastic,\n$M \\geq 18$",
}  # fmt: skip
_LARGE, _SMALL = 1 << 24, 1 << 15


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    """What the shipped records of ``fpsim bench`` say; nothing is measured anew."""
    bench, scan = (_record(name) for name in parameters["records"])
    dtype = parameters["dtype"]
    rounding = {
        mode: [_one(bench, "round", f"bfloat16 {dtype} {mode}", size)["ratio"] for size in (_LARGE, _SMALL)]
        for mode in MODES
    }
    peers: dict[str, dict[str, float]] = {}
    for row in bench["rows"]:
        fmt, _, rest = row["case"].partition(f" {dtype} ")
        if row["bench"] == "peers" and rest and row["value"] is not None:
            if "wrong" in rest:
                raise ValueError(f"bench record: {row['case']!r}; only results equal to fpsim's are compared")
            peers.setdefault(rest, {})[fmt] = row["value"]
    scans = {}
    for case in SCANS:
        strips = _one(scan, "scan", f"{case} strips")["value"]
        scans[case] = {"strips": strips, "scan": _one(scan, "scan", f"{case} (")["value"]}
    machine = {name: bench[name] for name in ("processor", "versions", "pinned")} | {"dates": []}
    machine["dates"] = [bench["date"], scan["date"]]
    return {"dtype": dtype, "rounding": rounding, "peers": peers, "scans": scans, "machine": machine}


def _record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("experiments").joinpath("records", f"{name}.json").read_text("utf-8"))
    return found


def _one(record: Mapping[str, Any], bench: str, case: str, size: int | None = None) -> Mapping[str, Any]:
    found = [
        row for row in record["rows"]
        if row["bench"] == bench and (row["case"] == case or (case.endswith("(") and row["case"].startswith(case)))
        and size in (None, row["size"])
    ]  # fmt: skip
    if len(found) != 1:
        raise ValueError(f"bench record has {len(found)} rows of {bench} {case!r}; exactly 1 is needed")
    return dict(found[0])


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 2.5)
    rounding, peers, scans = figure.subplots(1, 3, width_ratios=[1.0, 1.25, 1.0])
    _rounding(rounding, data)
    _peers(peers, data)
    _scans(scans, data)
    for axes, letter in ((rounding, "a"), (peers, "b"), (scans, "c")):
        axes.set_title(f"({letter})", loc="left", pad=10)
    return figure


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), list(labels))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x")


def _above(axes: Axes, x: float, text: str, colour: str, ha: str = "center") -> None:
    axes.annotate(text, (x, 1.0), xycoords=axes.get_xaxis_transform(), xytext=(0, 1), textcoords="offset points",
                  color=colour, ha=ha, va="bottom", fontsize="small")  # fmt: skip


def _rounding(axes: Axes, data: Data) -> None:
    from matplotlib.ticker import MaxNLocator

    _rows(axes, list(MODES.values()))
    axes.axvline(1.0, color=style.BLACK, linewidth=0.8, linestyle="--")
    for i, (name, at) in enumerate((("memory", 0), ("cache", 1))):
        values = [ratios[at] for ratios in data["rounding"].values()]
        axes.plot(values, range(len(values)), linestyle="none", marker=style.MARKERS[i], color=style.COLOURS[i])
        _above(axes, values[0], name, style.COLOURS[i], "right" if i == 0 else "left")
    axes.set_xlim(0.0, 1.1 * max(max(ratios) for ratios in data["rounding"].values()))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("time / time of a copy")


def _peers(axes: Axes, data: Data) -> None:
    names = list(data["peers"])
    _rows(axes, names)
    axes.set_xscale("log")
    for i, (fmt, label) in enumerate(FORMATS.items()):
        at = [row + 0.2 * (i - 1) for row in range(len(names))]
        axes.plot([data["peers"][name].get(fmt, math.nan) for name in names], at, linestyle="none",
                  marker=style.MARKERS[i], color=style.COLOURS[i], label=label)  # fmt: skip
    axes.axvline(min(data["peers"]["copy"].values()), color=style.BLACK, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xlabel("ns per number, one core")
    axes.legend(loc="upper right", handletextpad=0.1, borderaxespad=0.1, frameon=True, edgecolor="none", framealpha=1)


def _scans(axes: Axes, data: Data) -> None:
    _rows(axes, [SCANS[name] for name in data["scans"]])
    for row, found in enumerate(data["scans"].values()):
        axes.plot([found["strips"], found["scan"]], [row, row], color="0.6", zorder=1)
        axes.plot(found["strips"], row, marker="|", markersize=8, markeredgewidth=1.2, color=style.BLACK)
        axes.plot(found["scan"], row, marker="o", color=style.BLUE)
    first = next(iter(data["scans"].values()))
    _above(axes, first["strips"], "by hand", style.BLACK, "right")
    _above(axes, first["scan"], "fpsim", style.BLUE, "left")
    axes.set_xlim(0.0, 1.1 * max(found["scan"] for found in data["scans"].values()))
    axes.set_xlabel("ns per operation")


def _against(data: Data, name: str) -> list[float]:
    """Times of a library over fpsim's, format by format."""
    ours = data["peers"]["fpsim"]
    return [value / ours[fmt] for fmt, value in data["peers"][name].items()]


def _number(x: float) -> str:
    return f"{x:.1f}" if x < 10 else f"{x:.0f}"


def caption(data: Data) -> str:
    large, small = ([ratios[i] for ratios in data["rounding"].values()] for i in (0, 1))
    plain = [ratios[0] for mode, ratios in data["rounding"].items() if not mode.startswith("stochastic")]
    copies = _against(data, "copy")
    others = [name for name in data["peers"] if name not in ("copy", "fpsim")]
    versions = data["machine"]["versions"]
    said = ", ".join(
        f"{_number(min(ratios))} to {_number(max(ratios))} times as long ({name} {versions[name]})"
        for name in others if (ratios := _against(data, name))
    )  # fmt: skip
    over = [found["scan"] / found["strips"] for found in data["scans"].values()]
    rates = [1 / found["scan"] for found in data["scans"].values()]
    return (
        f"Speed on one core ({data['machine']['processor']}). (a) Rounding {data['dtype']} numbers to bfloat16, over a "
        f"copy of the same bytes (dashed), of $2^{{24}}$ numbers in memory and $2^{{15}}$ in a cache. In memory "
        f"rounding takes {min(plain):.2f} to {max(plain):.2f} times as long as the copy, {max(large):.2f} times "
        f"with 32 random bits a number; in a cache {min(small):.2f} to {max(small):.2f} times. (b) Rounding to nearest "
        f"of $2^{{18}}$ numbers into a new array: fpsim needs {1 / max(copies):.2f} to {1 / min(copies):.2f} times a "
        f"copy (dashed: the fastest copy), other libraries that give the same results take {said}. (c) A "
        "rounded operation of Adam in a scan over $M$ stored mantissa bits, beside the same operations written out by "
        f"hand for each format: {min(over):.2f} to {max(over):.2f} times, {min(rates):.1f} to "
        rf"{max(rates):.1f} $\times 10^9$ operations per second."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    plain = [ratios[0] for mode, ratios in data["rounding"].items() if not mode.startswith("stochastic")]
    others = [ratio for name in data["peers"] if name not in ("copy", "fpsim") for ratio in _against(data, name)]
    scans = data["scans"].values()
    return [
        ("in memory rounding without random bits takes at most 1.25 times a copy", max(plain) <= 1.25),
        ("fpsim takes at most 1.25 times a copy beside its peers", min(_against(data, "copy")) >= 1 / 1.25),
        ("no other library is faster", len(others) > 0 and min(others) > 1.0),
        ("a scan takes at most 1.6 times what is written by hand", max(f["scan"] / f["strips"] for f in scans) <= 1.6),
    ]


PARAMETERS = {"records": ["bench", "scan"], "dtype": "float32"}
FIGURE = PaperFigure(
    "speed", "speed beside a copy, other libraries and code written by hand", True,
    {"quick": PARAMETERS, "full": PARAMETERS}, compute, draw, caption, claims, "the same",
)  # fmt: skip
