"""The theorems, one per file ``tNN_name.py`` with a module constant ``THEOREM``. Adding a file adds a theorem.

Bounds of the literature, for comparison, are files ``xNN_name.py``.

>>> "T6" in theorems()
True
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from types import ModuleType

from theory.theorem import Theorem

_NUMBERED = re.compile(r"[tx]\d\d_")


@functools.cache
def theorems() -> dict[str, Theorem]:
    """All theorems by identifier, in the order of their numbers."""
    return {module.THEOREM.identifier: module.THEOREM for module in _modules()}


def prose(identifier: str) -> str:
    """The docstring of a theorem's file: model, hypotheses, statement and how sharp it is, in words."""
    return next(module.__doc__ or "" for module in _modules() if module.THEOREM.identifier == identifier)


@functools.cache
def _modules() -> list[ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if _NUMBERED.match(module.name))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def theorem(identifier: str) -> Theorem:
    """One theorem.

    Raises
    ------
    ValueError
        There is none of this name; the message lists them.
    """
    try:
        return theorems()[identifier]
    except KeyError:
        raise ValueError(f"theorem {identifier!r} is unknown; admissible: {', '.join(theorems())}") from None
