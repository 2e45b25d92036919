"""Windows as data: compact bytes for a store, JSON for a certificate, both exact to the last bit.

Program and slots are not stored, for whoever has the configuration of a run can make them again. Their fingerprint is,
and a reader that comes with others is refused. Every other field of ``Window`` is carried as it is, whatever its name:
a field that is added to the class is stored from then on, and one that a record lacks keeps its default.

An array is its bytes sorted by their place in the number (all first bytes, then all second ones, ...): what a narrow
format leaves of a binary64 is mostly zeros, which then lie together and take next to no space when compressed.

>>> import json
>>> json.dumps(to_data({"L": 0.1, "gap": float("inf"), "kept": [True]}, encoded_text))
'{"L": 0.1, "gap": {"$float": "inf"}, "kept": [true]}'
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import math
import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from fpsim.scalars import ScalarExpression
from theory.window import Window

if TYPE_CHECKING:
    from fpsim.number_format import Format
    from fpsim.program import Program
    from fpsim.rounding import Rounding

Data: TypeAlias = Any  # None, bool, int, float, str, bytes, and lists and dicts of them
Slots: TypeAlias = "Mapping[str, tuple[Format, Rounding]]"

VERSION = 1
LEVEL = 6  # of zlib
_REBUILT = ("program", "slots")
_KINDS = {"f8": np.float64, "b1": np.bool_, "i8": np.int64}
_MOST_BYTES = 1 << 30  # of an unpacked record: a damaged one must not fill the memory


class RecordError(ValueError):
    """Data that are no record of a window, or one of another run; one line that says why."""


def pack(window: Window) -> bytes:
    """A window as bytes: the data of ``as_data``, MessagePack, compressed."""
    return zlib.compress(msgspec.msgpack.encode(as_data(window, encoded_bytes)), LEVEL)


def unpack(packed: bytes, program: Program, slots: Slots) -> Window:
    """The window of ``pack``.

    Raises
    ------
    RecordError
        The bytes are no record, or the record of another program or other slots.
    """
    try:
        data = msgspec.msgpack.decode(_inflated(packed))
    except (zlib.error, msgspec.DecodeError, ValueError) as error:
        raise RecordError(f"the record of the window is damaged ({error})") from error
    return from_data(data, program, slots)


def as_json(window: Window) -> dict[str, Data]:
    """A window as data that JSON holds: numbers as they are, arrays as base64 of compressed bytes."""
    return as_data(window, encoded_text)


def as_data(window: Window, array: Callable[[bytes], Data]) -> dict[str, Data]:
    """A window as plain data; ``array`` says what becomes of the bytes of an array."""
    names = [f.name for f in dataclasses.fields(window) if f.name not in _REBUILT]
    fields = {name: to_data(getattr(window, name), array) for name in names}
    return {"record": VERSION, "fingerprint": fingerprint(window.program, window.slots), "window": fields}


def from_data(data: Data, program: Program, slots: Slots) -> Window:
    """The window of ``as_data``, with its program and slots made again by whoever calls.

    Raises
    ------
    RecordError
        The data are no record, or the record of another program or other slots.
    """
    if not isinstance(data, dict) or not isinstance(data.get("window"), dict):
        raise RecordError("the data are no record of a window")
    if data.get("record") != VERSION:
        raise RecordError(f"record of version {data.get('record')}; this version reads {VERSION}")
    if data.get("fingerprint") != fingerprint(program, slots):
        raise RecordError("the record is that of another program or of other formats")
    known = {f.name: f for f in dataclasses.fields(Window) if f.name not in _REBUILT}
    unknown = sorted(set(data["window"]) - set(known))
    no_default = (dataclasses.MISSING, dataclasses.MISSING)
    needed = {name for name, f in known.items() if (f.default, f.default_factory) == no_default}
    missing = sorted(needed - set(data["window"]))
    if unknown or missing:
        raise RecordError(f"fields {', '.join((*unknown, *missing))} are unknown or missing")
    try:
        fields = {name: _read(value, program) for name, value in data["window"].items()}
    except (TypeError, KeyError, AttributeError, zlib.error, binascii.Error, ValueError) as error:
        raise RecordError(f"the record of the window is damaged ({type(error).__name__}: {error})") from error
    return Window(program=program, slots=slots, **fields)


def to_data(value: Any, array: Callable[[bytes], Data]) -> Data:
    """One value as plain data. What JSON lacks is a dict with one key that begins with a dollar sign."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.ndarray):
        kind = next((name for name, dtype in _KINDS.items() if value.dtype == dtype), None)
        if kind is None:
            raise TypeError(f"an array of {value.dtype}; admissible: float64, bool, int64")
        flat = np.ascontiguousarray(value).reshape(-1)
        sorted_bytes = flat.view(np.uint8).reshape(flat.size, flat.itemsize).T.tobytes()
        return {"$array": [kind, list(value.shape), array(sorted_bytes)]}
    if isinstance(value, np.generic):
        return to_data(value.item(), array)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, Mapping):
        return {str(name): to_data(item, array) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_data(item, array) for item in value]
    if isinstance(value, (ScalarExpression, Fraction)):
        return {"$declared": str(value)}  # a hyperparameter that is no float: the program has it
    raise TypeError(f"{type(value).__name__} is no part of a window: {value!r}")


def encoded_bytes(data: bytes) -> bytes:
    return data


def encoded_text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, LEVEL)).decode()


def fingerprint(program: Program, slots: Slots) -> str:
    """32 hex digits of what is computed, from which declared values, and how every slot is rounded."""
    formats = {
        name: [{f.name: str(getattr(fmt, f.name)) for f in dataclasses.fields(fmt)}, str(mode)]
        for name, (fmt, mode) in slots.items()
    }
    what = [
        [program.inputs, program.outputs, program.shared, sorted((n, str(s)) for n, s in program.shapes.items())],
        [[scalar.name, str(scalar.expression)] for scalar in program.scalars],
        [[o.kind, o.slot, o.operands, str(o.attributes)] for o in program.operations],
        sorted((name, _declared(value)) for name, value in program.hyperparameters.items()),
        sorted(formats.items()),
    ]
    return hashlib.blake2b(msgspec.json.encode(what), digest_size=16).hexdigest()


def _declared(value: Any) -> str:
    return value.hex() if isinstance(value, float) else str(value)


def _read(value: Data, program: Program, name: str = "") -> Any:
    if isinstance(value, list):
        return tuple(_read(item, program) for item in value)
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        kind, shape, stored = value["$array"]
        data = stored if isinstance(stored, bytes) else _inflated(base64.b64decode(stored, validate=True))
        dtype = np.dtype(_KINDS[kind])
        flat = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1).T
        return np.ascontiguousarray(flat).view(dtype).reshape(shape)
    if "$float" in value:
        return float(value["$float"])
    if "$declared" in value:
        declared = program.hyperparameters[name]
        if str(declared) != value["$declared"]:
            raise ValueError(f"{name} is declared as {declared}")
        return declared
    return {key: _read(item, program, key) for key, item in value.items()}


def _inflated(packed: bytes) -> bytes:
    """The bytes before compression, all of them and nothing behind."""
    inflate = zlib.decompressobj()
    data = inflate.decompress(packed, _MOST_BYTES)
    if not inflate.eof or inflate.unused_data:
        raise ValueError("it is cut short, too large, or something follows it")
    return data
