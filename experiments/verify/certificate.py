"""Certificates: what was verified, in JSON that needs neither the results nor the run to be checked again.

An object with

    certificate   version of this layout
    made          date and time (UTC)
    versions      code, packages, interpreter and machine
    study         the settings of the study
    keys, absent  the cells that it consists of, and those of them that were not finished or not to be verified
    selection     the theorems that were asked for, or null: all of them
    theorems      identifier -> title, quantity, tightness, comparison, source, digest of the derivations, and for each
                  hypothesis whether it is known a priori or checked on the record of the run
    cells         one a line: key and configuration, the window's record (``theory.record``) with its digest, and
                  ``results``, an entry for each theorem (``experiments.verify.evaluate``)
    summary       identifier -> how many cells it holds for, is violated in, ...

A file whose name ends in ``.gz`` is compressed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from experiments import store
from experiments.cell import Cell
from experiments.verify.evaluate import entries
from experiments.verify.results import Results
from experiments.verify.summary import summarize
from experiments.whole_files import write_whole
from theory.digest import derivation_digest
from theory.record import as_json
from theory.theorem import Theorem
from theory.window import Window

if TYPE_CHECKING:
    from experiments.verify.run import Report

VERSION = 1


class CertificateError(ValueError):
    """A file that is no certificate; one line that says why."""


def described(theorem: Theorem) -> dict[str, Any]:
    """What a certificate says of a theorem."""
    return {
        "title": theorem.title,
        "quantity": theorem.quantity,
        "tightness": theorem.tightness,
        "comparison": theorem.comparison,
        "source": theorem.source,
        "derivations": derivation_digest(theorem),
    }


def line_of(cell: Cell, window: Window, theorems: Sequence[Theorem]) -> dict[str, Any]:
    """What a certificate says of a cell."""
    record = as_json(window)
    facts = {"key": cell.key, "cell": msgspec.to_builtins(cell), "record_digest": digest_of(record), "record": record}
    return facts | {"results": entries(theorems, window)}


def digest_of(record: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(record, order="deterministic"), digest_size=16).hexdigest()


def write(
    path: Path,
    results: Results,
    selection: Sequence[str] | None,
    report: Report,
) -> None:
    """Write the certificate of a verification, whole or not at all.

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    there = set(report.keys)
    head = {
        "certificate": VERSION,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": store.versions(),
        "study": results.study,
        "keys": results.planned,
        "absent": [key for key in results.planned if key not in there],
        "selection": selection,
        "theorems": {
            x.identifier: described(x) | {"hypotheses": report.origins[x.identifier]} for x in report.theorems
        },
        "summary": summarize(report.rows),
    }
    opened = json.dumps(head, indent=1).removesuffix("\n}").encode()
    data = opened + b',\n "cells": [\n' + b",\n".join(report.lines) + b"\n ]\n}\n"
    write_whole(path, gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)


def read(path: Path) -> dict[str, Any]:
    """The object that a certificate is.

    Raises
    ------
    CertificateError
        The file cannot be read or is no certificate of this layout.
    """
    try:
        data = path.read_bytes()
        found = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise CertificateError(f"{path} is no JSON ({str(error).splitlines()[0]})") from error
    shapes: dict[str, type] = dict.fromkeys(("versions", "study", "theorems", "summary"), dict)
    shapes |= dict.fromkeys(("keys", "absent", "cells"), list)
    if not isinstance(found, dict) or "certificate" not in found:
        raise CertificateError(f"{path} is no certificate of fpsim verify")
    if found["certificate"] != VERSION:
        raise CertificateError(
            f"{path} is a certificate of layout {found['certificate']}; this version reads {VERSION}"
        )
    wrong = [name for name, shape in shapes.items() if not isinstance(found.get(name), shape)]
    if "theorems" not in wrong and not all(isinstance(said, dict) for said in found["theorems"].values()):
        wrong.append("theorems")
    lines = [] if "cells" in wrong else found["cells"]
    if wrong or not all(_is_line(line) for line in lines):
        raise CertificateError(f"{path} is a damaged certificate ({', '.join(wrong) or 'cells'} cannot be understood)")
    return found


def _is_line(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("results"), list):
        return False
    if not isinstance(line.get("key"), str):
        return False
    return all(isinstance(entry, dict) and isinstance(entry.get("theorem"), str) for entry in line["results"])
