"""How everything in this folder is compiled. No other file sets a compiler option.

``fastmath`` stays off: the kernels rest on ``(x + C) - C`` being evaluated as written. ``error_model="numpy"`` lets a
division by zero give an infinity and the loop stay vectorised.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}


def kernel(function: Any) -> Any:
    """Compile as a function of its own, named by the numbers it captures: see ``entry``."""
    return numba.njit(**_OPTIONS)(_named(function))


def inline(function: Any) -> Any:
    """Compile into the caller: a call left inside a loop keeps it from being vectorised."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def merge(function: Any) -> Any:
    """Paste into the caller: compiled on their own, dispatchers would compile all that they call once more."""
    return numba.njit(inline="always", **_OPTIONS)(function)


def entry(function: Any) -> Any:
    """Compile a function that Python calls, and keep the machine code on disk.

    Numba's cache looks at the entry's own file and at its closure, not at the files of the kernels it calls. Capture
    ``SOURCES`` in the closure: an edit of any file here then gives another cache entry.

    The other numbers of the closure become part of the name. Numba names machine code by the function and a counter of
    the process that compiled it; of two with one name, from the caches of two processes, only one could be looked up.
    """
    return numba.njit(cache=True, **_OPTIONS)(_named(function))


def _named(function: Any) -> Any:
    captured = [cell.cell_contents for cell in function.__closure__ or ()]
    numbers = [str(int(x)) for x in captured if isinstance(x, int) and x != SOURCES]
    function.__qualname__ = "_".join([function.__qualname__, *numbers])
    return function


def _hash_of_sources() -> int:
    digest = hashlib.blake2b(digest_size=7)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return int.from_bytes(digest.digest(), "little")


SOURCES = _hash_of_sources()
