"""Small data of every figure of the gallery: ``EXAMPLE`` of its test file, or what it computes where that is cheap."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from paper_figures.gallery import figures

HERE = Path(__file__).parent / "paper_figures"


@functools.cache
def example(name: str) -> dict[str, Any]:
    """``EXAMPLE`` of ``test_NAME.py``: data, or a function without arguments that makes them."""
    path = HERE / f"test_{name}.py"
    if not path.exists():
        pytest.fail(f"figure {name} has no tests: {path.name} is missing")
    spec = importlib.util.spec_from_file_location(f"example_of_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, "EXAMPLE", None)
    if found is None:
        pytest.fail(f"{path.name} has no EXAMPLE: data of figure {name}, or a function that makes them")
    return dict(found() if callable(found) else found)


def names() -> list[str]:
    return list(figures())
