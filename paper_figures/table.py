"""A table of the gallery: the same cells as LaTeX (booktabs) and as Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from experiments.whole_files import write_whole
from paper_figures.figure import Data, Report

# A text, in which $..$ is TeX's mathematics and nothing else is markup; a number; or nothing.
Cell: TypeAlias = str | float | int | None
Row: TypeAlias = Sequence[Cell]

_MATHEMATICS = re.compile(r"(\$[^$]*\$)")
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip
NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """head : as a cell;  align : ``l``, ``r`` or ``c``;  width : share of the line at which words wrap, or 0."""

    head: str
    align: str = "l"
    width: float = 0.0


@dataclass(frozen=True)
class PaperTable:
    """One table; as ``paper_figures.figure.PaperFigure``, but for what it shows.

    Attributes
    ----------
    columns : data -> columns
    groups : data -> groups of rows, which rules set apart
    size : LaTeX's name of the size of its letters
    """

    name: str
    title: str
    wide: bool
    parameters: Mapping[str, Mapping[str, Any]]
    compute: Callable[[Mapping[str, Any], Path, Report], dict[str, Any]]
    columns: Callable[[Data], Sequence[Column]]
    groups: Callable[[Data], Sequence[Sequence[Row]]]
    caption: Callable[[Data], str]
    claims: Callable[[Data], Sequence[tuple[str, bool]]]
    full_cost: str
    size: str = "footnotesize"


def save(table: PaperTable, data: Data, folder: Path, caption: str) -> list[Path]:
    """Write ``NAME.tex`` and ``NAME.md``. The same data give the same bytes."""
    files = []
    for suffix, text in (("tex", latex(table, data, caption)), ("md", markdown(table, data, caption))):
        files.append(folder / f"{table.name}.{suffix}")
        write_whole(files[-1], text.encode())
    return files


def latex(table: PaperTable, data: Data, caption: str) -> str:
    """A float with a label ``tab:NAME``; it needs ``\\usepackage{booktabs}`` and, where words wrap, ``array``.

    Raises
    ------
    ValueError
        A row has another number of cells than there are columns.
    """
    columns = table.columns(data)
    kind = "table*" if table.wide else "table"
    raggeds = (rf">{{\raggedright\arraybackslash}}p{{{c.width:g}\linewidth}}" if c.width else c.align for c in columns)
    rules = ["\\midrule"]
    body = []
    for group in _checked(table, data, columns):
        body += rules + [" & ".join(_tex(cell) for cell in row) + r" \\" for row in group]
    lines = [
        "% needs \\usepackage{booktabs,array}", rf"\begin{{{kind}}}[t]",
        rf"\centering\{table.size}\setlength{{\tabcolsep}}{{4pt}}",
        rf"\caption{{{_tex(caption)}}}", rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{@{{}}{''.join(raggeds)}@{{}}}}", r"\toprule",
        " & ".join(_tex(column.head) for column in columns) + r" \\", *body, r"\bottomrule",
        r"\end{tabular}", rf"\end{{{kind}}}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def markdown(table: PaperTable, data: Data, caption: str) -> str:
    """A table of GitHub's Markdown below its caption; mathematics stays as it is."""
    columns = table.columns(data)
    marks = {"l": ":--", "r": "--:", "c": ":-:"}
    head = [[column.head for column in columns], [marks[column.align] for column in columns]]
    rows = [[_md(cell) for cell in row] for group in _checked(table, data, columns) for row in group]
    return "\n".join([caption, "", *(f"| {' | '.join(row)} |" for row in [*head, *rows]), ""])


def _checked(table: PaperTable, data: Data, columns: Sequence[Column]) -> list[Sequence[Row]]:
    groups = [group for group in table.groups(data) if group]
    for row in (row for group in groups for row in group):
        if len(row) != len(columns):
            raise ValueError(f"{table.name}: row {row!r} has {len(row)} cells; admissible: {len(columns)}")
    return groups


def number(value: float, digits: int = 3) -> str:
    """A number as mathematics, with three significant digits: ``$0.0123$``, ``$1.23 \\cdot 10^{-7}$``.

    Examples
    --------
    >>> number(0.01234), number(3.4e38), number(6e-8), number(480)
    ('$0.0123$', '$3.4 \\\\cdot 10^{38}$', '$6 \\\\cdot 10^{-8}$', '$480$')
    """
    if not math.isfinite(value):
        return r"$\infty$" if value > 0 else NOTHING
    if value == int(value) and abs(value) < 1e6:
        return f"${int(value)}$"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}"
        return f"${float(text):g}$"
    significand, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return rf"${float(significand):g} \cdot 10^{{{int(exponent)}}}$"


def _text(cell: Cell) -> str:
    if cell is None:
        return NOTHING
    return cell if isinstance(cell, str) else str(cell) if isinstance(cell, int) else number(cell)


def _tex(cell: Cell) -> str:
    parts = _MATHEMATICS.split(_text(cell))
    return "".join(p if p.startswith("$") else "".join(_TEX.get(letter, letter) for letter in p) for p in parts)


def _md(cell: Cell) -> str:
    return _text(cell).replace("|", r"\|")
