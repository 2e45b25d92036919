"""The file of ``--json`` or ``--out``: found to be writable before any work, and then written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from experiments.cli import UsageError


def check_file(verb: str, file: Path | None, flag: str = "--json") -> None:
    """Before any work, with an empty file beside it: permissions do not tell of /proc or of names too long.

    Raises
    ------
    UsageError
        The file cannot be written; one line, for stderr.
    """
    if file is None:
        return
    try:
        if file.is_dir():
            raise UsageError(f"fpsim {verb}: error: {flag}: {str(file)!r} is a folder")
        if file.exists() and not file.is_file():
            raise UsageError(
                f"fpsim {verb}: error: {flag}: {str(file)!r} is a device or a pipe, which would be replaced"
            )
        if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
            raise UsageError(f"fpsim {verb}: error: {flag}: {str(file.parent)!r} is no folder that can be written to")
        temporary = _temporary(file)
        temporary.write_text("")
        temporary.unlink()
    except OSError as error:
        raise UsageError(f"fpsim {verb}: error: {flag}: {str(file)!r} cannot be written: {error.strerror}") from error


def write_file(file: Path, record: dict[str, Any]) -> None:
    """Whole or not at all."""
    temporary = _temporary(file)
    try:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(file: Path) -> Path:
    return file.with_name(f".{file.name}-{secrets.token_hex(4)}.tmp")
