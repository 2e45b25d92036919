"""Does beta2 = 0.999 freeze Adam's second moment in bfloat16 when a network is trained, and what does it cost?

A perceptron (64-16-10) learns the digits by Adam, all of them in each step, everything in binary32 but the stored v. To
nearest, beta2 v rounds to v where 1 - beta2 is below half a unit in the last place: v can rise but never fall again,
and the steps stay as short as the largest gradients of the beginning make them. Shown are the share of v that did not
move in the last quarter of the steps, where its gradient is not 0, and the training loss, root mean square over that
quarter, over that of a v in binary32 with the same beta2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.intervals import mean, ratio
from experiments.questions.question import Question, Rows, where

if TYPE_CHECKING:
    from experiments.networks.seeds import Floors
    from experiments.networks.training import Run

STEPS, RATE, RUNS = 2000, 2.0**-8, 6
FROZEN, SAFE = 0.999, 0.9
BETAS = (FROZEN, 0.99, SAFE)
SINGLE, NEAREST, DRAWN = "binary32", "bfloat16", "bfloat16, stochastic"


def run(quick: bool) -> list[dict[str, Any]]:
    rows, steps, runs = [], *((1000, 4) if quick else (STEPS, RUNS))
    for beta in BETAS[::2] if quick else BETAS:
        found = {
            stored: _floors(beta, stored, steps, runs) for stored in (SINGLE, NEAREST, *(() if quick else (DRAWN,)))
        }
        for stored, floor in found.items():
            times, low, high = ratio(floor.loss, found[SINGLE].loss)
            share, least, most = mean(floor.ends)
            rows.append({"beta2": beta, "v": stored, "still": share, "still low": least, "still high": most,
                         "loss": mean(floor.loss)[0], "ratio": times, "low": low, "high": high})  # fmt: skip
    return rows


def _floors(beta: float, stored: str, steps: int, runs: int) -> Floors:
    from experiments.networks.optimizers import Optimizer
    from experiments.networks.seeds import floors
    from experiments.networks.training import Training
    from fpsim.nn import NetworkPrecision
    from fpsim.precision import Precision

    fmt, _, mode = stored.partition(", ")
    precision = Precision((SINGLE, "nearest_even"), families=(("v", fmt, mode or "nearest_even"),))
    training = Training(
        "mlp", "digits", Optimizer("adam", {"lr": RATE, "beta2": beta}, precision), NetworkPrecision.storage(SINGLE),
        steps=steps, network_options={"width": 16, "depth": 2},
    )  # fmt: skip
    return floors(training, runs, whole=True, at_end=_still)


def _still(run: Run, start: dict[str, Any]) -> float:
    """The share of v that is what it was, of the weights whose last gradient is not 0."""
    same = count = 0
    for group, saved in zip(run.groups, start["optimizers"], strict=True):
        for number, parameter in enumerate(group.parameters.values()):
            moving = parameter.grad != 0
            same += int(((group.arrays(parameter)["v"] == saved["state"][number]["exp_avg_sq"]) & moving).sum())
            count += int(moving.sum())
    return same / count


def _row(rows: Rows, beta: float, stored: str) -> Any:
    return where(rows, beta2=beta, v=stored)[0]


def finding(rows: Rows) -> str:
    frozen, repaired = _row(rows, FROZEN, NEAREST), _row(rows, SAFE, NEAREST)
    drawn, between = _row(rows, FROZEN, DRAWN), _row(rows, BETAS[1], NEAREST)
    return (
        f"Yes. With beta2 = {FROZEN:g}, {frozen['still']:.0%} of v in bfloat16 did not move in the last quarter of "
        f"{STEPS} steps ({_row(rows, FROZEN, SINGLE)['still']:.1%} in binary32), and the training loss there is "
        f"{frozen['ratio']:.3g} times that of a v in binary32 (99.9 % of confidence: {frozen['low']:.3g} to "
        f"{frozen['high']:.3g}). beta2 = {SAFE:g} repairs it: {repaired['still']:.1%} and {repaired['ratio']:.3f} "
        f"times; so does stochastic rounding of v at beta2 = {FROZEN:g}: {drawn['still']:.1%} and "
        f"{drawn['ratio']:.3f} times. Halfway, beta2 = {between['beta2']:g}, v moves ({between['still']:.1%} stand "
        f"still), and yet the loss is {between['ratio']:.3g} times that of binary32."
    )


def claims(rows: Rows) -> list[tuple[str, bool]]:
    frozen = _row(rows, FROZEN, NEAREST)
    repaired = [_row(rows, SAFE, NEAREST), *where(rows, v=DRAWN)]
    single = where(rows, v=SINGLE)
    return [
        ("most of v stands still in bfloat16 at beta2 = 0.999", frozen["still low"] > 0.9),
        ("it costs loss", frozen["low"] > 1.05),
        ("nearly nothing stands still otherwise", all(x["still high"] < 0.1 for x in (*repaired, *single))),
        ("and nothing is lost", all(0.9 < x["low"] <= x["high"] < 1.1 for x in repaired)),
    ]


QUESTION = Question(
    "network_beta2", "Does beta2 = 0.999 freeze v in bfloat16 when a network is trained?", run, finding, claims
)
