"""Which of the stored arrays - gradient, first moment, second moment, weights - matters most at equal bits?

One array is stored with few mantissa bits, everything else of the same run keeps 23. What is shown is the floor (root
mean square of the true gradient norm over the last half of the run) over the floor with 23 bits everywhere, on the
quadratic of the default study, with Gaussian gradient noise and without.
"""

from __future__ import annotations

from typing import Any

from experiments.questions.question import Question, Rows, where
from experiments.study import Study

ARRAYS = {"sgd": "gw", "momentum": "gmw", "rmsprop": "gvw", "adam": "gmvw"}
WIDTHS = (2, 4, 6, 8)
ROUNDINGS = ("nearest_even", "stochastic")
NOISES = {"gaussian": 0.1, "none": 0.0}


def run(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for optimizer, arrays in ARRAYS.items():
        if quick and optimizer != "adam":
            continue
        for rounding in ROUNDINGS:
            for noise, sigma in NOISES.items():
                rows += _rows(optimizer, arrays, rounding, noise, sigma, 2000 if quick else 8000)
    return rows


def _rows(optimizer: str, arrays: str, rounding: str, noise: str, sigma: float, steps: int) -> list[dict[str, Any]]:
    alone = [{name: f"e8m{bits}"} for name in arrays for bits in WIDTHS]
    study = Study(
        optimizer=optimizer,
        problem="quadratic",
        mantissa="23",
        rounding=[rounding],
        gradient="exact",
        noise=noise,
        **({"sigma": sigma} if sigma else {}),
        steps=steps,
        overrides=[{}, *alone],
    )
    floors = study.run()["rms_gradient"].to_list()
    return [
        {
            "optimizer": optimizer,
            "rounding": rounding,
            "noise": noise,
            "array": next(iter(override)),
            "bits": int(next(iter(override.values()))[3:]),
            "floor": floor,
            "ratio": floor / floors[0],
        }
        for override, floor in zip(alone, floors[1:], strict=True)
    ]


def _extremes(rows: Rows, **wanted: Any) -> tuple[float, float]:
    ratios = [row["ratio"] for row in where(rows, **wanted)]
    return min(ratios), max(ratios)


def finding(rows: Rows) -> str:
    of = {name: [_extremes(rows, array=name, bits=bits) for bits in WIDTHS] for name in "gmvw"}
    noisy, still = (_extremes(rows, array="w", noise=noise, bits=6) for noise in ("gaussian", "none"))
    frozen = _extremes(rows, array="v", rounding="nearest_even")
    drawn = _extremes(rows, array="v", rounding="stochastic")
    return (
        "The weights, by orders of magnitude, for every optimizer and either rounding. With 6 mantissa bits in the "
        f"weights alone the floor is {noisy[0]:.2f} to {noisy[1]:.3g} times that of 23 bits under noise and "
        f"{still[0]:.3g} to {still[1]:.2g} times without. The gradient stored with 2 bits changes it by a factor of "
        f"{of['g'][0][0]:.3f} to {of['g'][0][1]:.3f}, the first moment by {of['m'][0][0]:.2f} to {of['m'][0][1]:.2f}: "
        "their errors are relative to something that vanishes at the floor, or they are averaged. The second moment "
        f"matters where it freezes only: {frozen[0]:.2g} to {frozen[1]:.3g} times to nearest (a frozen v is too large: "
        f"shorter steps, hence a lower floor or a later arrival), {drawn[0]:.2f} to {drawn[1]:.2f} with stochastic "
        "rounding, which freezes nothing in the mean."
    )


def claims(rows: Rows) -> list[tuple[str, bool]]:
    def largest(**wanted: Any) -> float:
        return _extremes(rows, **wanted)[1]

    return [
        ("gradients of 2 bits change no floor by a tenth", largest(array="g") < 1.1),
        ("first moments of 2 bits change no floor by a third", largest(array="m") < 1.34),
        (
            "second moments drawn stochastically change no floor by a tenth",
            largest(array="v", rounding="stochastic") < 1.1,
        ),
        (
            "weights of 4 bits raise every floor at least by 1.9",
            _extremes(rows, array="w", bits=4)[0] > 1.9,
        ),
    ]


QUESTION = Question(
    "components",
    "Which of gradient, first moment, second moment and weights matters most at equal bits, per optimizer?",
    run,
    finding,
    claims,
)
