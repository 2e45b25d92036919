"""How fast must the precision grow with the number of steps T: do weaker exponents than the published ones suffice?

RMSprop with lr = 1/(4 sqrt(T)), 1 - beta2 = 1/sqrt(T) and a fixed eps on a quadratic with Gaussian noise; G is the root
mean square of the true gradient norm over all T steps, and theory promises G = O(T^(-1/4)). Printed: the slope of
log2 G over log2 T, fitted by least squares over the larger half of the T, where one array's mantissa grows like
c log2 T, or does not grow, and all else is binary64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.questions.question import Question, Rows
from experiments.study import Study

EXACT = "binary64"
ALL = ("g", "v", "v.*", "update.sqrt", "update.eps", "update.div", "update.scale", "w", "w.sub", "scalar.*")
# what is narrow, in which mode, and its stored mantissa bits
CASES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "nothing": ((), "nearest_even", "23"),
    "v, 1/2 log2 T + 1": (("v",), "nearest_even", "ceil(0.5*log2(T) + 1)"),
    "g, 1/4 log2 T + 1": (("g",), "nearest_even", "ceil(0.25*log2(T) + 1)"),
    "update.div, 1/4 log2 T + 1": (("update.div",), "nearest_even", "ceil(0.25*log2(T) + 1)"),
    "w, 1/2 log2 T, stochastic": (("w",), "stochastic", "ceil(0.5*log2(T))"),
    "w, 3/4 log2 T": (("w",), "nearest_even", "ceil(0.75*log2(T))"),
    "w, 5 bits, stochastic": (("w",), "stochastic", "5"),
    "w, 5 bits": (("w",), "nearest_even", "5"),
    "v, 3 bits": (("v",), "nearest_even", "3"),
    "g, 1 bit": (("g",), "nearest_even", "1"),
}


def run(quick: bool) -> list[dict[str, Any]]:
    powers = range(8, 11 if quick else 17)
    rows = []
    for case, (narrow, rounding, mantissa) in CASES.items():
        study = Study(
            optimizer="rmsprop",
            problem="quadratic",
            mantissa=mantissa,
            exponent="11",
            rounding=rounding,
            gradient="exact",
            noise="gaussian",
            sigma=0.5,
            dimension=8,
            seeds=16,
            steps=[2**k for k in powers],
            window=1.0,
            hyperparameters={"lr": "0.25/sqrt(T)", "beta2": "1 - 1/sqrt(T)", "eps": 2.0**-4},
            overrides=[{name: EXACT for name in ALL if name not in narrow}],
        )
        table = study.run()
        g = np.log2(table["rms_gradient"].to_numpy())
        t = np.log2(table["steps"].to_numpy())
        half = len(t) // 2
        slope = float(np.polyfit(t[half:], g[half:], 1)[0])
        bits = table["mantissa_bits"].to_list() if narrow else [52]
        row = {"narrow": case, "bits_first": bits[0], "bits_last": bits[-1], "slope": slope}
        rows.append(row | {"log2_T": t.tolist(), "log2_G": g.tolist()})
    return rows


def finding(rows: Rows) -> str:
    slope = {row["narrow"]: row["slope"] for row in rows}
    bits = {row["narrow"]: row["bits_last"] for row in rows}
    grown = [name for name in slope if "log2 T" in name]
    last = rows[0]["log2_T"][-1]
    return (
        f"Weaker exponents suffice. In binary64 the slope of log2 G over log2 T is {slope['nothing']:.3f} here. With "
        "one "
        f"array at a precision that grows as slowly as the sufficient exponents allow it stays between "
        f"{min(slope[n] for n in grown):.3f} and {max(slope[n] for n in grown):.3f}: at T = 2^{last:.0f} these are "
        f"{bits['v, 1/2 log2 T + 1']} bits for v, {bits['g, 1/4 log2 T + 1']} for gradient and update, "
        f"{bits['w, 1/2 log2 T, stochastic']} for weights rounded stochastically and {bits['w, 3/4 log2 T']} to "
        "nearest, "
        f"where q_V = O(1/T^2) would ask for {2 * last:.0f}. Weights of 5 bits for every T do lose the rate "
        f"({slope['w, 5 bits, stochastic']:.3f} stochastic, {slope['w, 5 bits']:.3f} to nearest, which gets worse "
        "with T). "
        f"A gradient of 1 bit and v of 3 bits for every T keep it in these runs ({slope['g, 1 bit']:.3f}, "
        f"{slope['v, 3 bits']:.3f}): the exponents of q_G and q_V are needed against an adversary, not against "
        "rounding "
        "under noise."
    )


def claims(rows: Rows) -> list[tuple[str, bool]]:
    slope = {row["narrow"]: row["slope"] for row in rows}
    grown = [slope[name] - slope["nothing"] for name in slope if "log2 T" in name]
    return [
        ("growing precision keeps the slope within 0.01", max(map(abs, grown)) < 0.01),
        (
            "weights of 5 bits lose it",
            min(slope[f"w, 5 bits{s}"] for s in ("", ", stochastic")) > slope["nothing"] + 0.03,
        ),
    ]


QUESTION = Question(
    "exponents",
    "At which rate must the precision grow with T: do weaker exponents than q_V = O(1/T^2) suffice for RMSprop?",
    run,
    finding,
    claims,
)
