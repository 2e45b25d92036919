"""The figures of a report, each with its title and what it says in words: floors, tightness, the course of the runs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.scan_table import short, shown_widths, variants
from paper_figures import floors, style
from paper_figures.report.html import Html
from paper_figures.report.svg import inline
from theory.theorems import theorems

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

MOST_VARIANTS = 8  # of a grid over more than formats and roundings that are drawn
MOST_PANELS = 12
PANEL_WIDTH, PANEL_HEIGHT = 2.3, 1.7


@dataclass(frozen=True)
class Drawing:
    """svg : the element;  caption : below it."""

    svg: Html
    caption: str


def drawings(rows: Sequence[Row], verdicts: Sequence[Row]) -> list[Drawing]:
    """All that can be drawn of a study: of its rows, and of verdicts (theorem, status, ratio)."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (files, caption) in enumerate(_floors(rows, Path(folder)), start=1):
            found += [_inlined(file, f"floors{number}-{k}", "Floors", caption) for k, file in enumerate(files, start=1)]
        for name, figure, title, caption in (*_tightness(verdicts), *_courses(rows)):
            with style.paper_style():
                (file,) = style.save(figure, Path(folder), name, ("svg",))
            found.append(_inlined(file, name, title, caption))
    return found


def _inlined(file: Path, name: str, title: str, caption: str) -> Drawing:
    return Drawing(inline(file, name, title, caption), caption)


def _floors(rows: Sequence[Row], folder: Path) -> list[tuple[list[Path], str]]:
    """A figure for each variant of the grid, as ``fpsim scan`` draws them."""
    labels = variants([dict(row) for row in rows])
    several = list(dict.fromkeys(labels))
    found = []
    for number, variant in enumerate(several[:MOST_VARIANTS], start=1):
        chosen = [row for row, label in zip(rows, labels, strict=True) if label == variant]
        files = floors.build(chosen, folder, ("svg",), f"floors_{number}", variant if len(several) > 1 else "")
        caption = (
            "Measured floors (markers: root-mean-square gradient norm over the measured steps and seeds, with 95 % "
            "confidence band; hollow: not stationary) and proven bounds (lines) against stored mantissa bits"
        )
        more = f" Drawn: the first {MOST_VARIANTS} of {len(several)} variants." if len(several) > MOST_VARIANTS else ""
        found.append((files, f"{caption}{f', {variant}' * (len(several) > 1)}.{more}"))
    return found


def _tightness(verdicts: Sequence[Row]) -> list[tuple[str, Figure, str, str]]:
    """Proven bound over measured value for every theorem that applies somewhere."""
    ratios: dict[str, list[float]] = {}
    for row in verdicts:
        ratio = row["ratio"]
        if ratio is not None and math.isfinite(ratio) and ratio > 0:
            ratios.setdefault(row["theorem"], []).append(ratio)
    if not ratios:
        return []
    ratios = {name: ratios[name] for name in theorems() if name in ratios}
    with style.paper_style():
        figure = style.canvas(4.6, 0.75 + 0.2 * len(ratios))
        axes = figure.subplots()
        for height, values in enumerate(ratios.values()):
            ordered = sorted(values)
            axes.plot(values, [height] * len(values), "|", color=style.BLUE, markersize=6, alpha=0.6)
            median = ordered[(len(ordered) - 1) // 2]
            axes.plot([median], [height], style.MARKERS[0], color=style.VERMILLION, markersize=4)
        axes.axvline(1, color="0.3", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yticks(range(len(ratios)), [f"{name} ({len(x)})" for name, x in ratios.items()])
        axes.set_ylim(len(ratios) - 0.4, -0.6)
        axes.grid(True, axis="x")
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("proven bound / measured value")
        axes.set_ylabel("theorem (cells)")
        _laid_out(figure)
    most, where = max((max(values), name) for name, values in ratios.items())
    below = any(x < 1 for values in ratios.values() for x in values)
    caption = (
        "How tight the bounds are: proven bound over measured value where a theorem applies, a tick for each cell, a "
        f"dot at the median; the largest ratio is {short(most, 3)} ({where})."
    )
    if below:
        caption += (
            " Left of 1 the bound lies below the measured mean: undecided if it is within the confidence interval."
        )
    return [("tightness", figure, "Tightness of the bounds", caption)]


def _courses(rows: Sequence[Row]) -> list[tuple[str, Figure, str, str]]:
    """Gradient norm over the step, a panel for each optimizer, problem and rounding, a line for each width shown."""
    labels = variants([dict(row) for row in rows])
    first, exponent = (labels[0], rows[0]["exponent_bits"]) if rows else ("", 0)
    chosen = [r for r, label in zip(rows, labels, strict=True) if label == first and r["exponent_bits"] == exponent]
    panels: dict[tuple[str, str, str], list[Row]] = {}
    shown = shown_widths({row["mantissa_bits"] for row in chosen})
    for row in chosen:
        drawable = any(x is not None and math.isfinite(x) and x > 0 for x in row["trace_rms_gradient"] or ())
        if row["mantissa_bits"] in shown and drawable:
            panels.setdefault((row["optimizer"], row["problem"], row["rounding"]), []).append(row)
    if not panels:
        return []
    kept = list(panels)[:MOST_PANELS]
    columns = min(3, len(kept))
    lines = math.ceil(len(kept) / columns)
    with style.paper_style():
        figure = style.canvas(PANEL_WIDTH * columns + 0.3, PANEL_HEIGHT * lines + 0.5)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes, key in zip(grid.flat, kept, strict=False):
            _course(axes, key, panels[key], shown)
        _limit(grid[0, 0], [row for key in kept for row in panels[key]])
        for number in range(len(kept), columns * lines):
            grid.flat[number].set_visible(False)
            grid.flat[number - columns].tick_params(labelbottom=True)  # the lowest of its column now
        figure.legend(handles=_keys(shown), loc="outside upper center", ncols=len(shown))
        figure.supxlabel("step")
        figure.supylabel("root-mean-square gradient norm")
        _laid_out(figure)
    of = f", {first}" if first else ""
    more = f" Drawn: the first {MOST_PANELS} of {len(panels)} panels." if len(panels) > MOST_PANELS else ""
    caption = (
        "The course of the runs: root-mean-square gradient norm over all seeds against the step, at "
        f"{', '.join(map(str, shown))} mantissa bits and {exponent} exponent bits{of}.{more}"
    )
    return [("courses", figure, "Course of the runs", caption)]


def _course(axes: Axes, key: tuple[str, str, str], rows: Sequence[Row], shown: Sequence[int]) -> None:
    optimizer, problem, rounding = key
    for row in rows:
        values = [x if x is not None and math.isfinite(x) and x > 0 else math.nan for x in row["trace_rms_gradient"]]
        axes.plot(row["trace_step"], values, **_look(row["mantissa_bits"], shown))
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("log")
    axes.set_title(f"{floors.TITLES.get(optimizer, optimizer)}, {problem}\n{floors.MODES.get(rounding, rounding)}")
    axes.grid(True, which="major")
    axes.tick_params(which="minor", length=0)


def _limit(axes: Axes, rows: Sequence[Row]) -> None:
    """Let a run that diverged leave its panel at the top instead of flattening all others."""
    from matplotlib.ticker import NullFormatter

    starts = [row["trace_rms_gradient"][0] for row in rows if row["trace_rms_gradient"][0]]
    finite = [x for x in starts if math.isfinite(x) and x > 0]
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, min(top, floors.TALLEST * max(finite, default=1.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _look(width: int, shown: Sequence[int]) -> dict[str, Any]:
    patterns: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
    n = list(shown).index(width)
    return {
        "color": style.COLOURS[n % len(style.COLOURS)],
        "linestyle": patterns[n % len(patterns)],
        "label": f"$m$ = {width}",
    }


def _keys(shown: Sequence[int]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], **_look(width, shown)) for width in shown]


def _laid_out(figure: Figure) -> None:
    figure.canvas.draw()
    figure.set_layout_engine("none")
