"""Small data of every figure of the gallery: the constant ``EXAMPLE`` of its test file."""

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
    """``EXAMPLE`` of ``test_NAME.py``; the test that asks is skipped where there is none."""
    path = HERE / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_of_{name}", path)
    if not path.exists() or spec is None or spec.loader is None:
        pytest.skip(f"no small data of figure {name}: {path.name} is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "EXAMPLE"):
        pytest.skip(f"no small data of figure {name}: {path.name} has no EXAMPLE")
    return dict(module.EXAMPLE)


def names() -> list[str]:
    return list(figures())
