"""What is the role of eps in the denominator of Adam, down to an eps that the format turns into zero?

Adam on the quadratic of the default study, every operation rounded, with Gaussian noise and without.
"""

from __future__ import annotations

from typing import Any

import fpsim
from experiments.questions.question import Question, Rows, where
from experiments.study import Study

FORMATS = {"float8_e4m3": (4, 3), "binary16": (5, 10), "bfloat16": (8, 7), "binary32": (8, 23)}
EPS = (0.0, 1e-12, 1e-8, 1e-5, 1e-3, 1e-2, 1e-1)


def run(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name, (exponent, mantissa) in FORMATS.items():
        for noise, sigma in (("gaussian", 0.1), ("none", 0.0)):
            study = Study(
                optimizer="adam",
                problem="quadratic",
                mantissa=str(mantissa),
                exponent=str(exponent),
                rounding="stochastic",
                noise=noise,
                **({"sigma": sigma} if sigma else {}),
                steps=1000 if quick else 16000,
                hyperparameters={"beta2": 0.99, "eps": list(EPS)},
            )
            fmt = fpsim.format(f"e{exponent}m{mantissa}")
            for row in study.run().iter_rows(named=True):
                stored = float(fpsim.round(row["eps"], fmt, "nearest_even"))
                rows.append({"format": name, "noise": noise, "eps": row["eps"], "stored": stored,
                             "outcome": row["outcome"], "floor": row["rms_gradient"]})  # fmt: skip
    return rows


def _floors(rows: Rows, name: str, noise: str) -> dict[float, float]:
    """Stored eps -> floor, of the runs that stay finite."""
    found = where(rows, format=name, noise=noise)
    return {row["stored"]: row["floor"] for row in found if row["outcome"] != "not finite"}


def _zero(rows: Rows) -> list[str]:
    """The formats, with noise or without, in which a stored eps of 0 ends in 0/0."""
    broken = {(row["format"], row["noise"]) for row in rows if row["stored"] == 0 and row["outcome"] == "not finite"}
    return sorted(f"{name} ({noise})" for name, noise in broken)


def finding(rows: Rows) -> str:
    largest = max(EPS)
    lost = sorted({f"{row['eps']:g} in {row['format']}" for row in rows if row["eps"] > 0 and row["stored"] == 0})
    noisy = {name: _floors(rows, name, "gaussian") for name in FORMATS}
    change = [abs(x[e] / x[min(x)] - 1) for x in noisy.values() for e in x if e <= 2e-3]
    still = _floors(rows, "binary32", "none")
    shorter = max(1 - x[max(x)] / x[min(x)] for x in noisy.values())
    return (
        f"It guards, and it shortens steps. An eps that the format turns into 0 ({', '.join(lost)}) ends the run in "
        "0/0 "
        f"where v underflows too: {', '.join(_zero(rows))}. Where the run stays finite, eps up to 1e-3 changes the "
        f"noisy floor by at most {100 * max(change):.1f} %; eps = {largest:g}, which is of the size of sqrt(v), "
        "lowers it "
        f"by up to {100 * shorter:.0f} %, as shorter steps do. Without noise sqrt(v) shrinks with the gradient and eps "
        f"decides: binary32 settles at {still[min(still)]:.2g} with eps = 0 and at {still[max(still)]:.2g} with "
        f"{largest:g}, because Adam's step then no longer keeps its length near the minimum."
    )


def claims(rows: Rows) -> list[tuple[str, bool]]:
    still = _floors(rows, "binary32", "none")
    return [
        ("a stored eps of 0 can end in 0/0", bool(_zero(rows))),
        (
            "without noise a large eps lowers the floor of binary32 a thousandfold",
            still[min(still)] > 1e3 * still[max(still)],
        ),
    ]


QUESTION = Question("eps", "What does eps do in a narrow format, where it may become zero?", run, finding, claims)
