"""The tables of the gallery: one file a table, with a constant ``TABLE``; names start with ``table_``.

>>> "table_theorems" in tables()
True
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from paper_figures.table import PaperTable


@functools.cache
def tables() -> dict[str, PaperTable]:
    """All tables by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [importlib.import_module(f"{__name__}.{name}").TABLE for name in modules]
    return {table.name: table for table in found}
