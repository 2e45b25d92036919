"""What an audit of a training loop measured: shares and ranges of every tensor, and how they went from step to step."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpsim.audit_log import AuditLog
from fpsim.formats import format as named_format
from paper_figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 24
ROW_INCHES = 0.22
SHARES = {
    "w_frozen": "$w$ frozen",
    "v_stuck": "$v$ cannot decrease",
    "v_swamped": "$g^2$ swamped in $v$",
    "g2_underflow": "$g^2$ underflows",
}
ARRAYS = {"w": style.BLUE, "g": style.GREEN, "m": style.ORANGE, "v": style.VERMILLION}
_PARTS = {"complex64": "float32", "complex128": "float64", "complex32": "float16"}


def build(log: AuditLog, out: Path, name: str = "audit", formats: Sequence[str] = ("pdf", "png")) -> list[Path]:
    """Draw the log.

    Above, one row a tensor, the latest measurement: on the left the shares that rounding spoils; on the right the
    binades from the smallest nonzero modulus to the largest, grey where its dtype has no normal number. Below, step by
    step: the same shares over all tensors, and how far weights moved for the declared learning rate, the median over
    tensors and their range.

    Parameters
    ----------
    log : with at least one measured step
    out : existing folder
    name : the files' name

    Raises
    ------
    ValueError
        No step was measured.
    """
    if not log.record["samples"]:
        raise ValueError("log has no measured step; admissible: logs with at least one")
    with style.paper_style():
        return style.save(_figure(log), out, name, formats)


def _figure(log: AuditLog) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, left_out = _rows(log)
    rows = max(len(names), 3) * ROW_INCHES
    figure = Figure(figsize=(style.PAGE_INCHES, rows + 2.75), layout="constrained")
    FigureCanvasAgg(figure)
    (shares, ranges), (course, rates) = figure.subplots(2, 2, height_ratios=[rows + 0.3, 1.45])
    _shares(shares, log, names)
    _ranges(ranges, log, names)
    _course(course, log)
    _rates(rates, log)
    handles, labels = shares.get_legend_handles_labels()
    more, their = ranges.get_legend_handles_labels()
    figure.legend(handles + more, labels + their, loc="outside upper center", ncols=4, handletextpad=0.4)
    note = f"{log.record['optimizer']}, step {log.record['samples'][-1]['step']}"
    figure.supxlabel(note + (f"; {left_out} further tensors are not shown" if left_out else ""), fontsize=8)
    return figure


def _rows(log: AuditLog) -> tuple[list[str], int]:
    """The tensors to show, in the log's order: where there are too many, those with the largest shares."""
    latest = [name for name in log.names if _measured(log, name)]
    if len(latest) <= MOST_ROWS:
        return latest, 0
    worst = sorted(latest, key=lambda name: -max([_share(log.last(name).get(s)) or 0.0 for s in SHARES]))[:MOST_ROWS]
    return [name for name in latest if name in worst], len(latest) - MOST_ROWS


def _measured(log: AuditLog, name: str) -> bool:
    return any(name in sample["tensors"] for sample in log.record["samples"])


def _shares(axes: Axes, log: AuditLog, names: Sequence[str]) -> None:
    for i, (key, label) in enumerate(SHARES.items()):
        points = [(_share(_of(log.last(name), key)), row) for row, name in enumerate(names)]
        shown = [(100 * x, row + 0.16 * (i - 1.5)) for x, row in points if x is not None]
        if shown:
            axes.plot(
                *zip(*shown, strict=True),
                linestyle="none",
                marker=style.MARKERS[i],
                color=style.COLOURS[i],
                label=label,
                clip_on=False,
                zorder=3,
            )
    _tensor_axis(axes, names)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_xlim(-2, 102)
    axes.set_xlabel("entries, %")
    axes.grid(axis="x")


def _ranges(axes: Axes, log: AuditLog, names: Sequence[str]) -> None:
    first: dict[str, bool] = {}
    low, high = [], []
    for row, name in enumerate(names):
        x, about = log.last(name), log.record["tensors"][name]
        dtypes = {"w": about["dtype"], "g": about["dtype"], **about["moments"]}
        for i, (array, colour) in enumerate(ARRAYS.items()):
            if array not in x["headroom"]:
                continue
            fmt = named_format(_PARTS.get(dtypes[array], dtypes[array]))
            up, down = x["headroom"][array]
            start, end = fmt.emin + down, fmt.emax - up + 1
            at = row + 0.2 * (i - 1.5)
            axes.plot([start, end], [at, at], color=colour, linewidth=2, solid_capstyle="butt", zorder=3)
            if array not in first:
                axes.plot([], [], color=colour, linewidth=2, label=f"range of ${array}$")
                first[array] = True
            low.append((start, fmt.emin, row))
            high.append((end, fmt.emax + 1, row))
    if not low:
        low, high = [(-1, -1, 0)], [(1, 1, 0)]  # nothing but zeros
    left, right = min(x for x, _, _ in low) - 3, max(x for x, _, _ in high) + 3
    grey = False
    for ends, outer, side in ((low, left, -1), (high, right, 1)):
        for row in range(len(names)):
            limits = [limit for _, limit, at in ends if at == row]
            if not limits:
                continue
            limit = max(limits) if side < 0 else min(limits)
            if (limit - outer) * side < 0:
                axes.barh(row, outer - limit, left=limit, height=1.0, color="0.9", linewidth=0, zorder=0)
                grey = True
    axes.set_xlim(left, right)
    _tensor_axis(axes, names)
    axes.set_yticks(range(len(names)), [])
    axes.set_xlabel(r"$\log_2$ of the modulus" + (" (grey: not normal in its dtype)" if grey else ""))


def _tensor_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color="0.88", linewidth=0.4, zorder=0)


def _course(axes: Axes, log: AuditLog) -> None:
    for i, key in enumerate(SHARES):
        points = []
        for sample in log.record["samples"]:
            found = [share for x in sample["tensors"].values() if (share := _of(x, key)) and share[1]]
            if found:
                points.append((sample["step"], 100 * sum(k for k, _ in found) / sum(n for _, n in found)))
        if points:
            axes.plot(*zip(*points, strict=True), marker=style.MARKERS[i], color=style.COLOURS[i], clip_on=False)
    axes.set_ylim(-3, 103)
    _step_axis(axes, log)
    axes.set_ylabel("all tensors, %")


def _rates(axes: Axes, log: AuditLog) -> None:
    steps, middle, low, high = [], [], [], []
    for sample in log.record["samples"]:
        found = []
        for name, x in sample["tensors"].items():
            declared = sample["groups"][log.record["tensors"][name]["group"]].get("lr")
            if declared and "lr_effective" in x:
                found.append(x["lr_effective"] / declared)
        if found:
            steps.append(sample["step"])
            middle.append(statistics.median(found))
            low.append(min(found))
            high.append(max(found))
    axes.axhline(1.0, color="0.6", linewidth=0.6)
    axes.fill_between(steps, low, high, color=style.SKY, alpha=0.35, linewidth=0)
    axes.plot(steps, middle, marker="o", color=style.BLUE)
    axes.set_ylim(bottom=min([0.0, *low]))
    _step_axis(axes, log)
    axes.set_ylabel("effective / declared lr")
    axes.set_title("median and range of the tensors", fontsize=8, pad=3)


def _step_axis(axes: Axes, log: AuditLog) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    last = log.record["samples"][-1]["step"]
    axes.set_xlim(0, last * 1.03)
    axes.set_xlabel("step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y")


def _of(x: Mapping[str, Any], key: str) -> list[int] | None:
    """A share; of an optimizer that is not understood, the weights that did not move."""
    found: list[int] | None = x.get(key, x.get("w_unmoved") if key == "w_frozen" else None)
    return found


def _share(pair: list[int] | None) -> float | None:
    return pair[0] / pair[1] if pair and pair[1] else None


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"...{name[-(most - 3) :]}"
