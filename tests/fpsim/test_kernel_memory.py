"""Kernels read arrays through bare pointers, which keep nothing alive."""

import ast
from pathlib import Path

import pytest

import fpsim

FILES = sorted((Path(fpsim.__file__).parent / "cpu").glob("*.py"))
MADE = {"empty", "zeros", "ones", "full", "empty_like", "zeros_like", "ones_like", "full_like"}


def freed_too_early(source: str) -> list[str]:
    """Arrays that a function makes and reads last in ``pointer(..)``: Numba frees them there, the pointer dangles."""
    found = []
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)):
        nodes = list(ast.walk(function))
        made = {
            node.targets[0].id
            for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute)
            and node.value.func.attr in MADE
        }  # fmt: skip
        pointed = {
            node.args[0].id: node.lineno
            for node in nodes
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "pointer"
            and isinstance(node.args[0], ast.Name)
        }  # fmt: skip
        loops = [node for node in function.body if isinstance(node, (ast.For, ast.While))]
        end = max((node.end_lineno or 0 for node in loops), default=0)
        for name in sorted(made & pointed.keys()):
            last = max(node.lineno for node in nodes if isinstance(node, ast.Name) and node.id == name)
            if last <= max(end, pointed[name]):
                found.append(f"{function.name}: {name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_arrays_of_kernels_outlive_their_pointers(path: Path) -> None:
    assert freed_too_early(path.read_text(encoding="utf-8")) == []


def test_an_array_that_is_freed_too_early_is_found() -> None:
    kernel = "def f(n):\n    room = np.empty(n)\n    p = pointer(room)\n    for i in range(n):\n        p[i] = 0.0\n"
    assert freed_too_early(kernel) == ["f: room"]
    assert freed_too_early(kernel + "    return len(room)\n") == []
