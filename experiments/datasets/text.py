"""Text that a Python installation carries: its licence, and the docstrings of its standard library."""

from __future__ import annotations

import ast
import functools
import hashlib
import platform
import sysconfig
from pathlib import Path

import numpy as np

from experiments.datasets.base import Windows

# Modules of the standard library, in alphabetical order, each one file or the __init__ of a package: enough text, and
# read within a second.
MODULES = (
    "argparse", "ast", "asyncio", "bisect", "calendar", "codecs", "collections", "configparser", "copy", "csv",
    "datetime", "decimal", "difflib", "doctest", "email", "enum", "fractions", "functools", "gettext", "heapq", "http",
    "inspect", "json", "logging", "optparse", "os", "pathlib", "pickle", "pickletools", "platform", "pprint", "random",
    "re", "shutil", "socket", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading",
    "tokenize", "traceback", "turtle", "typing", "unittest", "urllib", "uuid", "weakref", "zipfile",
)  # fmt: skip
# A fixed alphabet, so that a token means the same in every version of Python: line feed, then ASCII 32..126.
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
EVALUATION = 0.1  # share of the text, its end


def text(*, length: int = 64) -> Windows:
    """Characters of the licence and docstrings of this Python; a sample is ``length`` of them.

    The last tenth is for measuring. The text is that of the installed version, which the record names with a digest
    of the text; characters outside of the alphabet (line feed and ASCII 32..126) are left out.

    Examples
    --------
    >>> text().outputs, text(length=32).inputs
    (96, (32,))
    """
    whole, licence = _text()
    tokens = np.frombuffer(whole.encode("ascii"), np.uint8)
    numbers = np.where(tokens == 10, 0, tokens - 31).astype(np.uint8)
    cut = len(numbers) - int(EVALUATION * len(numbers))
    record = {
        "python": platform.python_version(),
        "licence": licence,
        "digest": hashlib.blake2b(whole.encode(), digest_size=16).hexdigest(),
    }
    return Windows("text", numbers[:cut], numbers[cut:], len(ALPHABET), length, record)


def spelled(tokens: np.ndarray) -> str:  # type: ignore[type-arg]
    """The characters of tokens."""
    return "".join(ALPHABET[token] for token in tokens.tolist())


@functools.cache
def _text() -> tuple[str, str]:
    """The text, and whether the installation has the licence, which some leave out."""
    library = Path(sysconfig.get_path("stdlib"))
    licence = library / "LICENSE.txt"
    parts = [licence.read_text(encoding="utf-8")] if licence.is_file() else []
    for module in MODULES:
        for path in (library / f"{module}.py", library / module / "__init__.py"):
            if path.is_file():
                parts += _docstrings(path.read_text(encoding="utf-8"))
                break
    if not parts:
        raise FileNotFoundError(f"text: no source of the standard library in {library}; give a file of tokens instead")
    known = set(ALPHABET)
    whole = "\n\n".join(part.strip().expandtabs() for part in parts)
    return "".join(character for character in whole if character in known), "yes" if licence.is_file() else "no"


def _docstrings(source: str) -> list[str]:
    """The docstrings of a file, in the order of its lines."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return [found for node in nodes if (found := ast.get_docstring(node))]
