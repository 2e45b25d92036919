"""The gallery: one file a figure or table, with a constant ``FIGURE``.

>>> "number_lines" in figures()
True
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from paper_figures.figure import PaperFigure


@functools.cache
def figures() -> dict[str, PaperFigure]:
    """All figures by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").FIGURE for name in names}
