"""How the kernels of this room are compiled. No other file here sets a compiler option.

``fastmath`` stays off and nothing is contracted into fused multiply-adds: the kernels compute what is written.
``error_model="numpy"`` lets a division by zero give an infinity, and loops with divisions stay vectorised.
"""

from __future__ import annotations

from typing import Any

import numba

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}


def kernel(function: Any) -> Any:
    """Compile a function that Python calls, and keep the machine code on disk.

    The cache notices changes of the function's own file only: what it inlines belongs into the same file.
    """
    return numba.njit(cache=True, **_OPTIONS)(function)


def inline(function: Any) -> Any:
    """Compile into the caller: a call left inside a loop keeps it from being vectorised."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)
