"""The results of a study as a report reads them: of a study file, or of a folder of ``fpsim scan``."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from experiments import drivers, store
from experiments.cell import CELL_COLUMNS, COMMON_HYPERPARAMETERS, Cell
from experiments.fields import StudyError
from experiments.study import Study, load
from experiments.whole_files import StoreError, facts_of

Row = Mapping[str, Any]


class ResultsError(ValueError):
    """A study or results that cannot be read; one line that says why and what to do."""


class NoResults(ResultsError):
    """There is a study, or may be one, and nothing of it is finished."""


@dataclass(frozen=True)
class Results:
    """What is there of a study.

    Attributes
    ----------
    name : of the study's file or of the folder
    text : the study's file as it is, or its settings as JSON
    settings : of the study, all of them
    folder : where the results are
    planned : number of cells that the study consists of
    rows : one for each cell that is there, in the order of the study
    versions : what made them: package, machine or interpreter -> every value met
    made : first and last day on which files of results were written, UTC, ``YYYY-MM-DD``
    damaged : a line for each file that cannot be trusted
    kept : keys of finished cells whose own file is there, with the record that theorems read
    """

    name: str
    text: str
    settings: dict[str, Any]
    folder: Path
    planned: int
    rows: list[Row]
    versions: dict[str, list[str]]
    made: tuple[str, str]
    damaged: list[str]
    kept: list[str]

    @property
    def cells(self) -> list[Cell]:
        return [cell_of(row) for row in self.rows]

    @property
    def study_hash(self) -> str:
        """SHA-256 of the settings: the same for the same study, however it was written."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def data_hash(self) -> str:
        """SHA-256 of what the rows say, but for the time they took."""
        timeless = [{name: value for name, value in row.items() if name != "seconds"} for row in self.rows]
        return hashlib.sha256(json.dumps(timeless, sort_keys=True).encode()).hexdigest()


def open_results(target: Path, results: Path, done: Callable[[int], None] = lambda cells: None) -> Results:
    """The results of a study file, which are in the folder ``results``, or of a folder.

    Parameters
    ----------
    done : called with the number of cells before the first is read, then with 1 after each

    Raises
    ------
    NoResults
        No cell is finished.
    ResultsError
        Study or results cannot be read.
    """
    if target.is_dir():
        study, keys = _plan(target)
        text = json.dumps(study, indent=1)
        return _read(target.resolve().name, text, study, target, keys, done)
    study_of_file = _study(target)
    settings = json.loads(json.dumps(msgspec.to_builtins(study_of_file)))
    try:
        planned = drivers.read_plan(results)
    except StoreError as error:
        raise ResultsError(str(error)) from error
    same = planned is not None and planned.study == settings  # then also what another version of the code made
    keys = planned.keys if planned is not None and same else [cell.key for cell in _cells(target, study_of_file)]
    return _read(target.stem, target.read_text(encoding="utf-8"), settings, results, keys, done)


def study_cells(file: Path) -> list[Cell]:
    """The cells of a study file.

    Raises
    ------
    ResultsError
        It cannot be read, or is no study.
    """
    return _cells(file, _study(file))


def cell_of(row: Row) -> Cell:
    """The configuration that a row is about."""
    nested = ("options", "overrides", "hyperparameters")
    plain = {
        name: json.loads(row[name]) if name in nested else row[name]
        for name in CELL_COLUMNS
        if name not in COMMON_HYPERPARAMETERS
    }
    return msgspec.convert(plain, Cell)


def _study(file: Path) -> Study:
    try:
        return Study.build(load(file))
    except StudyError as error:
        where = "" if error.key == "study" else f"{file}: {error.key}: "
        raise ResultsError(f"{where}{error.message}") from error


def _cells(file: Path, study: Study) -> list[Cell]:
    try:
        return study.cells()
    except (StudyError, ValueError) as error:
        raise ResultsError(f"{file}: {' '.join(str(error).split())}") from error


def _plan(folder: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        plan = drivers.read_plan(folder)
        if plan is not None:
            return plan.study, plan.keys
        merged = folder / store.MERGED  # a study that was run from Python
        if not merged.is_file():
            raise NoResults(f"there are no results in {folder}; name what --out of fpsim scan was")
        facts = facts_of(merged.read_bytes())
        return dict(facts["study"]), pl.read_parquet(merged, columns=["key"])["key"].to_list()
    except (StoreError, OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"{folder} cannot be read ({str(error).splitlines()[0]})") from error


def _read(
    name: str, text: str, settings: dict[str, Any], folder: Path, keys: Sequence[str], done: Callable[[int], None]
) -> Results:
    there, kept, damaged, facts, times = [], [], [], [], []
    done(len(keys))
    for key in keys:
        look = store.look(folder, [key])
        damaged += look.damaged
        if look.finished or look.failed:
            path = store.cell_path(folder, key)
            there.append(key)
            kept += look.finished
            facts.append(store.read_facts(path)["versions"])
            times.append(path.stat().st_mtime)
        done(1)
    try:
        rows: list[Row] = [*store.read_cells(folder, there).to_dicts()]
        merged = folder / store.MERGED
        if not rows and merged.is_file():  # its cells were left behind
            content = facts_of(merged.read_bytes())
            if content["study"] == settings:
                rows = [*store.read_rows(merged)]
                facts, times = [content["versions"]], [merged.stat().st_mtime]
    except (StoreError, OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise ResultsError(f"{folder} cannot be read ({str(error).splitlines()[0]})") from error
    if not rows:
        raise NoResults(
            f"no cell of {name} is finished in {folder}"
            + (f" ({len(damaged)} files are damaged)" if damaged else "")
            + "; fpsim scan makes them"
        )
    versions = {x: list(dict.fromkeys(str(fact.get(x, "unknown")) for fact in facts)) for x in facts[0]}
    days = sorted(dt.datetime.fromtimestamp(x, dt.UTC).strftime("%Y-%m-%d") for x in times)
    return Results(name, text, settings, folder, len(keys), rows, versions, (days[0], days[-1]), damaged, kept)
