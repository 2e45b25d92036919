"""Where does swamping in the accumulator, and not storage, set the floor?

A linear layer learns a teacher that no linear layer can follow (16 inputs, 32 hidden units), by gradient descent (lr
1/8, 120 steps, all samples in each): a convex problem whose gradient falls below 1e-6 with all operations in binary32.
At the minimum the terms of the gradient, one for each sample, are no smaller than before; their sum is, and what it
loses is the floor: the root mean square of the true gradient norm over the last quarter of the steps. (A two-layer
perceptron on the digits, tried first with two runs that had not settled, showed less: sequential sums raised its
gradient norm 15 times at lr 1/8 and 1.3 times at 1/16, where narrow weights raised it 3.2 times.) Either the sums are
narrow, in some order, and everything else is binary32, or tensors are narrow and sums are binary32.

With "8-bit" products read float8_e5m2 and add in 16 bits, as Wang et al. ("Training Deep Neural Networks with 8-bit
Floating Point Numbers", NeurIPS 2018) do with e6m9 and blocks of 64; the loss is scaled by 1024 there.

``error`` is the largest error of an element of the first gradient, relative to the sum of the moduli of its terms;
``bound`` is (1 + u)^(d + 1) - 1 for it, d the depth of the order (``theory.reductions``) and one more for the product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from experiments.intervals import mean, ratio
from experiments.questions.question import Question, Rows, where
from fpsim.accumulator import Accumulator
from fpsim.formats import format as named_format
from theory.reductions import depths

if TYPE_CHECKING:
    from experiments.networks.training import Training
    from fpsim.nn import NetworkPrecision

NARROW, WIDE = "e8m4", "binary32"
STEPS, RATE, RUNS = 120, 2.0**-3, 8
LENGTHS, LONG = (256, 1024, 4096), 65536
ORDERS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "fma": {"fma": True},
    "blocks of 16": {"order": "blocked", "block": 16},
    "blocks of 64": {"order": "blocked", "block": 64},
    "pairwise": {"order": "pairwise"},
    "kahan": {"order": "kahan"},
}
DEEP = ("sequential", "fma")
STORED = ("activations and gradients", "and weights read", "and weights kept")
REFERENCE = (WIDE, "sequential")
SIXTEEN = (("e6m9", "sequential"), ("e6m9", "blocks of 64"), ("bfloat16", "sequential"))


def run(quick: bool) -> list[dict[str, Any]]:
    stored, orders = (STORED[::2], ("sequential", "pairwise")) if quick else (STORED, tuple(ORDERS))
    rows = []
    for samples in LENGTHS[::2] if quick else LENGTHS:
        rows += [_row("tensors", NARROW, what, samples, _stored(what)) for what in stored]
        rows += [_row("sums", NARROW, order, samples, _summed(NARROW, order)) for order in orders]
    for samples in (LENGTHS[-1],) if quick else (LENGTHS[-1], LONG):
        rows += [_row("sums", *sums, samples, _summed(*sums)) for sums in SIXTEEN]
        rows += [] if quick else [_row("8-bit", *sums, samples, _eight(*sums)) for sums in (REFERENCE, *SIXTEEN)]
    return rows


def _summed(fmt: str, order: str) -> NetworkPrecision:
    from fpsim.nn import NetworkPrecision

    return NetworkPrecision.uniform(WIDE, accumulator=_accumulator(fmt, order))


def _accumulator(fmt: str, order: str) -> Accumulator:
    return Accumulator(None if order == "fma" else fmt, fmt, **ORDERS[order])


def _stored(what: str) -> NetworkPrecision:
    precision = _summed(WIDE, "sequential").replace(
        activations=NARROW, gradients=NARROW, weight_gradients=NARROW, elementwise=WIDE, update=WIDE
    )
    slots = {"and weights read": ("weights",), "and weights kept": ("weights", "master")}.get(what, ())
    return precision.replace(**dict.fromkeys(slots, NARROW))


def _eight(fmt: str, order: str) -> NetworkPrecision:
    operands = dict.fromkeys(("forward_operands", "backward_operands"), "float8_e5m2")
    return _summed(fmt, order).replace(**operands, loss_scale=1024.0)


def _training(samples: int, precision: NetworkPrecision | None) -> Training:
    from experiments.networks.optimizers import Optimizer
    from experiments.networks.training import Training

    return Training(
        "mlp", "teacher", Optimizer("sgd", {"lr": RATE}), precision, steps=STEPS,
        network_options={"depth": 1}, dataset_options={"samples": samples},
    )  # fmt: skip


def _row(kind: str, fmt: str, what: str, samples: int, precision: NetworkPrecision) -> dict[str, Any]:
    from experiments.networks.seeds import floors

    found = floors(_training(samples, precision), RUNS, whole=True).gradient
    floor, low, high = mean(found)
    error, bound = (_error(samples, fmt, what), _bound(samples, fmt, what)) if kind == "sums" else (None, None)
    return {"kind": kind, "format": fmt, "what": what, "samples": samples, "floor": floor, "low": low, "high": high,
            "floors": list(found), "error": error, "bound": bound}  # fmt: skip


def _bound(samples: int, fmt: str, order: str) -> float | None:
    if order == "kahan":
        return None
    options = ORDERS[order]
    depth = depths(samples, options.get("order", "sequential"), options.get("block"))[1]
    return math.expm1((depth + (order != "fma")) * math.log1p(named_format(fmt).unit_roundoff("nearest_even")))


def _error(samples: int, fmt: str, order: str) -> float:
    """Of the first gradient of the weights, x^T g, over runs and elements."""
    import numpy as np

    import fpsim
    from experiments.networks.seeds import started

    worst = 0.0
    for number in range(RUNS):
        run = started(replace(_training(samples, None), run=number), True)
        x, y = run.data.batch(run.training.root, 0, samples)
        weights = next(iter(run.parameters.values())).detach().numpy()
        g = (2.0 / samples * (x.astype(np.float64) @ weights.T.astype(np.float64) - y)).astype(np.float32)
        found = fpsim.matmul(np.ascontiguousarray(x.T), g, _accumulator(fmt, order))
        wide_x, wide_g = x.T.astype(np.float64), g.astype(np.float64)
        error = np.abs(found - wide_x @ wide_g) / (np.abs(wide_x) @ np.abs(wide_g))
        worst = max(worst, float(error.max()))
    return worst


def _one(rows: Rows, **wanted: Any) -> Mapping[str, Any]:
    (row,) = where(rows, **wanted)
    return row


def _sum(rows: Rows, order: str, samples: int) -> Mapping[str, Any]:
    return _one(rows, kind="sums", format=NARROW, what=order, samples=samples)


def _over(row: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[float, float, float]:
    """Floor over floor, run by run, with its interval of 99.9 %."""

    return ratio(row["floors"], base["floors"])


def _stored_floors(rows: Rows, what: str) -> dict[int, Mapping[str, Any]]:
    return {row["samples"]: row for row in where(rows, kind="tensors", what=what)}


def finding(rows: Rows) -> str:
    stored, kept = _stored_floors(rows, STORED[0]), _stored_floors(rows, STORED[-1])
    longest = max(stored)
    base, first, tree = stored[longest], _sum(rows, "sequential", longest), _sum(rows, "pairwise", longest)
    growth = ", ".join(f"{_over(_sum(rows, 'sequential', n), stored[n])[0]:.3g} (n = {n})" for n in stored)
    others = ", ".join(f"{_over(_sum(rows, x, longest), base)[0]:.3g} ({x})" for x in list(ORDERS)[1:])
    weights = ", ".join(f"{_over(kept[n], stored[n])[0]:.3g} (n = {n})" for n in stored)
    reference = _one(rows, kind="8-bit", format=WIDE, samples=LONG)
    eight = [_one(rows, kind="8-bit", format=x, what=how, samples=LONG) for x, how in SIXTEEN]
    sequential, blocks, brain = (f"{_over(row, reference)[0]:.3g}" for row in eight)
    alone = [_one(rows, kind="sums", format="e6m9", what=how, samples=LONG) for _, how in SIXTEEN[:2]]
    u = named_format(NARROW).unit_roundoff("nearest_even")
    return (
        f"In long sequential sums. Sums of n terms in {NARROW}, everything else in binary32, have a floor over that of "
        f"activations and gradients stored in {NARROW} with sums in binary32 of {growth} in sequence. At n = {longest} "
        f"other orders give {others}: an order of small depth brings the sums down to storage, exact products (fma) do "
        f"not, for it is the sum that loses. Weights that are themselves kept in {NARROW} cost more: {weights} times. "
        f"Of the first gradient, sequential sums at n = {longest} lose up to {first['error']:.2g} of the sum of its "
        f"moduli (n u = {longest * u:.3g} bounds nothing), pairwise ones {tree['error']:.2g} of a proven "
        f"{tree['bound']:.2g}. 8-bit operands hide 16-bit sums: where products read float8_e5m2 and n = {LONG}, sums "
        f"in e6m9 instead of binary32 change the floor by a factor of {sequential} in sequence and {blocks} in blocks "
        f"of 64, those in bfloat16 by {brain}; with operands in binary32 the floor of e6m9 in sequence is "
        f"{_over(*alone)[0]:.3g} times that of blocks."
    )


def claims(rows: Rows) -> list[tuple[str, bool]]:
    stored, kept = _stored_floors(rows, STORED[0]), _stored_floors(rows, STORED[-1])
    least, most = min(stored), max(stored)
    growth = [_over(_sum(rows, "sequential", n), stored[n]) for n in (least, most)]
    sequential = _sum(rows, "sequential", most)
    shallow = [row for row in where(rows, kind="sums", format=NARROW, samples=most) if row["what"] not in DEEP]
    said = [
        ("long sequential sums set a floor above that of storage", growth[1][1] > 2),
        ("they do so by more the longer they are", growth[0][2] < growth[1][1]),
        ("every order of small depth has a lower floor", all(_over(row, sequential)[2] < 1 for row in shallow)),
        ("weights that are kept narrow have a higher floor than storage", _over(kept[most], stored[most])[1] > 5),
        ("no error exceeds its bound", all(r["error"] <= r["bound"] for r in rows if r["bound"] is not None)),
    ]
    for samples in sorted({row["samples"] for row in where(rows, kind="sums", format="e6m9")}):
        pair = [_one(rows, kind="sums", format="e6m9", what=how, samples=samples) for _, how in SIXTEEN[:2]]
        said.append((f"sums in e6m9 have a higher floor in sequence, n = {samples}", _over(*pair)[1] > 2))
    for row in where(rows, kind="8-bit", format="e6m9"):
        change = _over(row, _one(rows, kind="8-bit", format=WIDE, samples=row["samples"]))
        words = f"with 8-bit operands sums in e6m9 change it by less than a third: {row['what']}, n = {row['samples']}"
        said.append((words, change[1] > 3 / 4 and change[2] < 4 / 3))
    return said


QUESTION = Question(
    "accumulation", "Where does swamping in the accumulator, and not storage, set the floor?", run, finding, claims
)
