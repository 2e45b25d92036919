"""Printed kernels on disk, each in a readable file that is named by its content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any


def directory() -> Path:
    """Where printed kernels lie: ``$FPSIM_CACHE_DIR``, or ``fpsim`` in the user's cache directory; ``triton`` there."""
    own = os.environ.get("FPSIM_CACHE_DIR")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fpsim"
    return base / "triton"


@lru_cache(maxsize=512)
def kernel_of(name: str, text: str) -> Any:
    """The function ``kernel`` of a printed module.

    The file is written where it is missing or has another text, in one step, so that processes may do so side by side.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    path = directory() / f"{plain}_{digest}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        try:
            _write(path, text)
        except OSError as error:
            raise OSError(
                f"printed kernels cannot be written to {path.parent} ({error.strerror}); set FPSIM_CACHE_DIR to a "
                "folder that can be written, and TRITON_CACHE_DIR, where Triton keeps what it compiles, too"
            ) from error
    spec = importlib.util.spec_from_file_location(f"fpsim_printed_{plain}_{digest}", path)
    assert spec is not None and spec.loader is not None  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(part, path)
