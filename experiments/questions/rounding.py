"""Round to nearest or stochastic rounding: which gives the lower floor, and by how much?

SGD on the quadratic of the default study, all operations rounded. Without noise the ratio of the floors tends to the
ratio of the bounds T6/T8, (2 - lr L)/(2 lr L) for one coordinate of curvature L; under noise that moves a weight by
more than half a gap the dither law T9 gives round to nearest half the variance of stochastic rounding.
"""

from __future__ import annotations

from typing import Any

from experiments.questions.question import Question, Rows, where
from experiments.study import Study

STEP_SIZES = (2.0**-2, 2.0**-4, 2.0**-6)
WIDTHS = (4, 7, 10)
# standard deviation of lr * noise in gaps of the weights at 1
DITHERS = (0.0, 0.125, 0.5, 1.0)


def run(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for lr in STEP_SIZES[:1] if quick else STEP_SIZES:
        for bits in WIDTHS:
            for dither in DITHERS:
                rows.append(_row(lr, bits, dither, 2000 if quick else 20000))
    return rows


def _row(lr: float, bits: int, dither: float, steps: int) -> dict[str, Any]:
    study = Study(
        optimizer="sgd",
        problem="quadratic",
        mantissa=str(bits),
        rounding=["nearest_even", "stochastic"],
        random_bits=32,
        gradient="exact",
        steps=steps,
        seeds=16,
        noise="gaussian" if dither else "none",
        **({"sigma": dither * 2.0**-bits / lr} if dither else {}),
        hyperparameters={"lr": lr},
        overrides=[{"g": "binary64", "update.scale": "binary64"}],
    )
    nearest, stochastic = study.run()["rms_gradient"].to_list()
    return {"lr": lr, "bits": bits, "dither": dither, "nearest": nearest, "stochastic": stochastic,
            "ratio": nearest / stochastic}  # fmt: skip


def _ratios(rows: Rows, **wanted: Any) -> list[float]:
    return [row["ratio"] for row in where(rows, **wanted)]


def finding(rows: Rows) -> str:
    steps = sorted({row["lr"] for row in rows}, reverse=True)
    still = ", ".join(f"{min(x):.3g} to {max(x):.3g} at lr L = {lr:g}" for lr in steps
                      if (x := _ratios(rows, lr=lr, dither=0.0)))  # fmt: skip
    weak, half, whole = (_ratios(rows, dither=d) for d in DITHERS[1:])
    return (
        f"Without noise, stochastic rounding: the floor to nearest is larger by a factor of {still} (32 coordinates "
        "with "
        "curvatures up to L; a factor like 1/(lr L), since to nearest a weight stops as soon as its step is below "
        "half a "
        "gap). Under noise the opposite: where lr times the noise has a standard deviation of half a gap, the floor to "
        f"nearest is {min(half):.3f} to {max(half):.3f} times the stochastic one, of a whole gap {min(whole):.3f} to "
        f"{max(whole):.3f}: the noise dithers, and rounding to nearest then adds half the variance. With an eighth "
        "of a "
        f"gap it goes either way ({min(weak):.3g} to {max(weak):.3g})."
    )


def claims(rows: Rows) -> list[tuple[str, bool]]:
    return [
        ("without noise stochastic rounding wins by more than 5", min(_ratios(rows, dither=0.0)) > 5),
        ("with noise of half a gap round to nearest wins", max(_ratios(rows, dither=0.5)) < 1),
        ("with noise of a gap round to nearest wins", max(_ratios(rows, dither=1.0)) < 1),
    ]


QUESTION = Question("rounding", "Round to nearest or stochastically: which floor is lower?", run, finding, claims)
