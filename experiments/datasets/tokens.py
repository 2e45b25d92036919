"""Token files that a user has: raw unsigned integers of 16 or 32 bits, or a NumPy array in a ``.npy`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.datasets.base import Windows
from experiments.datasets.files import digest, existing
from experiments.problems.base import checked_integer, checked_real

PIECE = 1 << 22  # tokens that are looked at together
DTYPES = ("uint16", "uint32")


def tokens(
    *, path: str = "", vocabulary: int = 50304, length: int = 64, dtype: str = "uint16", share: float = 0.1
) -> Windows:
    """Windows of a token file, which is mapped into memory and read where a batch needs it.

    Parameters
    ----------
    path : a file; one named ``*.npy`` holds a one-dimensional array of integers, any other raw little-endian numbers
    vocabulary : int, number of tokens; a file with another number is refused
    length : int, tokens of a sample
    dtype : "uint16" or "uint32", of raw numbers
    share : of the file, its end, to measure on

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no row of integers in 0..vocabulary-1, or too short.
    """
    file = existing(path, "a file of raw uint16 or uint32 numbers, or a .npy file")
    checked_integer("vocabulary", vocabulary, 2, 1 << 31)
    share = checked_real("share", share, 0.0, 0.9)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; admissible: {', '.join(DTYPES)}")
    row = _npy(file) if file.suffix == ".npy" else _raw(file, dtype)
    _check(row, file.name, vocabulary)
    cut = len(row) - int(share * len(row))
    record = {"file": file.name, "digest": digest((file,))}
    return Windows("tokens", row[:cut], row[cut:], vocabulary, length, record)


def _raw(file: Path, dtype: str) -> npt.NDArray[Any]:
    size, width = file.stat().st_size, int(dtype.removeprefix("uint")) // 8
    if size == 0 or size % width:
        raise ValueError(f"{file.name} has {size} bytes; admissible: a multiple of {width}, above 0, for {dtype}")
    return np.memmap(file, dtype=f"<u{width}", mode="r")


def _check(row: npt.NDArray[Any], name: str, vocabulary: int) -> None:
    """Refuse a number that is no token: a batch that holds it might come after hours. The digest reads all anyway."""
    for start in range(0, len(row), PIECE):
        piece = row[start : start + PIECE]
        for number, place in ((int(piece.min()), piece.argmin()), (int(piece.max()), piece.argmax())):
            if not 0 <= number < vocabulary:
                at = f"{number} at place {start + int(place)}"
                raise ValueError(f"{name} holds token {at}; admissible: 0..{vocabulary - 1}, or a larger vocabulary")


def _npy(file: Path) -> npt.NDArray[Any]:
    try:
        row: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:  # the latter of an empty file
        raise ValueError(f"{file.name} is no NumPy array of numbers ({error})") from error
    if row.ndim != 1 or row.dtype.kind not in "iu":
        raise ValueError(f"{file.name} holds {row.dtype}{list(row.shape)}; admissible: one axis of integers")
    return row
