"""Codes as arrays of a dtype and back, without a copy: NumPy's own dtypes, those of ml_dtypes, and torch's.

A dtype belongs to a format if every code means the same in both. What a format does on overflow, and whether results
below its smallest normal number are flushed, is no property of its codes and does not matter here.

===============================================  ==========================  =================
format                                           NumPy                       torch
===============================================  ==========================  =================
binary16, binary32, binary64                     float16, float32, float64   the same
bfloat16                                         ml_dtypes                   bfloat16
float8_e4m3fn, e5m2, e4m3fnuz, e5m2fnuz, e8m0fnu ml_dtypes                   the same
float8_e3m4, float8_e4m3 (e4m3), e4m3b11fnuz     ml_dtypes                   -
float6_e2m3fn, float6_e3m2fn, float4_e2m1fn      ml_dtypes, one in a byte    -
===============================================  ==========================  =================

torch's ``float4_e2m1fn_x2`` has two numbers in a byte: no view of codes, one in a byte, gives it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fpsim.codes import Codes
from fpsim.formats import format as named_format
from fpsim.number_format import Format

Library = Literal["numpy", "torch"]

# Name of a dtype -> name of its format.
_BUILT_IN = {"float16": "binary16", "float32": "binary32", "float64": "binary64"}
_BOTH = {
    name: name
    for name in (
        "bfloat16",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    )
}
_ML_DTYPES = _BOTH | {
    "float8_e3m4": "float8_e3m4",
    "float8_e4m3": "e4m3",
    "float8_e4m3b11fnuz": "float8_e4m3b11fnuz",
    "float6_e2m3fn": "float6_e2m3fn",
    "float6_e3m2fn": "float6_e3m2fn",
    "float4_e2m1fn": "float4_e2m1fn",
}
_NAMES: dict[str, dict[str, str]] = {"numpy": _BUILT_IN | _ML_DTYPES, "torch": _BUILT_IN | _BOTH}


def dtype_of(fmt: Format | str, library: Library = "numpy") -> Any:
    """The dtype whose codes are those of a format.

    Parameters
    ----------
    fmt : Format or its name
    library : "numpy" (and ml_dtypes) or "torch"

    Returns
    -------
    numpy.dtype or torch.dtype

    Raises
    ------
    ValueError
        The library has no such dtype, or is none of the two.
    ImportError
        ml_dtypes or torch, which has it, is not installed.

    Examples
    --------
    >>> dtype_of("binary16")
    dtype('float16')
    """
    fmt = named_format(fmt)
    if library not in list(_NAMES):  # what cannot be hashed is no name either
        raise ValueError(f"library={library!r}; admissible: numpy, torch")
    name = _name(fmt, library)
    if name is None:
        known = ", ".join(_NAMES[library])
        raise ValueError(f"format {fmt.name}: {library} has no dtype with its codes; it has {known}")
    if library == "torch":
        return getattr(_imported("torch"), name)
    return np.dtype(name) if name in _BUILT_IN else np.dtype(getattr(_imported("ml_dtypes"), name))


def as_dtype(codes: Codes, fmt: Format | str, library: Library = "numpy") -> Any:
    """Codes, as ``encode`` gives them, seen as an array of the format's dtype. Both share their memory.

    Parameters
    ----------
    codes : array of the unsigned integer type that ``encode`` gives for the format
    fmt : Format or its name
    library : "numpy" (and ml_dtypes) or "torch"

    Returns
    -------
    array or CPU tensor of the same shape

    Raises
    ------
    TypeError
        ``codes`` is no array, or of another integer type: a view would need a copy.
    ValueError
        There is no such dtype, a code is outside the format, or torch cannot share this memory (read-only arrays,
        negative strides, other byte orders).
    ImportError
        ml_dtypes or torch is not installed.

    Examples
    --------
    >>> from fpsim import encode
    >>> as_dtype(encode([1.0, -2.5], "binary16"), "binary16")
    array([ 1. , -2.5], dtype=float16)
    """
    fmt = named_format(fmt)
    dtype = dtype_of(fmt, library)
    needed = np.min_scalar_type((1 << fmt.bits) - 1)
    if not isinstance(codes, np.ndarray) or codes.dtype != needed:
        found = f"array of {codes.dtype}" if isinstance(codes, np.ndarray) else type(codes).__name__
        raise TypeError(
            f"codes: {found}; admissible for {fmt.name}: an array of {needed}, in this machine's byte order"
        )
    if fmt.bits < 8 * needed.itemsize and codes.size and int(codes.max()) >= 1 << fmt.bits:
        raise ValueError(f"codes reach {int(codes.max())}; admissible for {fmt.name}: 0..{(1 << fmt.bits) - 1}")
    if library == "numpy":
        return codes.view(dtype)
    if not codes.flags.writeable or any(stride < 0 or stride % needed.itemsize for stride in codes.strides):
        raise ValueError("codes are read-only or have strides that torch cannot share; admissible: a copy of them")
    # torch has few operations on unsigned integers of more than 8 bits; a signed view is the same memory.
    signed = codes if needed.itemsize == 1 else codes.view(f"i{needed.itemsize}")
    return _imported("torch").from_numpy(signed).view(dtype)


def from_dtype(array: Any) -> tuple[Codes, Format]:
    """The codes of an array or CPU tensor, and their format. The codes share the memory of the array.

    Parameters
    ----------
    array : NumPy array or torch tensor of a dtype of the table above

    Returns
    -------
    codes : array of unsigned integers of the same shape
    fmt : Format

    Raises
    ------
    TypeError
        ``array`` is neither an array nor a tensor, or it is masked.
    ValueError
        No format has the codes of its dtype, its bytes are not in this machine's order, it is not on the CPU, or a
        tensor's memory does not hold its values (sparse ones, views with torch's negative bit).

    Examples
    --------
    >>> codes, fmt = from_dtype(np.array([1.0, -2.5], dtype=np.float16))
    >>> codes.tolist(), fmt.name
    ([15360, 49408], 'e5m10')
    """
    if type(array).__module__.partition(".")[0] == "torch" and hasattr(array, "element_size"):
        return _from_torch(array)
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("a masked array: codes have no mask; admissible: a plain array, such as x.filled(0)")
    if not isinstance(array, (np.ndarray, np.generic)):
        raise TypeError(f"array: {type(array).__name__}; admissible: a NumPy array or a torch tensor")
    given = np.asarray(array)
    fmt = _format_of(given.dtype.name, "numpy")
    if not given.dtype.isnative:
        raise ValueError(f"array of dtype {given.dtype.str}: its bytes are in the other order; convert it first")
    return given.view(f"u{given.dtype.itemsize}"), fmt


def _from_torch(tensor: Any) -> tuple[Codes, Format]:
    import torch

    fmt = _format_of(str(tensor.dtype).removeprefix("torch."), "torch")
    if tensor.device.type != "cpu":
        raise ValueError(f"a tensor on device {tensor.device}; admissible: cpu")
    if tensor.layout != torch.strided or tensor.is_neg():
        raise ValueError("a sparse tensor or a negated view; admissible: x.to_dense(), x.resolve_neg()")
    size = tensor.element_size()
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    codes: npt.NDArray[Any] = tensor.detach().view(integers).numpy().view(f"u{size}")
    return codes, fmt


def _format_of(name: str, library: Library) -> Format:
    if name not in _NAMES[library]:
        raise ValueError(f"array of dtype {name}; admissible: {', '.join(_NAMES[library])}")
    return named_format(_NAMES[library][name])


def _name(fmt: Format, library: Library) -> str | None:
    meaning = _meaning(fmt)
    return next((name for name, of in _NAMES[library].items() if _meaning(named_format(of)) == meaning), None)


def _meaning(fmt: Format) -> tuple[object, ...]:
    """What decides which value a code has."""
    return fmt.exponent_bits, fmt.mantissa_bits, fmt.bias, fmt.specials, fmt.signed, fmt.subnormals


def _imported(library: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(f"{library} is not installed; it has the dtype that was asked for") from error
