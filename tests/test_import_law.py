"""Which room may import which.

Inside fpsim, a module imports from its own row and the rows above:

    number_format formats format_text rounding codes random_bits number_line dtypes
        exact exact_operations elementary block_formats exact_block accumulator exact_accumulate tensor_core
    scalars schedule_text plugins shapes program tracing precision events
    exact_run cpu cuda
    array_call arrays more_arrays elementary_arrays block_arrays contractions run event_counts
    optim
    nn audit audit_follow audit_log audit_measure audit_probe audit_rules audit_table

theory imports from fpsim what a proof is about; experiments imports fpsim and theory; paper_figures imports all three.
Only the verbs in experiments/cli import paper_figures, inside a function.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("fpsim", "theory", "experiments", "paper_figures")
ROWS = [
    {"number_format", "formats", "format_text", "rounding", "codes", "random_bits", "number_line", "dtypes"}
    | {"exact", "exact_operations", "elementary", "block_formats", "exact_block"}
    | {"accumulator", "exact_accumulate", "tensor_core", "arrays_torch"},
    {"scalars", "schedule_text", "plugins", "shapes", "program", "tracing", "precision", "events"},
    {"exact_run", "cpu", "cuda"},
    {"array_call", "arrays", "more_arrays", "elementary_arrays", "block_arrays", "contractions", "run"}
    | {"event_counts"},
    {"optim"},
    {"nn", "audit", "audit_follow", "audit_log", "audit_measure", "audit_probe", "audit_rules", "audit_table"},
]
ROW = {name: number for number, row in enumerate(ROWS) for name in row}
FACES = tuple(
    f"fpsim.optim.torch_{part}" for part in ("dtypes", "face", "machine", "matrix", "options", "parts", "state")
)
TORCH_ROOMS = ("fpsim.arrays_torch", "fpsim.cuda", "fpsim.nn", "experiments.networks.", *FACES)  # on first use
FOR_PROOFS = {
    "number_format",
    "formats",
    "rounding",
    "exact",
    "elementary",
    "scalars",
    "program",
    "precision",
    "exact_run",
}
MAY = {
    "fpsim": {"fpsim"},
    "theory": {"fpsim", "theory"},
    "experiments": {"fpsim", "theory", "experiments"},
    "paper_figures": {"fpsim", "theory", "experiments", "paper_figures"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _typing_only(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, with whether that happens when the file is imported."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level <= 1, f"{path}: relative import"
                base = child.module or ""
                base = ".".join(filter(None, (package, base))) if child.level else base
                for alias in child.names:
                    inner = ROOT.joinpath(*base.split("."), alias.name)
                    is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                    yield (f"{base}.{alias.name}" if is_module else base), at_import
            else:
                lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                lazy = lazy or (isinstance(child, ast.If) and _typing_only(child))
                yield from walk(child, at_import and not lazy)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def ours(path: Path) -> list[tuple[str, bool]]:
    return [(name, at_import) for name, at_import in imports(path) if name.split(".")[0] in ROOMS]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_the_law(path: Path) -> None:
    importer = module_name(path)
    room = importer.split(".")[0]
    verb = importer.startswith("experiments.cli")
    for name, at_import in ours(path):
        target = name.split(".")[0]
        if verb and target == "paper_figures":
            assert not at_import, f"{importer} imports {name} outside of a function"
            continue
        assert target in MAY[room], f"{importer} imports {name}"
        if target != "fpsim" or importer == "fpsim":
            continue
        parts = name.split(".")
        if room == "fpsim":
            assert len(parts) > 1, f"{importer} imports its own package"
            row = ROW[importer.split(".")[1]]
            assert ROW[parts[1]] <= row, f"{importer} imports {name}, which is in a later row"
        if room == "theory":
            assert len(parts) > 1, f"{importer} imports all of fpsim"
            assert parts[1] in FOR_PROOFS, f"{importer} imports {name}"


def test_every_module_of_fpsim_has_a_row() -> None:
    modules = {path.stem if path.is_file() else path.name for path in (ROOT / "fpsim").iterdir()}
    modules = {name for name in modules if not name.startswith("_") and name != "py"}
    assert modules <= set(ROW), modules - set(ROW)


def test_no_circles() -> None:
    """Among the imports that run when a file is imported."""
    edges: dict[str, set[str]] = {}
    for path in FILES:
        name = module_name(path)
        edges[name] = {target for target, at_import in ours(path) if at_import and target != name}
    done: set[str] = set()
    open_: list[str] = []

    def visit(name: str) -> None:
        if name in open_:
            raise AssertionError("circle: " + " -> ".join([*open_[open_.index(name) :], name]))
        if name in done or name not in edges:
            return
        open_.append(name)
        for target in sorted(edges[name]):
            visit(target)
        done.add(open_.pop())

    for name in sorted(edges):
        visit(name)


@pytest.mark.parametrize(
    "path", [path for path in FILES if not module_name(path).startswith(TORCH_ROOMS)], ids=module_name
)
def test_torch_is_imported_on_first_use(path: Path) -> None:
    eager = [
        name for name, at_import in imports(path) if at_import and name.startswith(("torch", "triton", *TORCH_ROOMS))
    ]
    assert not eager


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(run.stdout.split())


HEAVY = {"sympy", "matplotlib", "polars", "torch", "sklearn", "flint", "dask", *ROOMS[1:]}


def test_importing_fpsim_loads_nothing_heavy() -> None:
    loaded = loaded_by("import fpsim; fpsim.format('bfloat16'); fpsim.Key(0); fpsim.Precision.uniform('e4m3')")
    # Numba asks scipy for its version, which loads no more than the name.
    assert not loaded & (HEAVY | {f"scipy.{name}" for name in ("linalg", "optimize", "sparse", "special", "stats")})
    assert {"fpsim", "fpsim.program", "numpy"} <= loaded


def test_importing_fpsim_does_not_load_the_compiler() -> None:
    """Numba takes longer to import than all the rest; the first array function or run loads it."""
    assert not loaded_by("import fpsim; fpsim.Precision.uniform('e4m3'); fpsim.optim.STEPS") & {"numba", "llvmlite"}
    assert "numba" in loaded_by("import fpsim; fpsim.round(0.1, 'bfloat16')")
    loaded_by("import fpsim, fpsim.run; assert callable(fpsim.run) and callable(fpsim.round)")
    loaded_by("import fpsim; assert set(fpsim.__all__) <= set(dir(fpsim))")


def test_the_emulator_works_without_torch() -> None:
    assert not loaded_by("import fpsim; fpsim.round(0.1, 'bfloat16'); fpsim.encode(1.0, 'bfloat16')") & HEAVY
    assert (
        not loaded_by("import fpsim; assert 'Adam' in dir(fpsim.optim) and not hasattr(fpsim.optim, 'Nothing')") & HEAVY
    )
