"""The results of a study as ``fpsim verify`` reads them: which cells there are, and the window of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from experiments import drivers, networks, store
from experiments.cell import Cell, code_version
from experiments.registry import bound, check_same, problem_of
from experiments.trajectory import precision_of, program_of
from experiments.whole_files import StoreError
from fpsim.number_format import Format
from fpsim.program import Program
from fpsim.rounding import Rounding


class ResultsError(ValueError):
    """Results that cannot be verified; one line that says why and what to do."""


@dataclass(frozen=True)
class Results:
    """The cells of a study that are there.

    Attributes
    ----------
    folder : what ``--out`` of the scan was
    study : its settings
    keys : finished cells, in the order of the study
    planned : all cells that the study consists of
    damaged : a line for each file that cannot be trusted
    """

    folder: Path
    study: dict[str, Any]
    keys: list[str]
    planned: list[str]
    damaged: list[str]


def started(folder: Path) -> bool:
    """Whether a study was started in a folder."""
    return (folder / "study.json").exists() or (folder / store.MERGED).exists()


def open_results(folder: Path) -> Results:
    """What a folder holds of the study that was started there last.

    Raises
    ------
    ResultsError
        There are no results, or another version of the code made them.
    """
    try:
        study, keys = _plan(folder)
        kept = store.look(folder, keys)
    except ResultsError:
        raise
    except (StoreError, pl.exceptions.PolarsError, OSError, KeyError, ValueError) as error:
        raise ResultsError(f"{folder} cannot be read ({str(error).splitlines()[0]})") from error
    finished = [key for key in keys if key in kept.finished]
    if not finished:
        raise ResultsError(
            f"no cell of the study in {folder} is finished; the fpsim scan command that began it resumes"
        )
    code = store.read_record(folder, finished[0])[0]["versions"]["code"]
    if code != code_version():
        raise ResultsError(
            f"the results in {folder} were made by another version of the code ({code}; this is {code_version()}), "
            "which alone can read their records; run the same fpsim scan command again, and then this one"
        )
    return Results(folder, study, finished, keys, kept.damaged)


def _plan(folder: Path) -> tuple[dict[str, Any], list[str]]:
    plan = drivers.read_plan(folder)
    if plan is not None:
        return plan.study, plan.keys
    merged = folder / store.MERGED  # a study that was run from Python
    if not merged.is_file():
        raise ResultsError(f"there are no results in {folder}; name what --out of a fpsim scan was")
    return dict(store.read_facts(merged)["study"]), pl.read_parquet(merged, columns=["key"])["key"].to_list()


def read_cell(folder: Path, key: str) -> tuple[Cell, bytes]:
    """The configuration of a cell and the record of its window, which a cell of a network has not.

    Raises
    ------
    StoreError, ResultsError
        The file is damaged, or a version without records made it.
    """
    facts, record = store.read_record(folder, key)
    cell = msgspec.convert(facts["cell"], Cell)
    if record is None and cell.problem not in networks.PROBLEMS:
        raise ResultsError(f"cell {key} in {folder} has no record; run the same fpsim scan command again")
    return cell, record or b""


def rebuilt(cell: Cell) -> tuple[Program, dict[str, tuple[Format, Rounding]]]:
    """The program that a cell ran and the format and rounding of every slot.

    Raises
    ------
    ValueError, RuntimeError
        What the cell names is not here, or something else.
    """
    if cell.problem in networks.PROBLEMS:
        raise ValueError("it trains a network, about which there are no theorems")
    check_same(cell)
    program = bound(program_of(cell, problem_of(cell)), cell)
    return program, dict(precision_of(cell, program).resolve(program))
