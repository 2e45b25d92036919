"""One theorem on one window, as an entry of a certificate: every number exact, everything that a verdict rests on.

Floats are hexadecimal texts (``float.hex``), so that reading them back in any language gives the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from theory.theorem import Bound, Theorem
from theory.verdict import verdict
from theory.window import Window

Entry = dict[str, Any]

ERROR = "error"  # a theorem that raised: it should have said which hypothesis fails
FAILING = ("violated", "missed", ERROR)  # statuses that no verification passes with


def entry_of(theorem: Theorem, window: Window) -> Entry:
    """What a theorem says of a window, and what was measured.

    ``bound`` and ``measured`` are null where the theorem does not apply; ``hypotheses`` tell in every case.
    """
    entry: Entry = {"theorem": theorem.identifier, "status": ERROR, "reason": "", "seeds_needed": None, "ratio": "nan"}
    entry |= {"hypotheses": [], "bound": None, "measured": None}
    try:
        bound = theorem.evaluate(window)
        entry["hypotheses"] = [{"name": h.name, "holds": bool(h.ok), "measured": h.detail} for h in bound.hypotheses]
        samples = np.asarray(theorem.measured(window), np.float64) if bound.applicable else np.empty(0)
        found = verdict(samples, bound)
    except Exception as error:  # whatever it is, it is a fault of the theorem
        return entry | {"reason": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    entry |= {"status": found.status, "reason": found.reason, "ratio": found.ratio.hex()}
    if bound.applicable:
        entry["seeds_needed"] = found.seeds_needed
        entry["bound"] = _bound(bound)
        entry["measured"] = {"samples": _hex(samples), "low": found.low.hex(), "high": found.high.hex()}
    return entry


def entries(theorems: Sequence[Theorem], window: Window) -> list[Entry]:
    return [entry_of(theorem, window) for theorem in theorems]


def _bound(bound: Bound) -> dict[str, Any]:
    """The bound as an interval; the upper end of each seed's own one where there is such."""
    ends = {"quantity": bound.quantity, "lower": float(bound.lower).hex(), "upper": float(bound.upper).hex()}
    each = None if bound.per_seed is None else _hex(bound.per_seed)
    rest = {"per_seed": each, "exponent": bound.exponent, "two_sided": bound.two_sided, "note": bound.note}
    return ends | rest


def _hex(values: Any) -> list[str]:
    return [float(x).hex() for x in np.asarray(values, np.float64).reshape(-1)]
