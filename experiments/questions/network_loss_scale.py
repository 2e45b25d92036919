"""What does binary16 without loss scaling lose of a network's gradients, and what does it cost?

A perceptron (64-32-10) learns the digits by Adam, all 1437 of them in each step, so that the gradient of a sample is
at most 2^-10 and small once the sample is learnt. Tensors are in binary16, operations inside of layers, sums, stored
weights and optimizer in binary32 (the preset ``fp16``), with the loss multiplied by 2^16, 2^8, 1, 2^-6 and 2^-10. Below
1 this is what a mean over so many times more samples does, or the weight of a term of a loss, without loss scaling.
Shown are, at the end, the share of zeros among the gradients of weights, and of the network's input, that are not zero
in binary32 at the same weights; and the training loss, root mean square over the last quarter of the steps, over that
of binary32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.intervals import mean, ratio
from experiments.questions.question import Question, Rows, where

if TYPE_CHECKING:
    from experiments.networks.seeds import Floors
    from experiments.networks.training import Run
    from fpsim.nn import NetworkPrecision

STEPS, RATE, RUNS = 400, 2.0**-7, 8
SCALES = (16, 8, 0, -6, -10)  # logarithms
WEIGHTS, INPUT = "weights", "input"


def run(quick: bool) -> list[dict[str, Any]]:
    from fpsim.nn import PRESETS, NetworkPrecision

    steps, runs = (150, 6) if quick else (STEPS, RUNS)
    base, _ = _floors(NetworkPrecision.uniform("binary32"), steps, runs)
    rows = []
    for scale in SCALES[::4] if quick else SCALES:
        found, told = _floors(PRESETS["fp16"]().replace(loss_scale=2.0**scale), steps, runs)
        times, low, high = ratio(found.loss, base.loss)
        for which in (WEIGHTS, INPUT):
            zeros, least, most = mean([lost[which] for lost in told])
            rows.append({"log2 scale": scale, "gradients of": which, "zeros": zeros, "zeros low": least,
                         "zeros high": most, "loss": mean(found.loss)[0], "ratio": times, "low": low,
                         "high": high})  # fmt: skip
    return rows


def _floors(precision: NetworkPrecision, steps: int, runs: int) -> tuple[Floors, list[dict[str, float]]]:
    """The floors, and what the gradients of each run lost at its end."""
    from experiments.networks.optimizers import Optimizer
    from experiments.networks.seeds import floors
    from experiments.networks.training import Training

    training = Training(
        "mlp", "digits", Optimizer("adam", {"lr": RATE}), precision, steps=steps,
        network_options={"width": 32, "depth": 2},
    )  # fmt: skip
    told: list[dict[str, float]] = []

    def at_end(run: Run, start: dict[str, Any]) -> float:
        told.append(_lost(run))
        return 0.0

    return floors(training, runs, whole=True, at_end=at_end), told


def _lost(run: Run) -> dict[str, float]:
    """The share of zeros among gradients that are not zero in binary32, of weights and of the input."""
    from fpsim.nn import emulate

    given = _gradients(run, run.module, run.scaler.get_scale())
    wide = _gradients(run, emulate(run.plain, "binary32"), 1.0)
    parts = {WEIGHTS: slice(0, -1), INPUT: slice(-1, None)}
    shares = {}
    for name, part in parts.items():
        pairs = list(zip(given[part], wide[part], strict=True))
        lost = sum(int(((a == 0) & (b != 0)).sum()) for a, b in pairs)
        shares[name] = lost / max(1, sum(int((b != 0).sum()) for _, b in pairs))
    return shares


def _gradients(run: Run, module: Any, scale: float) -> list[Any]:
    """Of every parameter and, last, of the input, at the weights that are stored now; scaled as the loss is."""
    import torch

    x, y = (torch.from_numpy(part) for part in run.data.batch(run.training.root, 0, run.training.batch))
    x = x.clone().requires_grad_()
    for parameter in run.plain.parameters():
        parameter.grad = None
    (module(x, y) * scale).backward()
    return [parameter.grad for parameter in run.plain.parameters()] + [x.grad]


def _share(row: Any) -> str:
    return f"{row['zeros']:.2g} at 2^{row['log2 scale']}"


def finding(rows: Rows) -> str:
    weights, given = ({r["log2 scale"]: r for r in where(rows, **{"gradients of": x})} for x in (WEIGHTS, INPUT))
    best, plain, worst = (weights[scale] for scale in SCALES[::2])
    return (
        "Those of samples that are learnt, first. Of the gradients of the input that are not zero in binary32 at the "
        "same weights, these shares are zero in binary16, by the factor of the loss: "
        f"{', '.join(_share(row) for row in given.values())}; of those of weights, "
        f"{', '.join(map(_share, weights.values()))}. "
        f"Without scaling the training loss is nevertheless {plain['ratio']:.3f} times that of binary32 (99.9 % of "
        f"confidence: {plain['low']:.3f} to {plain['high']:.3f}): what is lost belongs to samples that are learnt. A "
        f"loss that is smaller by 2^-10 costs: {worst['ratio']:.3g} times ({worst['low']:.3g} to {worst['high']:.3g}). "
        f"Scaled by 2^16 it is {best['ratio']:.3f} times."
    )


def _disjoint(few: Any, many: Any) -> bool:
    return bool(few["zeros high"] < many["zeros low"])


def claims(rows: Rows) -> list[tuple[str, bool]]:
    weights, given = ({r["log2 scale"]: r for r in where(rows, **{"gradients of": x})} for x in (WEIGHTS, INPUT))
    best, plain, worst = SCALES[::2]
    said = [
        ("of a small loss gradients of the input are lost that scaling keeps", _disjoint(given[best], given[worst])),
        ("and gradients of weights", _disjoint(weights[best], weights[worst])),
        ("this costs loss", weights[worst]["low"] > 1.1),
        ("with scaling nothing is lost", 0.9 < weights[best]["low"] <= weights[best]["high"] < 1.1),
    ]
    if plain in given:
        said.append(("some are lost of the loss as it is", _disjoint(given[best], given[plain])))
        said.append(("which costs nothing", 0.9 < weights[plain]["low"] <= weights[plain]["high"] < 1.1))
    return said


QUESTION = Question(
    "network_loss_scale", "What does binary16 without loss scaling lose of a network's gradients?", run, finding, claims
)
