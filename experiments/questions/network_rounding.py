"""Do bfloat16 weights stall where stochastic rounding does not?

A perceptron (64-32-10) learns the digits by SGD with a small step size. Weights are kept in bfloat16 and everything
else in binary32, or all tensors and operations are in bfloat16 with sums in binary32; both to nearest and with
stochastic rounding. Shown is the training loss, root mean square over the last quarter of the steps, over that of
binary32 run by run, and the share of the weights with a gradient that did not move in that quarter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.intervals import mean, ratio
from experiments.questions.question import Question, Rows, where
from fpsim.accumulator import Accumulator

if TYPE_CHECKING:
    from experiments.networks.training import Run, Training
    from fpsim.nn import NetworkPrecision

RATES, STEPS, BATCH, RUNS = (2.0**-6,), 400, 64, 5
WEIGHTS, EVERYTHING = "weights", "everything"
MODES = ("nearest_even", "stochastic")


def run(quick: bool) -> list[dict[str, Any]]:
    from experiments.networks.seeds import floors

    rows, runs = [], 4 if quick else RUNS
    for rate in RATES[:1] if quick else RATES:
        base = floors(_training(_precision("nothing", MODES[0]), rate), runs)
        for scope in (WEIGHTS,) if quick else (WEIGHTS, EVERYTHING):
            for rounding in MODES:
                found = floors(_training(_precision(scope, rounding), rate), runs, at_end=_still)
                times, low, high = ratio(found.loss, base.loss)
                still, *_ = mean(found.ends)
                rows.append({"lr": rate, "in bfloat16": scope, "rounding": rounding, "loss": mean(found.loss)[0],
                             "ratio": times, "low": low, "high": high, "still": still})  # fmt: skip
    return rows


def _precision(scope: str, rounding: str) -> NetworkPrecision:
    from fpsim.nn import NetworkPrecision

    sums, slot = Accumulator("binary32", "binary32"), ("bfloat16", rounding)
    if scope == EVERYTHING:
        return NetworkPrecision.uniform(*slot, accumulator=sums)
    wide = NetworkPrecision.uniform("binary32", accumulator=sums)
    return wide.replace(weights=slot, master=slot, update="binary32") if scope == WEIGHTS else wide


def _training(precision: NetworkPrecision, rate: float) -> Training:
    from experiments.networks.optimizers import Optimizer
    from experiments.networks.training import Training

    return Training(
        "mlp", "digits", Optimizer("sgd", {"lr": rate}), precision, steps=STEPS, batch=BATCH,
        network_options={"width": 32, "depth": 2},
    )  # fmt: skip


def _still(run: Run, start: dict[str, Any]) -> float:
    """The share of the weights whose last gradient is not 0 that are what they were."""
    moving = {name: p.grad != 0 for name, p in run.plain.named_parameters()}
    same = sum(
        int(((p.detach() == start["weights"][name]) & moving[name]).sum()) for name, p in run.plain.named_parameters()
    )
    return same / sum(int(x.sum()) for x in moving.values())


def finding(rows: Rows) -> str:
    nearest, drawn = (where(rows, rounding=x) for x in MODES)
    said = []
    for row in nearest:
        said.append(
            f"{row['ratio']:.3g} times with {row['still']:.0%} of the weights standing still ({row['in bfloat16']}, "
            f"lr = {row['lr']:g})"
        )
    ratios = [row["ratio"] for row in drawn]
    return (
        "Yes. To nearest, the training loss over that of binary32 is " + ", ".join(said) + "; stochastic rounding of "
        f"the same numbers gives {min(ratios):.3f} to {max(ratios):.3f} times, and at most "
        f"{max(row['still'] for row in drawn):.1%} of its weights stand still. The weights alone make the difference: "
        "whether everything else is in bfloat16 too changes a ratio by at most "
        f"{max(abs(_alone(rows, row)['ratio'] / row['ratio'] - 1) for row in rows):.1%}."
    )


def _alone(rows: Rows, row: Any) -> Any:
    return where(rows, lr=row["lr"], rounding=row["rounding"], **{"in bfloat16": WEIGHTS})[0]


def claims(rows: Rows) -> list[tuple[str, bool]]:
    nearest, drawn = (where(rows, rounding=x) for x in MODES)
    pairs = list(zip(nearest, drawn, strict=True))
    return [
        ("to nearest the loss stays above that of binary32", all(row["low"] > 1.05 for row in nearest)),
        ("with stochastic rounding it is within 5 % of it", all(0.95 < r["low"] <= r["high"] < 1.05 for r in drawn)),
        ("to nearest more weights stand still", all(a["still"] > 2 * b["still"] for a, b in pairs)),
    ]


QUESTION = Question(
    "network_rounding",
    "Do the weights of a network stall in bfloat16 where stochastic rounding does not?",
    run,
    finding,
    claims,
)
