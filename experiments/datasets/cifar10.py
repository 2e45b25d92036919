"""CIFAR-10 in its Python version, read from a folder that the user names. The files are pickles; nothing in them runs.

Format: https://www.cs.toronto.edu/~kriz/cifar.html, "Dataset layout, Python / Matlab versions".
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.datasets import CLASSES
from experiments.datasets.base import Batch, Samples
from experiments.datasets.files import digest, existing

TRAIN, TEST = tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"
PIXELS = 3 * 32 * 32


def cifar10(*, path: str = "") -> Samples:
    """Images float32 ``[3, 32, 32]`` in [0, 1] (a byte over 255) and their ten classes.

    Parameters
    ----------
    path : the folder ``cifar-10-batches-py``, with files data_batch_1 .. data_batch_5 and test_batch

    Raises
    ------
    FileNotFoundError
        The folder or a file is missing.
    ValueError
        A file is no such pickle: it holds anything else than dicts, lists, numbers, texts and arrays of numbers.
    """
    folder = existing(path, "the folder cifar-10-batches-py")
    files = tuple(existing(folder / name, f"a file {name} in it") for name in (*TRAIN, TEST))
    parts = [_read(file) for file in files]
    images, labels = (np.concatenate([part[i] for part in parts[:-1]]) for i in range(2))
    return Samples("cifar10", CLASSES, (images, labels), parts[-1], 10, {"digest": digest(files)})


def _read(file: Path) -> Batch:
    held = safely_unpickled(file.read_bytes(), file.name)
    held = held if isinstance(held, dict) else {}
    data, labels = (held.get(name, held.get(name.decode())) for name in (b"data", b"labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        raise ValueError(f"{file.name}: 'data' is no array uint8[n, {PIXELS}]")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(x in range(10) for x in labels):
        raise ValueError(f"{file.name}: 'labels' is no list of {len(data)} numbers in 0..9")
    return (data.reshape(-1, 3, 32, 32) / np.float32(255.0)).astype(np.float32), np.array(labels, np.int64)


def safely_unpickled(data: bytes, name: str) -> Any:
    """What a pickle holds, if that is plain data and NumPy arrays of numbers.

    Raises
    ------
    ValueError
        The pickle asks for anything else, or is damaged. Nothing that it names is imported or called.
    """
    try:
        return _Plain(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise ValueError(f"{name} is no pickle of plain data and arrays ({' '.join(str(error).split())})") from error


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The few names that a pickled array needs, each by a function of this file, none of them looked up."""
        if (module.partition(".")[0], name) in _ALLOWED:
            return _ALLOWED[module.partition(".")[0], name]()
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _empty_array(kind: Any, shape: Any, code: Any) -> npt.NDArray[Any]:
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array that is not made empty first")
    return np.ndarray((0,), np.int8)


def _dtype(code: Any, *flags: Any) -> np.dtype[Any]:
    text = code.decode("ascii") if isinstance(code, bytes) else code
    if not isinstance(text, str) or text not in {f"{kind}{width}" for kind in "iuf" for width in (1, 2, 4, 8)}:
        raise pickle.UnpicklingError(f"an array of {text!r}")
    return np.dtype(text)


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("bytes that are not written as latin1")
    return text.encode("latin1")


class _Named:
    """A function as a pickle sees it: something to call, without an attribute that it could set."""

    __slots__ = ("__call",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__call = function

    def __call__(self, *given: Any) -> Any:
        return self.__call(*given)


_ALLOWED: dict[tuple[str, str], Callable[[], Any]] = {
    ("numpy", "_reconstruct"): lambda: _Named(_empty_array),
    ("numpy", "ndarray"): lambda: np.ndarray,
    ("numpy", "dtype"): lambda: _Named(_dtype),
    ("_codecs", "encode"): lambda: _Named(_encoded),
}
