"""Rows of studies for figures: run what is missing, keep what is finished, and take the columns that a figure draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper_figures.figure import Report

FLOOR = ("rms_gradient", "rms_gradient_low", "rms_gradient_high", "stationary", "outcome")


def rows(
    studies: Mapping[str, Mapping[str, Any]], folder: Path, report: Report, columns: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of some studies, one after the other, each kept in ``folder/NAME``.

    Parameters
    ----------
    studies : name -> keys of ``experiments.Study``
    folder : what is finished in it is not run again
    columns : of ``experiments.schema.SCHEMA``; a value that is not finite becomes None

    Raises
    ------
    RuntimeError
        A cell failed.
    """
    from experiments import Study

    found = []
    for done, (name, keys) in enumerate(studies.items(), start=1):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for row in Study(**keys).run(out=folder / name).to_dicts():
            if row["outcome"] == "failed":
                raise RuntimeError(f"study {name}: a cell failed: {row['reason']}")
            found.append({column: _finite(row[column]) for column in columns})
        report(done / len(studies))
    return found


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
