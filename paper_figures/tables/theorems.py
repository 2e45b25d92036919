"""Every theorem: what it bounds, how sharp it is, whom it is about, and how many checked steps prove it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper_figures.figure import Data, Report
from paper_figures.table import Column, PaperTable, Row

TIGHTNESS = {"law": "law", "exact": "exact", "sharp": "sharp", "upper": "upper"}


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    from theory.theorems import theorems

    found = []
    for theorem in theorems().values():
        steps = sum(len(derivation.steps) for derivation in theorem.derivations)
        found.append({
            "identifier": theorem.identifier, "title": theorem.title, "quantity": theorem.quantity,
            "tightness": theorem.tightness, "optimizers": list(theorem.optimizers), "floor": theorem.floor,
            "comparison": theorem.comparison, "steps": steps,
        })  # fmt: skip
    report(1.0)
    return {"theorems": found}


def columns(data: Data) -> Sequence[Column]:
    return (Column("", "l"), Column("theorem", "l", 0.53), Column("about", "l", 0.17), Column("kind"),
            Column("floor"), Column("steps", "r"))  # fmt: skip


def groups(data: Data) -> Sequence[Sequence[Row]]:
    return [
        [_row(theorem) for theorem in data["theorems"] if theorem["comparison"] == comparison]
        for comparison in (False, True)
    ]


def _row(theorem: Mapping[str, Any]) -> Row:
    floor = "yes" if theorem["floor"] else None
    steps = theorem["steps"] or None
    about = ", ".join(theorem["optimizers"])
    return theorem["identifier"], theorem["title"], about, TIGHTNESS[theorem["tightness"]], floor, steps


def _ours(data: Data) -> list[Mapping[str, Any]]:
    return [theorem for theorem in data["theorems"] if not theorem["comparison"]]


def caption(data: Data) -> str:
    ours = _ours(data)
    counts = {kind: sum(theorem["tightness"] == kind for theorem in ours) for kind in TIGHTNESS}
    return (
        f"The {len(ours)} theorems and, below the rule, {len(data['theorems']) - len(ours)} bounds of the literature "
        f"for comparison. Kind: a law bounds from both sides ({counts['law']}), exact means equality "
        f"({counts['exact']}), sharp means attained up to a small factor ({counts['sharp']}), upper a bound from above "
        f"alone ({counts['upper']}). Floor: it bounds the gradient norm where a run settles "
        f"({sum(theorem['floor'] for theorem in ours)}). Steps: of its derivations, lemmas that it "
        "shares with others included, each checked by machine."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    names = [theorem["identifier"] for theorem in data["theorems"]]
    return [
        ("every theorem of ours has a derivation", all(theorem["steps"] > 0 for theorem in _ours(data))),
        ("names are unique", len(set(names)) == len(names)),
        ("every kind is known", all(theorem["tightness"] in TIGHTNESS for theorem in data["theorems"])),
    ]


PARAMETERS: dict[str, Any] = {}
TABLE = PaperTable(
    "table_theorems", "all theorems: what they are about, and how sharp", True,
    {"quick": PARAMETERS, "full": PARAMETERS}, compute, columns, groups, caption, claims, "the same", "scriptsize",
)  # fmt: skip
