"""Stored data of figures: a JSON file each, which says what it was computed from and notices damage."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.cell import package_version
from experiments.whole_files import write_whole
from paper_figures.figure import Report, Source

FOLDER = "data"


class ResultsError(ValueError):
    """A results file that is damaged or not that of the figure."""


class MissingResults(LookupError):
    """Data that would have to be computed, where that was not allowed."""


def path_of(figure: Source, profile: str, out: Path) -> Path:
    return out / FOLDER / f"{figure.name}_{profile}.json"


def data_of(figure: Source, profile: str, out: Path, run: bool, report: Report) -> dict[str, Any]:
    """The figure's data: stored ones if they were computed from the same parameters, else computed and stored.

    Raises
    ------
    ResultsError
        A stored file is damaged or belongs to another figure.
    MissingResults
        There is none, or one of other parameters, and ``run`` is false.
    """
    path = path_of(figure, profile, out)
    parameters = json.loads(json.dumps(dict(figure.parameters[profile])))
    if path.exists():
        found = _read(path, figure)
        if found["parameters"] == parameters:
            return dict(found["data"])
    if not run:
        raise MissingResults(f"{figure.name}: no results of profile {profile} in {str(path.parent)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = figure.compute(parameters, path.parent / figure.name, report)
    content = {"figure": figure.name, "profile": profile, "parameters": parameters, "data": data}
    content |= {"version": package_version(), "sha256": digest(data)}
    write_whole(path, json.dumps(content, indent=1).encode() + b"\n")
    return dict(json.loads(json.dumps(data)))


def digest(data: Any) -> str:
    """SHA-256 of data as JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _read(path: Path, figure: Source) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ResultsError(f"{str(path)!r} is damaged: {error}; remove it, and it is computed anew") from error
    if not isinstance(found, dict) or not {"figure", "parameters", "data", "sha256"} <= found.keys():
        raise ResultsError(f"{str(path)!r} is no results file of a figure")
    if found["figure"] != figure.name:
        raise ResultsError(f"{str(path)!r} holds results of {found['figure']!r}, not of {figure.name!r}")
    if digest(found["data"]) != found["sha256"]:
        raise ResultsError(f"{str(path)!r} is damaged: its data have another digest than it says")
    return found
