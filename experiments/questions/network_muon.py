"""Does Muon tolerate fewer mantissa bits than Adam when it trains the same network?

A perceptron (64-32-10) learns the digits in batches of 128, with step sizes that fall linearly to 0. The first step
size of each optimizer is the best of a grid of powers of two in binary32; Muon leaves biases to Adam. Then either all
tensors and operations, those of the optimizer included, or weights and moments alone have 4 to 8 mantissa bits, to
nearest, with sums in binary32. Shown is the training loss, root mean square over the last quarter of the steps, over
that of binary32 run by run. A width is tolerated if no width of the table from it upwards has a mean loss more than
10 % above.

Adam's best step size is the largest of its grid. An earlier form of this study, with constant step sizes and three
layers, had intervals too wide to rank the two. In few bits the coefficients of Muon's Newton-Schulz steps are others:
with 4 they are 3.5, -4.75 and 2, for which the iteration can leave its interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.intervals import mean, ratio
from experiments.questions.question import Question, Rows, where
from fpsim.accumulator import Accumulator

if TYPE_CHECKING:
    from experiments.networks.seeds import Floors
    from fpsim.nn import NetworkPrecision

STEPS, BATCH, RUNS, TUNED_ON = 200, 128, 5, 2
WIDTHS = (3, 4, 5, 7)
GRIDS = {"adam": (-7, -6, -5, -4), "muon": (-6, -5, -4, -3)}  # logarithms of step sizes
EVERYTHING, STORED = "everything", "weights and moments"
TOLERANCE = 1.1


def run(quick: bool) -> list[dict[str, Any]]:
    steps, runs, widths = (100, 6, (WIDTHS[0], WIDTHS[-1])) if quick else (STEPS, RUNS, WIDTHS)
    rows = []
    for optimizer, grid in GRIDS.items():
        rate = 2.0 ** (grid[2] if quick else _best(optimizer, grid))
        for scope in (STORED,) if quick else (EVERYTHING, STORED):
            base = _floors(optimizer, rate, _precision(scope, 23), steps, runs)
            for bits in widths:
                found = _floors(optimizer, rate, _precision(scope, bits), steps, runs)
                times, low, high = ratio(found.loss, base.loss)
                rows.append({"optimizer": optimizer, "lr": rate, "narrow": scope, "bits": bits,
                             "wide loss": mean(base.loss)[0], "loss": mean(found.loss)[0], "ratio": times,
                             "low": low, "high": high})  # fmt: skip
    return rows


def _best(optimizer: str, grid: tuple[int, ...]) -> int:
    """The logarithm of the step size with the lowest geometric mean of the training loss in binary32."""
    from math import prod

    wide = _precision(STORED, 23)
    return min(grid, key=lambda x: prod(_floors(optimizer, 2.0**x, wide, STEPS, TUNED_ON).loss))


def _precision(scope: str, bits: int) -> NetworkPrecision:
    from fpsim.nn import NetworkPrecision

    sums, fmt = Accumulator("binary32", "binary32"), f"e8m{bits}"
    if scope == EVERYTHING:
        return NetworkPrecision.uniform(fmt, accumulator=sums)
    wide = NetworkPrecision.storage("binary32").replace(accumulator=sums, update="binary32")
    return wide.replace(weights=fmt, master=fmt, state=fmt)


def _floors(optimizer: str, rate: float, precision: NetworkPrecision, steps: int, runs: int) -> Floors:
    from experiments.networks.optimizers import Optimizer
    from experiments.networks.seeds import floors
    from experiments.networks.training import Training

    falling = {"lr": f"{rate} * (1 - (t - 1) / T)"}
    training = Training(
        "mlp", "digits", Optimizer(optimizer, falling), precision, steps=steps, batch=BATCH,
        network_options={"width": 32, "depth": 2},
    )  # fmt: skip
    return floors(training, runs)


def _tolerated(rows: Rows, optimizer: str, scope: str) -> int | None:
    """The fewest bits from which on no mean loss is more than 10 % above; None if even the most are not enough."""
    least = None
    for row in sorted(where(rows, optimizer=optimizer, narrow=scope), key=lambda r: -r["bits"]):
        if row["ratio"] > TOLERANCE:
            break
        least = int(row["bits"])
    return least


def _said(bits: int | None) -> str:
    return f"{bits} bits" if bits is not None else f"more than {max(WIDTHS)} bits"


def _losses(rows: Rows, optimizer: str, scope: str) -> str:
    found = where(rows, optimizer=optimizer, narrow=scope)
    return ", ".join(f"{row['ratio']:.3g} ({row['bits']})" for row in found)


def finding(rows: Rows) -> str:
    parts = []
    for scope in _scopes(rows):
        adam, muon = (_tolerated(rows, optimizer, scope) for optimizer in GRIDS)
        parts.append(
            f"With {scope} narrow, Adam needs {_said(adam)} and Muon {_said(muon)} for a loss at most 10 % above that "
            f"of binary32; the losses over it are, by mantissa bits, {_losses(rows, 'adam', scope)} for Adam and "
            f"{_losses(rows, 'muon', scope)} for Muon."
        )
    rates = {row["optimizer"]: row for row in rows}
    tuned = " and ".join(f"{name} lr = {row['lr']:g}, loss {row['wide loss']:.3g}" for name, row in rates.items())
    least = _lower_from(rows)
    itself = f" Its loss itself is lower than Adam's from {least} bits on." if least is not None else ""
    return f"{_verdict(rows)} {' '.join(parts)}{itself} (Best step sizes in binary32: {tuned}.)"


def _scopes(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["narrow"] for row in rows))


def _lower_from(rows: Rows) -> int | None:
    """The fewest bits from which on Muon's loss is below Adam's, whatever is narrow."""
    least = None
    for bits in sorted({row["bits"] for row in rows}, reverse=True):
        here = [{row["optimizer"]: row["loss"] for row in where(rows, bits=bits, narrow=x)} for x in _scopes(rows)]
        if any(losses["muon"] >= losses["adam"] for losses in here):
            break
        least = bits
    return least


def _verdict(rows: Rows) -> str:
    most = max(WIDTHS) + 1
    needs = [[_tolerated(rows, x, scope) or most for x in GRIDS] for scope in _scopes(rows)]
    if all(muon < adam for adam, muon in needs):
        return "Yes, on this task."
    if _loses_more(rows):
        return "No, not on this task: in few bits Muon loses more of what it gains."
    return "This study does not decide it."


def _loses_more(rows: Rows) -> bool:
    """Whether, with the fewest bits of weights and moments, the intervals of the two ratios say so."""
    bits = min(row["bits"] for row in rows)
    adam, muon = (where(rows, optimizer=x, narrow=STORED, bits=bits)[0] for x in GRIDS)
    return bool(muon["low"] > adam["high"])


def claims(rows: Rows) -> list[tuple[str, bool]]:
    most = max(row["bits"] for row in rows)
    return [
        ("with few bits of weights and moments Muon's loss grows by a larger factor than Adam's", _loses_more(rows)),
        (f"with {most} bits neither grows by half", max(row["high"] for row in where(rows, bits=most)) < 1.5),
        (f"with {most} bits Muon's loss is the lower one", _lower_from(rows) is not None),
    ]


QUESTION = Question(
    "network_muon",
    "Does Muon tolerate fewer mantissa bits than Adam when it trains the same network?",
    run,
    finding,
    claims,
)
