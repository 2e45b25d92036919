"""Every example of a docstring runs and prints what it says, and so does the README's."""

import contextlib
import doctest
import importlib
import io
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("fpsim", "theory", "experiments", "paper_figures")


# Triton's functions, for Linux only; whether they are interpreted is decided when they are imported.
COMPILED = [
    f"fpsim.cuda.triton_{part}"
    for part in ("elements", "kernels", "matmul_kernels", "program_parts", "random", "single", "wide")
]


def modules():
    """Names of all modules, but for scripts and what only runs where an extra is installed."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] not in ("__main__", "arrays_torch") and ".".join(parts) not in COMPILED:
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", list(modules()))
def test_the_examples_of_a_module_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_the_examples_of_the_classes_for_pytorch_run():
    """They are made on first access: a test before this one may or may not have asked for them."""
    from fpsim import optim
    from fpsim.optim.torch_table import names

    finder, runner = (
        doctest.DocTestFinder(recurse=False),
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE),
    )
    for name in names():
        (example,) = finder.find(getattr(optim, name), name)
        assert example.examples and runner.run(example).failed == 0


def test_there_are_examples_at_all():
    finder = doctest.DocTestFinder()
    found = [test for name in modules() for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 20


def test_every_public_function_shows_an_example():
    import fpsim

    without = [
        name
        for name in fpsim.__all__
        if name not in ("optim", "RunResult", "Program") and ">>>" not in (getattr(fpsim, name).__doc__ or "")
    ]
    assert without == []


def test_the_python_of_the_readme_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
        assert printed.getvalue()


def test_the_programs_the_readme_names_exist():
    """Each `fpsim VERB` of the README is a verb, and each `fpsim.NAME` a name."""
    import fpsim
    from experiments.cli import VERBS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:`|/)fpsim ([a-z]+)", text)) <= set(VERBS)
    missing = [name for name in set(re.findall(r"`fpsim\.([A-Za-z_]+)", text)) if not hasattr(fpsim, name)]
    assert missing == []
