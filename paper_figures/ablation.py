"""What one rounded array does to an optimizer: panels of the gradient norm against steps, bits and a decay rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paper_figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cell = Mapping[str, Any]
Look = tuple[str, str, Any]  # colour, marker, dashes

# Arrays by their names in the optimizers' programs.
ARRAYS: dict[str, Look] = {
    "w": (style.BLUE, "o", "-"),
    "g": (style.GREEN, "s", (0, (4, 1.5))),
    "m": (style.ORANGE, "^", (0, (1, 1))),
    "v": (style.VERMILLION, "D", (0, (4, 1, 1, 1))),
}
NAMES = {"w": "weights $w$", "g": "gradient $g$", "m": "first moment $m$", "v": "second moment $v$"}
WIDE: Look = ("0.45", "", "-")


def cells_of(
    rows: Sequence[Mapping[str, Any]], more: Sequence[Mapping[str, Any]], what: str = "rms_gradient"
) -> list[dict[str, Any]]:
    """What is kept of the rows of a study: the median over seeds of the norm (or loss), their range, and the course.

    The range of n seeds holds the median of the law, whatever it is, with confidence 1 - 2^(1-n). Where a run did not
    stay finite there is none. ``more`` says of each row what it is.
    """
    found = []
    for row, about in zip(rows, more, strict=True):
        if row["outcome"] == "failed":
            raise RuntimeError(f"{about}: {row['reason']}")
        seeds = [x if x is not None and math.isfinite(x) else None for x in row[f"seed_{what}"]]
        finite = [x for x in seeds if x is not None]
        values: dict[str, float | None] = dict.fromkeys(("norm", "low", "high"))
        if len(finite) == len(seeds):
            values = {"norm": statistics.median(finite), "low": min(finite), "high": max(finite)}
        found.append({**about, **values, "trace": row[f"trace_{what}"]})
    return found


def confidence(seeds: int) -> str:
    """What a band of ``cells_of`` is, in words.

    Examples
    --------
    >>> confidence(6)
    'medians over 6 seeds, bands their range (97 % confidence of the median)'
    """
    percent = 100 * (1 - 2.0 ** (1 - seeds))
    return f"medians over {seeds} seeds, bands their range ({percent:.0f} % confidence of the median)"


def course(axes: Axes, steps: Sequence[int], wide: Cell, cells: Sequence[Cell]) -> None:
    """Gradient norm against steps, of every array at one width and without rounding."""
    for cell, (colour, _, dashes) in [(wide, WIDE), *((cell, ARRAYS[cell["array"]]) for cell in cells)]:
        points = [(k, norm) for k, norm in zip(steps, cell["trace"], strict=True) if norm and k]
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=dashes, linewidth=2.2 if cell is wide else 1.0,
                  alpha=0.5 if cell is wide else 1.0)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("step")
    logarithmic(axes)


def against_bits(axes: Axes, wide: Cell, cells: Sequence[Cell]) -> None:
    """Converged norm against the mantissa bits of one array, and in grey that of a run without rounding."""
    bits = sorted({cell["bits"] for cell in cells})
    band(axes, [bits[0] - 1, bits[-1] + 1], [wide, wide], WIDE, width=2.2)
    for array, look in ARRAYS.items():
        chosen = sorted((cell for cell in cells if cell["array"] == array), key=lambda cell: cell["bits"])
        if chosen:
            band(axes, [cell["bits"] for cell in chosen], chosen, look)
    axes.set_xlim(bits[0] - 1, bits[-1] + 1)
    axes.set_xticks(thinned(bits))
    axes.set_xlabel("mantissa bits $M$")
    logarithmic(axes)


def thinned(bits: Sequence[int], least: int = 3) -> list[int]:
    """Those that have room as labels of an axis.

    Examples
    --------
    >>> thinned([1, 2, 4, 7, 8, 10])
    [1, 4, 7, 10]
    """
    found = list(bits[:1])
    for width in bits[1:]:
        if width - found[-1] >= least:
            found.append(width)
    return found


def band(axes: Axes, x: Sequence[float], cells: Sequence[Cell], look: Look, hollow: bool = False, width: float = 1.0
         ) -> None:  # fmt: skip
    """A line with its confidence band."""
    colour, marker, dashes = look
    low, high, norm = ([_or_nan(cell[name]) for cell in cells] for name in ("low", "high", "norm"))
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, norm, color=colour, linestyle=dashes, marker=marker, linewidth=width, alpha=0.5 if width > 1 else 1.0,
              markerfacecolor="white" if hollow else colour, markeredgewidth=0.7)  # fmt: skip


def logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="y")


def few_decades(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5, for a logarithmic axis of one or two decades; it shows 1/2 and 2 at least."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.4), max(high, 2.5))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))


def limit(axes: Axes, cells: Sequence[Cell]) -> None:
    """The same limits whichever panels share the axis."""
    values = [x for cell in cells for x in (cell["low"], cell["high"], *(cell.get("trace") or [])[1:]) if x]
    axes.set_ylim(min(values) / 3, max(values) * 3)


def handles(arrays: Sequence[str], wide: str, hollow: str = "") -> list[Any]:
    """Entries of a legend below all panels."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=colour, marker=marker, linestyle=dashes, label=NAMES[array])
        for array in arrays for colour, marker, dashes in [ARRAYS[array]]
    ]  # fmt: skip
    lines.append(Line2D([], [], color=WIDE[0], linewidth=2.2, alpha=0.5, label=wide))
    if hollow:
        lines.append(Line2D([], [], color="0.3", marker="o", markerfacecolor="white", linestyle="none", label=hollow))
    return lines


def ratio(cell: Cell, wide: Cell) -> float:
    """Converged norm over that without rounding; infinite where a run did not stay finite."""
    return float(cell["norm"] / wide["norm"]) if cell["norm"] is not None else math.inf


def number(x: float) -> str:
    """Two digits, in TeX where they are many.

    Examples
    --------
    >>> number(1.234), number(34.5), number(12345.0), number(0.00123)
    ('1.2', '34', '$1.2 \\\\times 10^{4}$', '$1.2 \\\\times 10^{-3}$')
    """
    if 0.1 <= x < 1000:
        return f"{x:.1f}" if x < 10 else f"{x:.0f}"
    digits, exponent = f"{x:.1e}".split("e")
    return rf"${digits} \times 10^{{{int(exponent)}}}$"


def _or_nan(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) and value > 0 else math.nan
