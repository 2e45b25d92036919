"""Which cases of a test run every time: the others are slow, so that the fast tests stay a matter of minutes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *fast: Any) -> list[Any]:
    """The values as parameters of a test, all of them ``slow`` but those that are named; each of these must occur."""
    listed = list(values)
    missing = [x for x in fast if x not in listed]
    if missing:
        raise ValueError(f"fast={missing} are none of the cases; admissible: {listed}")
    return [x if x in fast else _slow(x) for x in listed]


def _slow(value: Any) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
