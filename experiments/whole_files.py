"""Files that are whole or absent, and Parquet files that tell when a single bit of them has changed.

Bytes are made in memory, written under a temporary name beside their place and moved there. A crash leaves at most a
temporary file (``.NAME-XXXXXXXX.tmp``), which no reader looks at. Nothing is synced to the disk: a power failure may
leave a file empty or short, which the digest shows, so that all it costs is that cell; a sync would cost milliseconds
for every cell.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl

STALE_SECONDS = 3600.0  # a write takes milliseconds; a clock of another machine may be off by minutes
_ZEROS = b"0" * 32
_FACTS, _DIGEST = "fpsim", "digest"
_MARK = "§blake2b:"


class StoreError(OSError):
    """The output folder cannot be used; one line that says why."""


def write_whole(path: Path, data: bytes) -> Path:
    """Put ``data`` in the place of ``path``, whole or not at all; what was there before stays if it fails.

    Raises
    ------
    StoreError
        Names the file and the reason: the disk is full, say.
    """
    temporary = f"{path.parent}/.{path.stem}-{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]  # a raw file may take a part only
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from error
    return path


def sweep(folder: Path) -> None:
    """Remove temporary files that a crash left behind: those that nobody has touched for an hour."""
    oldest = time.time() - STALE_SECONDS
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                with contextlib.suppress(OSError):  # another process was quicker
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)


def to_parquet(frame: pl.DataFrame, facts: Mapping[str, Any], compression: Literal["uncompressed", "zstd"]) -> bytes:
    """A Parquet file that carries ``facts`` and the digest of all its bytes (with zeros where the digest stands)."""
    place = secrets.token_hex(16)
    file = io.BytesIO()
    metadata = {_FACTS: json.dumps(facts, sort_keys=True), _DIGEST: _MARK + place}
    frame.write_parquet(file, metadata=metadata, statistics=False, compression=compression)
    data = file.getvalue()
    zeroed = data.replace(place.encode(), _ZEROS)
    return data.replace(place.encode(), _hash(zeroed))


def facts_of(data: bytes) -> dict[str, Any]:
    """The facts in a file of ``to_parquet``, once every byte is known to be as written: no parser sees a damaged one.

    Raises
    ------
    ValueError
        The bytes are not those that were written.
    """
    # The mark is no ASCII, which the JSON of the facts is; so its last occurrence is the digest's, in the footer.
    at = data.rfind(_MARK.encode()) + len(_MARK.encode())
    end = at + len(_ZEROS)
    if at < len(_MARK.encode()) or _hash(data[:at] + _ZEROS + data[end:]) != data[at:end]:
        raise ValueError("it is empty" if not data else "its digest does not match")
    facts: dict[str, Any] = json.loads(pl.read_parquet_metadata(io.BytesIO(data))[_FACTS])
    return facts


def read_facts(path: Path | str) -> dict[str, Any]:
    """Configuration, versions and seed that a result file carries."""
    facts: dict[str, Any] = json.loads(pl.read_parquet_metadata(Path(path))[_FACTS])
    return facts


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()
