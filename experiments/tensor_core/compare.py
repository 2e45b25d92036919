"""A card's products beside the model's, bit for bit. What a card is, is given: a function of a row and two matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import fpsim
from experiments.tensor_core.cases import KINDS, cases
from experiments.tensor_core.rows import ROWS, Row

Array = npt.NDArray[np.float64]
Card = Callable[[Row, Array, Array], Array]

READINGS = ("exponent", "dropped")
SHOWN = 3


def model(row: Row, a: Array, b: Array, zero_c: str = "exponent") -> Array:
    """What the model says of A B, as float64."""
    return np.asarray(fpsim.matmul(a, b, row.model(zero_c), dtype="float64"))


def compared(
    card: Card, rows: Sequence[Row] = ROWS, kinds: Sequence[str] = KINDS, seed: int = 0
) -> list[dict[str, Any]]:
    """One record for each row and kind: how many results differ from each reading of the model, and the first ones.

    Keys: row, kind, results; differ: {reading: number}; examples: of the reading that differs less. A row that the card
    cannot compute has ``error`` instead.
    """
    records = []
    for row in rows:
        for kind in kinds:
            a, b = cases(row, kind, seed)
            record: dict[str, Any] = {"row": row.name, "kind": kind, "results": a.shape[0] * b.shape[1]}
            try:
                theirs = card(row, a, b)
            except (RuntimeError, ValueError, TypeError) as error:
                records.append(record | {"error": str(error).splitlines()[0]})
                continue
            ours = {reading: model(row, a, b, reading) for reading in READINGS}
            wrong = {reading: np.argwhere(_bits(theirs) != _bits(y)) for reading, y in ours.items()}
            best = min(READINGS, key=lambda reading: len(wrong[reading]))
            record["differ"] = {reading: len(places) for reading, places in wrong.items()}
            record["examples"] = [
                {
                    "a": [float(x).hex() for x in a[i]],
                    "b": [float(x).hex() for x in b[:, j]],
                    "card": float(theirs[i, j]).hex(),
                    **{reading: float(y[i, j]).hex() for reading, y in ours.items()},
                }
                for i, j in wrong[best][:SHOWN]
            ]
            records.append(record)
    return records


def settled(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """For each row the readings of the model that all results agree with, chained kinds left out."""
    found = {}
    for name in dict.fromkeys(record["row"] for record in records):
        own = [r for r in records if r["row"] == name and not r["kind"].startswith("chained")]
        if any("error" in r for r in own):
            found[name] = "not computed"
            continue
        fit = [reading for reading in READINGS if all(r["differ"][reading] == 0 for r in own)]
        found[name] = f"agrees with zero_c={' and '.join(fit)}" if fit else "differs from both readings"
    return found


def lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """What is printed: a line for each record, the first differing results with operands, and the readings that fit."""
    text = []
    for record in records:
        head = f"{record['row']:<45} {record['kind']:<12}"
        if "error" in record:
            text.append(f"{head} not computed: {record['error']}")
            continue
        differ = ", ".join(f"{n} differ from zero_c={reading}" for reading, n in record["differ"].items())
        text.append(f"{head} {record['results']} results: {differ}")
        for example in record["examples"]:
            text += [f"    a = [{', '.join(example['a'])}]", f"    b = [{', '.join(example['b'])}]"]
            text.append("    " + ", ".join(f"{who} {example[who]}" for who in ("card", *READINGS)))
    return text + [f"{name}: {what}" for name, what in settled(records).items()]


def _bits(x: Array) -> npt.NDArray[np.uint64]:
    """Bit patterns, one for every NaN."""
    return np.where(np.isnan(x), np.nan, x).view(np.uint64)
