"""Small data of every figure of the gallery: those that its test file works with."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from paper_figures.gallery import figures

HERE = Path(__file__).parent / "paper_figures"


@functools.cache
def example(name: str) -> dict[str, Any]:
    """The constant ``EXAMPLE`` of the figure's test file, or its fixture ``data`` if that takes no arguments.

    The test that asks is skipped where there is neither.
    """
    for path in (HERE / f"test_{name}.py", HERE / f"test_gallery_{name}.py"):
        if path.exists():
            module = _imported(path)
            if hasattr(module, "EXAMPLE"):
                return dict(module.EXAMPLE)
            made = inspect.unwrap(getattr(module, "data", None))
            if inspect.isfunction(made) and not inspect.signature(made).parameters:
                return dict(made())
    pytest.skip(f"no small data of figure {name}: neither EXAMPLE nor data() in its test file")


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names() -> list[str]:
    return list(figures())
