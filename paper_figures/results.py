"""Stored data of figures: a JSON file each, which says what it was computed from and notices damage."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.cell import code_version
from experiments.whole_files import write_whole
from paper_figures.figure import Report, Source

FOLDER = "data"


class ResultsError(ValueError):
    """A results file that is damaged or not that of the figure."""


class MissingResults(LookupError):
    """Data that would have to be computed, where that was not allowed."""


def path_of(figure: Source, profile: str, out: Path) -> Path:
    return out / FOLDER / f"{figure.name}_{profile}.json"


def results_of(figure: Source, profile: str, out: Path, run: bool, report: Report) -> dict[str, Any]:
    """The figure's results: stored ones if the same code computed them from the same parameters, else computed now.

    Returns
    -------
    dict : ``data``; and where they come from: ``parameters``, ``study`` (a digest of name, profile and parameters),
        ``seed`` (the root of all random numbers), ``code`` and ``versions`` that computed them, ``sha256`` of the data

    Raises
    ------
    ResultsError
        A stored file is damaged or belongs to another figure.
    MissingResults
        There are none, or those of other parameters or other code, and ``run`` is false.
    """
    path = path_of(figure, profile, out)
    parameters = json.loads(json.dumps(dict(figure.parameters[profile])))
    if path.exists():
        found = _read(path, figure)
        if found["parameters"] == parameters and found.get("code") == code_version():
            return found
    if not run:
        raise MissingResults(f"{figure.name}: no results of profile {profile} in {str(path.parent)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content_of(figure, profile, figure.compute(parameters, path.parent / figure.name, report))
    write_whole(path, json.dumps(content, indent=1).encode() + b"\n")
    return content


def content_of(figure: Source, profile: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """What a results file holds."""
    parameters = dict(figure.parameters[profile])
    study = {"figure": figure.name, "profile": profile, "parameters": parameters}
    content = study | {
        "study": digest(study), "seed": parameters.get("seed", 0), "code": code_version(),
        "versions": _versions(), "sha256": digest(data), "data": data,
    }  # fmt: skip
    return dict(json.loads(json.dumps(content)))


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("numpy", "numba", "matplotlib")} | {"python": platform.python_version()}


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
