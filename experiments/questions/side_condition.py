"""Is beta1^2 (1 + q_M)^2 < beta2 (1 - q_V) a real condition: does Adam's step grow without it?

Adam with beta1 = 0.9 and beta2 = 0.999 where only the stored first moment is narrow (q_V = 0), driven by gradient
sequences: one impulse followed by zeros, the powers of beta1/beta2 that attain the bound in exact arithmetic, and an
adversary who picks every gradient so that rounding enlarges m. Shown is the largest |m|/sqrt(v) after 250 and after
1000 steps: a bounded step gives the same number twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

import fpsim
from experiments.questions.question import Question, Rows
from experiments.simulate import windows
from experiments.study import Study

KINDS = {"impulse": {"kind": "stop", "period": 1}, "geometric": {"kind": "geometric"}, "adversary": {"kind": "up"}}
WIDTHS = (1, 2, 3, 4, 5, 7)
ROUNDINGS = ("nearest_even", "up")
BETA1, BETA2 = 0.9, 0.999
ALL = ("g", "v", "v.*", "m.*", "update.*", "w", "w.sub", "scalar.*")
STEPS = (250, 1000)


def run(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for bits in WIDTHS[:2] if quick else WIDTHS:
        for rounding in ROUNDINGS:
            fmt = fpsim.Format(11, bits)
            u = fmt.unit_roundoff(rounding)
            q = u / (1 + u) if rounding == "nearest_even" else u
            value = (BETA1 * (1 + q)) ** 2 / BETA2
            limit = (1 - BETA1) * (1 + q) / math.sqrt((1 - BETA2) * (1 - value)) if value < 1 else math.inf
            row = {"rounding": rounding, "bits": bits, "q_M": q, "condition": value, "limit": limit}
            for name, options in KINDS.items():
                row |= {f"{name} {steps}": _largest(bits, rounding, options, steps) for steps in STEPS}
            rows.append(row)
    return rows


def _largest(bits: int, rounding: str, options: dict[str, Any], steps: int) -> float:
    study = Study(
        optimizer="adam",
        problem="sequence",
        options=options,
        mantissa=str(bits),
        exponent="11",
        rounding=rounding,
        dimension=8,
        seeds=8,
        steps=steps,
        window=1.0,
        hyperparameters={"beta1": BETA1, "beta2": BETA2, "eps": 1.0, "lr": 2.0**-20},
        overrides=[dict.fromkeys(ALL, "binary64")],
    )
    (window,) = windows(study.cells())
    assert window.step_ratio is not None
    return float(np.max(window.step_ratio))


def _growth(row: Mapping[str, Any], sequence: str) -> float:
    """What the last three quarters of the steps add to the largest |m|/sqrt(v), as a factor."""
    return float(row[f"{sequence} {STEPS[1]}"] / row[f"{sequence} {STEPS[0]}"])


def finding(rows: Rows) -> str:
    broken = [row for row in rows if row["condition"] >= 1]
    growing = [row for row in broken if _growth(row, "impulse") > 1]
    kept = [row for row in rows if row["condition"] < 1]
    named = ", ".join(f"{row['bits']} bits {row['rounding'].replace('_', ' ')}" for row in growing)
    still = ", ".join(
        f"{row['bits']} bits {row['rounding'].replace('_', ' ')} ({row['condition']:.4f})"
        for row in broken
        if row not in growing
    )
    tight = [row["limit"] / max(row[f"{name} {STEPS[1]}"] for name in KINDS) for row in kept]
    return (
        f"It is real. After one impulse |m|/sqrt(v) still grows with {named} for m: m stays where it is while v "
        "decays, "
        f"and between {STEPS[0]} and {STEPS[1]} steps the ratio gains {_growth(growing[0], 'impulse'):.4f} = "
        f"beta2^-{(STEPS[1] - STEPS[0]) // 2}, without end. beta1^2 (1 + q_M)^2 / beta2 is "
        f"{min(r['condition'] for r in growing):.3f} or more there. Where it exceeds 1 by less ({still}) the "
        "adversary of "
        f"the proof is not realised by the rounding. Where the condition holds, the largest step of the three "
        f"sequences is bounded, and the bound is {min(tight):.3f} to {max(tight):.3f} times what is reached."
    )


def claims(rows: Rows) -> list[tuple[str, bool]]:
    kept = [row for row in rows if row["condition"] < 1]
    broken = [row for row in rows if row["condition"] >= 1]
    return [
        (
            "where the condition holds no step exceeds its limit",
            all(row[f"{name} {steps}"] <= row["limit"] for row in kept for name in KINDS for steps in STEPS),
        ),
        ("where it holds the impulse fades", all(_growth(row, "impulse") == 1 for row in kept)),
        (
            "where rounding up breaks it the step grows without end",
            all(abs(_growth(r, "impulse") - BETA2**-375) < 1e-3 for r in broken if r["rounding"] == "up"),
        ),
    ]


QUESTION = Question(
    "side_condition",
    "Is beta1^2 (1 + q_M)^2 < beta2 (1 - q_V) a real condition of Adam, or an artefact of the proof?",
    run,
    finding,
    claims,
)
