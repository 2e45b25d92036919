"""A verification from beginning to end, on all processors: what to evaluate or to check again, and what came of it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from experiments.cell import Cell
from experiments.pool import Run, Task, workers
from experiments.verify import check
from experiments.verify.certificate import line_of
from experiments.verify.results import read_cell, rebuilt
from experiments.verify.summary import Row, summarize
from theory.derivation import DerivationError
from theory.provenance import Origin, origins
from theory.record import unpack
from theory.theorem import Theorem
from theory.theorems import theorem, theorems

GROUP = 4  # cells that are sent to a process together


@dataclass
class Report:
    """What came of a verification.

    Attributes
    ----------
    theorems : those that were held against the cells
    rows : one for each cell and theorem, cell by cell in the order of the study
    keys : cells that ``rows`` are about, in the order of the study
    lines : these cells as a certificate has them; empty where one was checked
    unknown : a line for each cell whose program or problem is not to be had here
    origins : theorem -> hypothesis -> known a priori or checked on the record (``theory.provenance``)
    faults : what is wrong: derivations that do not check; of a certificate, everything that is not as it says
    """

    theorems: Sequence[Theorem]
    rows: list[Row] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    origins: dict[str, dict[str, Origin]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def verify(
    folder: Path, keys: Sequence[str], chosen: Sequence[Theorem], processes: int, done: Callable[[int], None]
) -> Report:
    """Hold theorems against cells of a folder; ``done`` is called with the number of cells or derivations finished."""
    names = [x.identifier for x in chosen]
    groups = [keys[i : i + GROUP] for i in range(0, len(keys), GROUP)]
    tasks = [("cells", number, folder, group, names) for number, group in enumerate(groups)]
    report = Report(chosen)
    with workers(processes) as run:
        for found in _in_order([*_derivation_tasks(chosen), *tasks], run, done, report):
            for key, line, rows in found:
                if not line:
                    report.unknown.append(key)
                    continue
                report.keys.append(key)
                report.lines.append(line)
                report.rows += rows
        told = [("origins", identifier, folder, key) for identifier, key in _telling(report)]
        run(told, _carry_out, lambda task, found: report.origins.update({task[1]: found}))
    return report


def check_again(certificate: Mapping[str, Any], processes: int, done: Callable[[int], None]) -> Report:
    """Check a certificate of ``experiments.verify.certificate`` without the results; ``done`` as in ``verify``."""
    chosen, lines = check.known_theorems(certificate), certificate["cells"]
    how = ([x.identifier for x in chosen], str(certificate["versions"].get("code")), check.same_versions(certificate))
    groups = [lines[i : i + GROUP] for i in range(0, len(lines), GROUP)]
    tasks = [("lines", number, msgspec.json.encode(group), *how) for number, group in enumerate(groups)]
    report = Report(chosen, faults=check.head_faults(certificate))
    with workers(processes) as run:
        for found in _in_order([*_derivation_tasks(chosen), *tasks], run, done, report):
            for key, faults, rows in found:
                report.faults += faults
                if rows:
                    report.keys.append(key)
                    report.rows += rows
        by_key = {line["key"]: line for line in lines}
        told = [("origins of line", x, msgspec.json.encode(by_key[key])) for x, key in _telling(report)]
        run(told, _carry_out, lambda task, found: report.origins.update({task[1]: found}))
    for identifier, found in report.origins.items():
        said = certificate["theorems"][identifier].get("hypotheses")
        report.faults += [f"{identifier}: {fault}" for fault in check.differences("hypotheses", said, found, True)]
    said = check.differences("summary", certificate["summary"], summarize(report.rows), how[-1])
    report.faults += [*said][: check.MOST_FAULTS]
    return report


def size(chosen: Sequence[Theorem], cells: int) -> int:
    """Cells and derivations: what ``done`` counts up to."""
    return cells + len(_derivation_tasks(chosen))


def _derivation_tasks(chosen: Sequence[Theorem]) -> list[Task]:
    """One for each derivation; lemmas that theorems share are checked once."""
    seen: dict[int, Task] = {}
    for x in chosen:
        for number, derivation in enumerate(x.derivations):
            seen.setdefault(id(derivation), ("derivation", x.identifier, number))
    return list(seen.values())


def _telling(report: Report) -> list[tuple[str, str]]:
    """For each theorem the first cell that it applies to, or else the first that most of its hypotheses speak of."""
    found = []
    for number, x in enumerate(report.theorems):
        rows = report.rows[number :: len(report.theorems)]
        if rows:
            best = max(range(len(rows)), key=lambda i: (rows[i]["status"] != "not applicable", rows[i]["reached"], -i))
            found.append((x.identifier, report.keys[best]))
    return found


def _in_order(tasks: Sequence[Task], run: Run, done: Callable[[int], None], report: Report) -> Iterator[Any]:
    """Carry out all tasks; give what came of those about cells, in order, and note derivations that do not check."""
    found: dict[int, Any] = {}

    def note(task: Task, result: Any) -> None:
        if task[0] == "derivation":
            report.faults += [result] * bool(result)
            done(1)
        else:
            found[task[1]] = result
            done(len(result))

    run(tasks, _carry_out, note)
    yield from (found[number] for number in sorted(found))


def _carry_out(kind: str, *task: Any) -> Any:
    kinds = {"derivation": _derivation, "cells": _cells, "lines": _lines}
    return (kinds | {"origins": _origins, "origins of line": _origins_of_line})[kind](*task)


def _origins(identifier: str, folder: Path, key: str) -> dict[str, Origin]:
    cell, record = read_cell(folder, key)
    return origins(theorem(identifier), unpack(record, *rebuilt(cell)))


def _origins_of_line(identifier: str, data: bytes) -> dict[str, Origin]:
    return origins(theorem(identifier), check.window_of(msgspec.json.decode(data)))


def _derivation(identifier: str, number: int) -> str:
    """The fault of a derivation; "" if every step is justified."""
    try:
        theorems()[identifier].derivations[number].check()
    except DerivationError as error:
        return f"{identifier}: a derivation does not check: {error}"
    return ""


def _cells(_: int, folder: Path, keys: Sequence[str], names: Sequence[str]) -> list[tuple[str, bytes, list[Row]]]:
    """Key, line of the certificate and rows of each cell; without a line, key and why it cannot be verified here."""
    found: list[tuple[str, bytes, list[Row]]] = []
    for key in keys:
        cell, record = read_cell(folder, key)
        try:
            program, slots = rebuilt(cell)
        except (ValueError, RuntimeError) as error:  # a program that a study in Python brought itself, say
            found.append((" ".join(f"{cell.optimizer} {cell.problem} ({key}): {error}".split()), b"", []))
            continue
        line = line_of(cell, unpack(record, program, slots), [theorem(name) for name in names])
        found.append((key, msgspec.json.encode(line), _rows(cell, line["results"])))
    return found


def _lines(_: int, data: bytes, names: Sequence[str], code: str, exact: bool) -> list[tuple[str, list[str], list[Row]]]:
    """Key, faults and rows of each line of a certificate; no rows where its window cannot be read."""
    found = []
    for line in msgspec.json.decode(data):
        faults, cell, again = check.line_faults(line, [theorem(name) for name in names], code, exact)
        found.append((str(line.get("key")), faults, [] if cell is None else _rows(cell, again)))
    return found


def _rows(cell: Cell, results: Sequence[Mapping[str, Any]]) -> list[Row]:
    columns = cell.columns()  # one for all theorems
    told = ({name: x[name] for name in ("theorem", "status", "reason", "seeds_needed")} for x in results)
    numbers = ({"ratio": float.fromhex(x["ratio"]), "reached": len(x["hypotheses"])} for x in results)
    return [ChainMap(row | number, columns) for row, number in zip(told, numbers, strict=True)]
