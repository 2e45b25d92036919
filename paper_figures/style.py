"""The look of every figure, and how it is written: no LaTeX, embedded TrueType fonts, the same bytes every time."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

COLUMN_INCHES = 3.4
PAGE_INCHES = 7.0

# Okabe and Ito's palette, told apart under every common colour blindness (https://jfly.uni-koeln.de/color/).
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
BLACK = "#000000"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # so that black-and-white prints can be read too

_RC: dict[Any, Any] = {
    "text.usetex": False,
    "font.family": "STIXGeneral",  # ships with matplotlib and looks like Times
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.labelsize": 9,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "0.88",
    "lines.linewidth": 1.0,
    "lines.markersize": 3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType; publishers refuse Type 3
    "ps.fonttype": 42,
    "svg.hashsalt": "fpsim",
    "savefig.dpi": 300,
    "figure.dpi": 100,
}


@contextlib.contextmanager
def paper_style() -> Iterator[None]:
    """Matplotlib with this style, without a window, whatever the user's own configuration says."""
    import matplotlib as mpl

    with mpl.rc_context(mpl.rcParamsDefault), mpl.rc_context(_RC):
        yield


TEX = ("xelatex", "lualatex", "pdflatex")


class TexError(RuntimeError):
    """A TeX that is there and cannot set a figure's text."""


def tex_system() -> str | None:
    """The TeX that PGF files are made with, or None: the other formats need none."""
    return next((name for name in TEX if shutil.which(name)), None)


@contextlib.contextmanager
def journal_style(journal: Journal) -> Iterator[None]:
    """The same with a journal's size of letters."""
    import matplotlib as mpl

    sizes: dict[Any, Any] = dict.fromkeys(
        ("font.size", "axes.labelsize", "axes.titlesize", "figure.labelsize"), journal.points
    )
    small: dict[Any, Any] = dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), journal.points - 1)
    with paper_style(), mpl.rc_context({**sizes, **small, "pgf.texsystem": tex_system() or TEX[0]}):
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches, that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str] = ("pdf", "png")) -> list[Path]:
    """Write a figure in every format, whole or not at all. The same rows give the same bytes.

    Parameters
    ----------
    formats : of "pdf", "png", "svg", "pgf"

    Returns
    -------
    list of Path
        One for each format, in order.

    Raises
    ------
    TexError
        For "pgf": TeX lacks a font or a package; what stands before it in ``formats`` is written.
    """
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}, "pgf": None}
    paths = []
    for extension in formats:
        path = folder / f"{name}.{extension}"
        temporary = folder / f".{name}-{secrets.token_hex(4)}.tmp"
        try:
            with _tex_errors() if extension == "pgf" else contextlib.nullcontext():
                figure.savefig(temporary, format=extension, metadata=undated[extension])
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        paths.append(path)
    return paths


def try_tex() -> None:
    """Raise ``TexError`` if PGF files cannot be made here: a trial of a second or two before hours of runs."""
    figure = canvas(1.0, 1.0)
    figure.text(0.5, 0.5, "$x$")
    with tempfile.TemporaryDirectory() as folder:
        save(figure, Path(folder), "trial", ("pgf",))


@contextlib.contextmanager
def _tex_errors() -> Iterator[None]:
    from matplotlib.backends.backend_pgf import LatexError

    try:
        yield
    except (LatexError, OSError, RuntimeError) as error:
        lines = str(getattr(error, "latex_output", "") or error).splitlines() or [""]
        said = next((line for line in lines if "not found" in line or line.startswith("! ")), lines[0])
        raise TexError(f"pgf is made by TeX, and {tex_system()} cannot set text here: {said.strip()}") from error
