"""Where does the condition of Muon bite, that the error q_M of the stored momentum be small against 1 - beta?

Muon with the exact polar factor on the quadratic of the default study as a 4 x 4 matrix (r = 4), where only the stored
momentum is narrow, with Gaussian gradient noise and without. The self-bounding argument keeps its rate up to
q_M = (1 - beta)/(8 sqrt(r)), and a factor q_M/(1 - beta) of 1 makes the published bound empty. Shown is the floor over
the floor with a momentum in binary64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import fpsim
from experiments.questions.question import Question, Rows, where
from experiments.study import Study

BETAS = (0.9, 0.99, 0.999)
WIDTHS = (1, 2, 3, 4, 6, 8, 10, 12)
ROUNDINGS = ("nearest_even", "stochastic")
NOISES = {"gaussian": 0.1, "none": 0.0}
ROWS = 4
SHARE = "q_M/(1-beta)"
ALL = ("g", "m.*", "update.*", "w", "w.sub", "scalar.*")


def run(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for beta in BETAS[:1] if quick else BETAS:
        for noise, sigma in NOISES.items():
            for rounding in ROUNDINGS:
                rows += _rows(beta, noise, sigma, rounding, 500 if quick else 8000)
    return rows


def _rows(beta: float, noise: str, sigma: float, rounding: str, steps: int) -> list[dict[str, Any]]:
    study = Study(
        optimizer="muon",
        problem="quadratic",
        options={"rows": ROWS},
        dimension=16,
        mantissa=",".join(map(str, (*WIDTHS, 52))),
        exponent="11",
        rounding=rounding,
        gradient="exact",
        noise=noise,
        **({"sigma": sigma} if sigma else {}),
        steps=steps,
        seeds=8,
        hyperparameters={"beta1": beta, "lr": 2.0**-8},
        overrides=[dict.fromkeys(ALL, "binary64")],
    )
    floors = study.run()["rms_gradient"].to_list()
    rows = []
    for bits, floor in zip(WIDTHS, floors[:-1], strict=True):
        u = fpsim.Format(11, bits).unit_roundoff("nearest_even" if rounding == "nearest_even" else "toward_zero")
        q = u / (1 + u) if rounding == "nearest_even" else u
        rows.append({"beta": beta, "noise": noise, "rounding": rounding, "bits": bits, SHARE: q / (1 - beta),
                     "floor": floor, "ratio": floor / floors[-1]})  # fmt: skip
    return rows


def _split(rows: Rows, rounding: str) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The rows with q_M/(1 - beta) up to 1 and those beyond."""
    found = where(rows, rounding=rounding)
    return [r for r in found if r[SHARE] <= 1], [r for r in found if r[SHARE] > 1]


def finding(rows: Rows) -> str:
    near, far = _split(rows, "nearest_even")
    near_drawn, far_drawn = _split(rows, "stochastic")
    below = [row["ratio"] for row in (*near, *near_drawn)]
    proven = 1 / (8 * math.sqrt(ROWS))
    worst, drawn = (max(found, key=lambda r: r["ratio"]) for found in (far, far_drawn))
    return (
        f"Not where the proof needs it. Up to q_M/(1 - beta) = 1 the floor stays within {min(below):.3f} to "
        f"{max(below):.3f} of that of a momentum in binary64, {1 / proven:.0f} times beyond the {proven:.4f} up to "
        "which "
        "the self-bounding argument holds at r = 4. Beyond 1, rounding to nearest leaves momenta where they are (T14: "
        f"fl(beta m) = m) and the floor rises, up to {worst['ratio']:.3g} times (beta = {worst['beta']:g}, "
        f"{worst['bits']} mantissa bit, noise {worst['noise']}). Stochastic rounding freezes nothing: at most "
        f"{drawn['ratio']:.2f} times, and that at q_M/(1 - beta) = {drawn[SHARE]:.0f} (beta = {drawn['beta']:g}, "
        f"{drawn['bits']} mantissa bit)."
    )


def claims(rows: Rows) -> list[tuple[str, bool]]:
    near, far = _split(rows, "nearest_even")
    near_drawn, far_drawn = _split(rows, "stochastic")
    return [
        (
            "up to q_M/(1 - beta) = 1 no floor changes by 5 %",
            all(abs(r["ratio"] - 1) < 0.05 for r in (*near, *near_drawn)),
        ),
        ("beyond it round to nearest can raise the floor tenfold", max(r["ratio"] for r in far) > 10),
        ("stochastic rounding never by more than 2.5", max(r["ratio"] for r in far_drawn) < 2.5),
    ]


QUESTION = Question("muon", "Where does Muon's condition on the precision of its momentum bite?", run, finding, claims)
