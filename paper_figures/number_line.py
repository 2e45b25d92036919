"""Where the values of formats lie: one line a format, one stroke a value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fpsim.codes import decode
from fpsim.formats import format as named_format
from paper_figures import style

MOST_BITS = 8  # of a format: more strokes than this flow together
LINE_HEIGHT = 0.22


def build(
    names: Sequence[str],
    out: Path,
    scale: str = "linear",
    high: float | None = None,
    formats: Sequence[str] = ("pdf", "png"),
) -> list[Path]:
    """Draw ``number_line.pdf`` and ``number_line.png``.

    Parameters
    ----------
    names : formats of at most 8 bits, drawn from top to bottom
    out : existing folder
    scale : "linear", or "log" for the positive values on a logarithmic axis
    high : end of the line; default: the largest value of all formats

    Raises
    ------
    ValueError
        There is no format, or one is unknown or too wide; ``scale`` or ``high`` is not admissible.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if scale not in ("linear", "log"):
        raise ValueError(f"scale={scale!r}; admissible: linear, log")
    if not names:
        raise ValueError("names is empty; admissible: at least one format")
    lines = [_values(name, scale == "log") for name in names]
    end = max(float(line[-1]) for line in lines) if high is None else high
    if not 0.0 < end < np.inf:
        raise ValueError(f"high={high!r}; admissible: positive finite numbers")
    with style.paper_style():
        figure = Figure(figsize=(style.PAGE_INCHES, 0.5 + LINE_HEIGHT * len(names)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        shown = [line[np.abs(line) <= end] for line in lines]
        axes.eventplot(
            shown,
            lineoffsets=list(range(len(shown))),
            linelengths=0.7,
            linewidths=0.5,
            colors=[style.COLOURS[i % len(style.COLOURS)] for i in range(len(shown))],
        )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "left", "right"]].set_visible(False)
        if scale == "log":
            axes.set_xscale("log", base=2)
        else:
            lowest = min(float(line[0]) for line in shown if len(line))
            axes.set_xlim(1.02 * lowest - 0.02 * end, 1.04 * end)
        return style.save(figure, out, "number_line", formats)


def _values(name: str, positive: bool) -> np.ndarray:
    """All different finite values, in order."""
    fmt = named_format(name)
    if fmt.bits > MOST_BITS:
        raise ValueError(f"format {name} has {fmt.bits} bits; admissible in the figure: at most {MOST_BITS}")
    values = np.unique(decode(np.arange(1 << fmt.bits), fmt))
    values = values[np.isfinite(values)]
    return values[values > 0] if positive else values
