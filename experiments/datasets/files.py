"""Files that a user names: where they are, and a digest that names what is in them."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def existing(path: str | Path, what: str) -> Path:
    """The path, if there is something.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or no path was given.
    """
    if not str(path):
        raise FileNotFoundError(f"path is not given; admissible: {what}")
    found = Path(str(path)).expanduser()  # a name of digits alone comes as a number
    if not found.exists():
        raise FileNotFoundError(f"path={str(path)!r}: nothing is there; admissible: {what}")
    return found


def digest(paths: tuple[Path, ...]) -> str:
    """32 hex digits of the contents; a file that has not changed is read once."""
    whole = hashlib.blake2b(digest_size=16)
    for path in paths:
        stat = path.stat()
        whole.update(_digest(path, stat.st_size, stat.st_mtime_ns).encode())
    return whole.hexdigest()


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
