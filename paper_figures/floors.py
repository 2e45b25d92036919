"""Measured floors and proven bounds against mantissa width: one panel for each optimizer and problem."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

TITLES = {"sgd": "SGD", "momentum": "SGD with momentum", "rmsprop": "RMSprop", "adam": "Adam"}
PROBLEMS = {"logistic": "logistic regression", "rational": "rational, non-convex"}
MODES = {
    "nearest_even": "to nearest",
    "nearest_away": "to nearest, ties away",
    "toward_zero": "toward zero",
    "to_odd": "to odd",
}
PANEL_HEIGHT = 1.55
TALLEST = 1e6  # top of a panel over its median floor
X_TICKS = (1, 4, 7, 10, 13, 16, 19, 23, 28, 34, 40, 46, 52)


def build(
    rows: Sequence[Row], out: Path, formats: Sequence[str] = ("pdf", "png"), name: str = "floors", note: str = ""
) -> list[Path]:
    """Draw the floors of a scan: ``floors.pdf`` and ``floors.png``, or a pair for each of several exponent widths.

    Markers are measured floors: the root mean square of the true gradient's norm over the measured steps and seeds,
    hollow where the run was not stationary; the band is their 95 % confidence interval over seeds. Lines are proven
    bounds on the gradient norm, and absent where the bound does not apply or is about something else.

    Parameters
    ----------
    rows : of ``experiments.store.read_rows``
    out : existing folder
    name, note : the files' name, and what is said below the axis

    Returns
    -------
    list of Path
        What was written; empty if no row has a floor to show.
    """
    drawable = [row for row in rows if _positive(row["rms_gradient"])]
    exponents = sorted({row["exponent_bits"] for row in drawable})
    paths = []
    for exponent in exponents:
        with style.paper_style():
            figure = _figure([row for row in drawable if row["exponent_bits"] == exponent], exponent, note)
            stem = name if len(exponents) == 1 else f"{name}_e{exponent}"
            paths += style.save(figure, out, stem, formats)
    return paths


def _figure(rows: Sequence[Row], exponent: int, note: str = "") -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    optimizers, problems = (list(dict.fromkeys(row[key] for row in rows)) for key in ("optimizer", "problem"))
    modes = list(dict.fromkeys(row["rounding"] for row in rows))
    width = style.PAGE_INCHES if len(problems) > 1 else style.COLUMN_INCHES
    handles, columns = _legend(rows, modes, 3 if len(problems) > 1 else 1)
    legend_lines = math.ceil(len(handles) / columns)
    height = PANEL_HEIGHT * max(len(optimizers), 1.5) + 0.45 + 0.17 * legend_lines
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(optimizers), len(problems), sharex=True, sharey="row", squeeze=False)
    for i, optimizer in enumerate(optimizers):
        for j, problem in enumerate(problems):
            here = [row for row in rows if row["optimizer"] == optimizer and row["problem"] == problem]
            _panel(panels[i, j], here, modes)
            _note(panels[i, j], here)
            if i == 0:
                panels[i, j].set_title(PROBLEMS.get(problem, problem))
        panels[i, 0].set_ylabel(TITLES.get(optimizer, optimizer))
        _limit(panels[i, 0], [row for row in rows if row["optimizer"] == optimizer])
    _axis(panels[0, 0], {row["mantissa_bits"] for row in rows})
    figure.supxlabel(f"stored mantissa bits $m$ ({exponent} exponent bits{', ' * bool(note)}{note})")
    figure.supylabel(r"floor: root-mean-square gradient norm $(\mathrm{E}\,\|\nabla F(w_t)\|^2)^{1/2}$")
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)
    figure.canvas.draw()  # lays the figure out once, for all formats
    figure.set_layout_engine("none")
    return figure


def _panel(axes: Axes, rows: Sequence[Row], modes: Sequence[str]) -> None:
    axes.set_yscale("log")
    axes.grid(True, which="major")
    axes.tick_params(which="minor", length=0)
    for mode in modes:
        colour, marker = _look(mode, modes)
        group = sorted((row for row in rows if row["rounding"] == mode), key=lambda row: row["mantissa_bits"])
        at = [row["mantissa_bits"] for row in group]
        low, high = ([_or_nan(row[f"rms_gradient_{end}"]) for row in group] for end in ("low", "high"))
        axes.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
        for hollow in (False, True):
            chosen = [row for row in group if (row["stationary"] is False) == hollow]
            axes.plot(
                [row["mantissa_bits"] for row in chosen],
                [row["rms_gradient"] for row in chosen],
                linestyle="none",
                marker=marker,
                color=colour,
                markerfacecolor="white" if hollow else colour,
                markeredgewidth=0.7,
                zorder=3,
            )
        axes.plot(at, [_bound(row) for row in group], color=colour, linestyle=_dashes(mode, modes))


def _note(axes: Axes, rows: Sequence[Row]) -> None:
    """Say so where the theorem is about another quantity, which this axis cannot show."""
    other = {row["theorem"] for row in rows if row["theorem"] and "gradient norm" not in (row["quantity"] or "")}
    if other:
        text = f"no bound on the floor\n({', '.join(sorted(other))}: see table)"
        axes.text(0.97, 0.94, text, transform=axes.transAxes, ha="right", va="top", color="0.35", fontsize=8)


def _limit(axes: Axes, rows: Sequence[Row]) -> None:
    """Let a run that diverged, or a bound far off, leave the panel at the top instead of flattening all others."""
    highest = TALLEST * statistics.median(row["rms_gradient"] for row in rows)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, min(top, highest))


def _axis(axes: Axes, widths: set[int]) -> None:
    low, high = min(widths), max(widths)
    ticks = [tick for tick in X_TICKS if low <= tick <= high]
    axes.set_xticks(ticks if len(ticks) > 1 else sorted(widths))
    axes.set_xlim(low - 0.8, high + 0.8)


def _legend(rows: Sequence[Row], modes: Sequence[str], most: int) -> tuple[list[Any], int]:
    """Entries of the legend, a mode's two below each other, and the number of columns: at most ``most``."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    blank = Patch(alpha=0.0, label=" ")
    pairs: list[tuple[Any, Any]] = []
    for mode in modes:
        colour, marker = _look(mode, modes)
        name = MODES.get(mode, mode)
        measured = Line2D([], [], color=colour, marker=marker, linestyle="none", label=f"{name}: measured")
        bound = Line2D([], [], color=colour, linestyle=_dashes(mode, modes), label=f"{name}: proven bound")
        has_bound = any(row["rounding"] == mode and not math.isnan(_bound(row)) for row in rows)
        pairs.append((measured, bound if has_bound else blank))
    band = Patch(facecolor="0.4", alpha=0.3, linewidth=0, label="95 % confidence over seeds")
    grey: dict[str, Any] = {"marker": style.MARKERS[0], "markerfacecolor": "white", "color": "0.4", "linestyle": "none"}
    hollow = Line2D([], [], markeredgewidth=0.7, label="hollow: not stationary yet", **grey)
    pairs.append((band, hollow if any(row["stationary"] is False for row in rows) else blank))
    columns = min(most, len(pairs))
    pairs += [(blank, blank)] * (-len(pairs) % columns)  # matplotlib fills columns first: no pair may be torn apart
    handles = [handle for pair in pairs for handle in pair]
    return (handles if columns > 1 else [handle for handle in handles if handle is not blank]), columns


def _look(mode: str, modes: Sequence[str]) -> tuple[str, str]:
    i = modes.index(mode)
    return style.COLOURS[i % len(style.COLOURS)], style.MARKERS[i % len(style.MARKERS)]


def _dashes(mode: str, modes: Sequence[str]) -> Any:
    patterns: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
    return patterns[modes.index(mode) % len(patterns)]


def _bound(row: Row) -> float:
    """The bound on the floor, or a gap where there is none: it does not apply, or it is about something else."""
    about_the_floor = "gradient norm" in (row["quantity"] or "")
    return _or_nan(row["bound"]) if about_the_floor and row["verdict"] != "not applicable" else math.nan


def _positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _or_nan(value: float | None) -> float:
    """What a logarithmic axis can show, or a gap."""
    return value if value is not None and math.isfinite(value) and value > 0 else math.nan
