"""A certificate checked again, without the runs: windows decoded, every theorem evaluated anew, everything compared.

Where the same versions of all packages on the same machine made the certificate, every text and every number must be
the same to the last bit. Elsewhere the order in which a library adds may differ, and with it the last bits: numbers
must then agree to one part in 10^9, and verdicts, which are reached anew, all the same.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from experiments import store
from experiments.cell import Cell, code_version
from experiments.fields import one_line
from experiments.verify.certificate import described, digest_of
from experiments.verify.evaluate import entries
from experiments.verify.results import rebuilt
from theory.record import from_data
from theory.theorem import Theorem
from theory.theorems import theorems
from theory.window import Window

TOLERANCE = 1e-9
MOST_FAULTS = 5  # that are told of one entry
_NUMBER = re.compile(r"([-+]?(?:0x[0-9a-f.]+p[-+]\d+|\d+\.?\d*(?:e[-+]?\d+)?|inf|nan))")

Line = Mapping[str, Any]


def same_versions(certificate: Mapping[str, Any]) -> bool:
    """Whether what made a certificate is what runs here, so that every bit must be the same."""
    return dict(certificate["versions"]) == store.versions()


def head_faults(certificate: Mapping[str, Any]) -> list[str]:
    """What is wrong with a certificate apart from its cells: theorems, their derivations, the list of cells."""
    faults = []
    for identifier, said in certificate["theorems"].items():
        known = theorems().get(identifier)
        if known is None:
            faults.append(f"{identifier}: this version has no such theorem")
            continue
        stated = {name: value for name, value in said.items() if name != "hypotheses"}  # checked on a window
        faults += [f"{identifier}: {fault}" for fault in differences("", stated, described(known), exact=True)]
    if certificate.get("selection") is None and certificate["versions"].get("code") == code_version():
        faults += [f"{name}: left out of the certificate" for name in theorems() if name not in certificate["theorems"]]
    there = Counter(line["key"] for line in certificate["cells"])
    expected = dict.fromkeys(certificate["keys"])
    for key in certificate["absent"]:
        expected.pop(key, None)
    faults += [f"cell {key}: left out of the certificate" for key in expected if key not in there]
    strange = (key for key, count in there.items() if count > 1 or key not in expected)
    return faults + [f"cell {key}: twice, or no cell of the study" for key in strange]


def known_theorems(certificate: Mapping[str, Any]) -> list[Theorem]:
    return [theorems()[name] for name in certificate["theorems"] if name in theorems()]


def line_faults(
    line: Line, proven: Sequence[Theorem], code: str, exact: bool
) -> tuple[list[str], Cell | None, list[Any]]:
    """What is wrong with a cell of a certificate; its configuration and its entries, evaluated anew."""
    name = f"cell {line.get('key')}"
    try:
        cell = msgspec.convert(line.get("cell"), Cell)
    except msgspec.ValidationError as error:
        return [f"{name}: no configuration of a cell ({error})"], None, []
    name = f"{cell.optimizer} {cell.problem} {cell.rounding} e{cell.exponent_bits}m{cell.mantissa_bits} ({name})"
    faults = []
    if line.get("key") != cell.key_under(code):
        faults.append(f"{name}: the configuration is not the one that the key names")
    if line.get("record_digest") != digest_of(line.get("record")):
        faults.append(f"{name}: the record of the window is not the one that was written")
    try:
        again = entries(proven, window_of(line))
    except Exception as error:  # whatever a record that somebody changed leads to
        reason = one_line(error)
        return [*faults, f"{name}: the record of the window cannot be read ({reason[:300]})"], cell, []
    said = {entry["theorem"]: entry for entry in line["results"]}
    for entry in again:
        identifier = entry["theorem"]
        if identifier not in said:
            faults.append(f"{name} {identifier}: left out of the certificate")
            continue
        found = [*differences("", said.pop(identifier), entry, exact)][:MOST_FAULTS]
        faults += [f"{name} {identifier}: {fault}" for fault in found]
    faults += [f"{name} {identifier}: no theorem of the certificate" for identifier in said]
    if len(line["results"]) > len(again) + len(said):
        faults.append(f"{name}: a theorem stands there twice")
    return faults, cell, again


def window_of(line: Line) -> Window:
    """The window of a cell of a certificate.

    Raises
    ------
    ValueError, RuntimeError
        The record is damaged, or what the cell names is not here.
    """
    return from_data(line.get("record"), *rebuilt(msgspec.convert(line.get("cell"), Cell)))


def differences(path: str, said: Any, found: Any, exact: bool) -> Iterator[str]:
    """Where two pieces of a certificate differ, such as ``bound.upper is 0x1p+0, evaluated again it is 0x1p+1``."""
    if isinstance(found, Mapping) and isinstance(said, Mapping):
        for key in dict.fromkeys((*found, *said)):
            where = f"{path}.{key}" if path else str(key)
            if key not in said or key not in found:
                yield f"{where} is {'missing' if key not in said else 'unknown'}"
            else:
                yield from differences(where, said[key], found[key], exact)
    elif isinstance(found, list) and isinstance(said, list) and len(found) == len(said):
        for number, (a, b) in enumerate(zip(said, found, strict=True)):
            label = f" ({b['name']})" if isinstance(b, Mapping) and "name" in b else ""
            yield from differences(f"{path}[{number}]{label}", a, b, exact)
    elif not (_same(said, found) or (not exact and alike(said, found))):
        yield f"{path} is {_told(said)}, evaluated again it is {_told(found)}"


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def alike(a: Any, b: Any) -> bool:
    """Whether two texts are the same but for numbers that agree to one part in 10^9.

    >>> alike("rho = 0.1000000000001", "rho = 0.1"), alike("rho = 0.11", "rho = 0.1"), alike("0x1.8p+1", "0x1p+1")
    (True, False, False)
    """
    if not isinstance(a, str) or not isinstance(b, str):
        return _same(a, b)
    first, second = _NUMBER.split(a), _NUMBER.split(b)
    if len(first) != len(second) or first[::2] != second[::2]:
        return False
    return all(_near(x, y) for x, y in zip(first[1::2], second[1::2], strict=True))


def _near(a: str, b: str) -> bool:
    x, y = (float.fromhex(text) if "0x" in text else float(text) for text in (a, b))
    return a == b or math.isclose(x, y, rel_tol=TOLERANCE)


def _told(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if 0 < len(text) <= 60 else f"{text[:57]}..." if text else "empty"
