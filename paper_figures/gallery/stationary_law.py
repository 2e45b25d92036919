"""The law that stochastic rounding settles in: exact, from a finite Markov chain, and as bit-exact runs find it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fpsim
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, slot, step
from paper_figures import style
from paper_figures.figure import Data, PaperFigure, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

SIGMAS = 4.5  # of a share, that a simulation of a hundred states may be off
COUNTED = 20  # runs that a state must expect for its count to be compared
SHOWN = 1e-4  # smallest share that is drawn
WEIGHTS, MOMENTS = "e8m4", "e8m3"
MINIMIZER, NOISE, LR, BETA2 = 1.28125, 0.5, 0.125, 0.9


@step
def _average(v: Value, g: Value, *, beta2: float = BETA2) -> dict[str, Value]:
    """The second moment alone."""
    kept = slot("v.decay", beta2 * v)
    return {"v": slot("v.add", kept + slot("v.inject", (1 - beta2) * slot("v.square", g * g)))}


@step
def _pull(w: Value, c: Value) -> dict[str, Value]:
    return {"g": slot("difference", w - c)}


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    steps, lanes = parameters["steps"], parameters["lanes"]
    rounded = Stochastic(parameters["random bits"])
    moments = Precision.uniform("binary64").replace(dict.fromkeys(("v", "v.decay", "v.add"), (MOMENTS, rounded)))
    moments = moments.replace({"v": MOMENTS})
    weights = Precision.uniform("binary64").replace({"w": WEIGHTS, "w.sub": (WEIGHTS, rounded)})
    ends = [MINIMIZER - NOISE, MINIMIZER + NOISE]
    drawn = np.random.default_rng(parameters["seed"]).choice(ends, size=(steps, 1, lanes))
    found = {
        "v": _law(_average, moments, {"v": 1.0}, {"g": 1.0}, {"g": np.ones((1, lanes))}, parameters),
        "w": _law(
            _pull >> sgd.bind(lr=LR), weights, {"w": MINIMIZER}, {"c": [(x, Fraction(1, 2)) for x in ends]},
            {"c": drawn}, parameters,
        ),
    }  # fmt: skip
    report(1.0)
    return {**found, "steps": steps, "lanes": lanes, "random bits": parameters["random bits"]}


def _law(
    program: Any, precision: Precision, start: dict[str, float], given: dict[str, Any], inputs: dict[str, Any],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    from theory.chain import chain, stored_scalars

    exact = chain(program, precision.resolve(program), start, given, scalars=stored_scalars(program, precision))
    shares = [float(x) for x in exact.stationary()]
    ((name, value),) = start.items()
    key, lanes = fpsim.Key(parameters["seed"]), parameters["lanes"]
    state = {name: np.full((1, lanes), value)}
    end = fpsim.run(program, state, inputs, precision, key, steps=parameters["steps"]).state[name].ravel()
    states = [x[0] for x in exact.states]
    return {"states": states, "exact": shares, "counted": [int(np.sum(end == x)) for x in states]}


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 2.2)
    moments, weights = figure.subplots(1, 2)
    for axes, name, ideal, text in ((moments, "v", 1.0, "$g^2$"), (weights, "w", MINIMIZER, "$w^*$")):
        _panel(axes, data[name], data["lanes"])
        axes.set_xlabel(f"${name}$")
        axes.axvline(ideal, color="0.4", linewidth=0.7, linestyle=":")
        axes.annotate(text, (ideal, 0.97), (-3, 0), ("data", "axes fraction"), "offset points", va="top", ha="right",
                      color="0.3")  # fmt: skip
    moments.set_ylabel("share of time")
    moments.set_title(r"second moment, $|g| = 1$")
    weights.set_title("weight, noisy gradient")
    bars, dots = moments.containers[0], moments.containers[1]
    weights.legend([bars, dots], ["exact law", "simulated, 95 %"], handlelength=1.2, borderaxespad=0.0,
                   loc="upper left" if _middle(data["w"]) > MINIMIZER else "upper right")  # fmt: skip
    return figure


def _middle(law: Mapping[str, Any]) -> float:
    return float(np.dot(law["states"], law["exact"]))


def _panel(axes: Axes, law: Mapping[str, Any], lanes: int) -> None:
    states, exact, counted = (np.array(law[x], dtype=float) for x in ("states", "exact", "counted"))
    shown = exact >= SHOWN
    states, exact, share = states[shown], exact[shown], counted[shown] / lanes
    gap = np.min(np.diff(states))
    axes.bar(states, exact, width=0.8 * gap, color=style.SKY)
    error = 1.96 * np.sqrt(share * (1 - share) / lanes)
    axes.errorbar(states, share, yerr=error, fmt="o", color=style.BLACK, markersize=2, elinewidth=0.7, capsize=1.5)
    axes.set_ylim(0.0, 1.25 * max(exact.max(), share.max()))
    axes.spines[["top", "right"]].set_visible(False)


def _deviations(data: Data, name: str) -> Any:
    """Of the counts, in standard deviations, where at least ``COUNTED`` are expected."""
    law, lanes = data[name], data["lanes"]
    p = np.array(law["exact"])
    off = np.abs(np.array(law["counted"]) - lanes * p) / np.sqrt(np.maximum(lanes * p * (1 - p), 1.0))
    return np.where(lanes * p >= COUNTED, off, 0.0)


def caption(data: Data) -> str:
    v, w = data["v"], data["w"]
    spread = math.sqrt(sum(p * (x - _middle(v)) ** 2 for x, p in zip(v["states"], v["exact"], strict=True)))
    worst = max(_deviations(data, "v").max(), _deviations(data, "w").max())
    return (
        f"The law in which stochastic rounding ({data['random bits']} random bits) settles: exact, from a Markov chain "
        f"with rational transition probabilities (bars), and of {data['lanes']} bit-exact runs of {data['steps']} "
        f"steps (dots, 95 % intervals). Left: the second moment with $\\beta_2 = {BETA2}$ and 3 mantissa bits under "
        f"$|g| = 1$ ({len(v['states'])} states): mean {_middle(v):.3f}, standard deviation {spread:.3f} in place of 1 "
        f"and 0. Right: a weight with 4 mantissa bits, gradient descent with lr = {LR} to $w^* = {MINIMIZER}$ under "
        f"noise of $\\pm {NOISE}$ ({len(w['states'])} states): mean {_middle(w):.3f}. Where {COUNTED} runs or more are "
        f"expected, their count is within {worst:.1f} standard deviations of the law."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = []
    for name in ("v", "w"):
        law = data[name]
        found += [
            (f"{name}: the law's shares add up to 1", abs(sum(law["exact"]) - 1) < 1e-9),
            (f"{name}: no run is where the law is not", sum(law["counted"]) == data["lanes"]),
            (f"{name}: counts within {SIGMAS} standard deviations", bool(np.all(_deviations(data, name) <= SIGMAS))),
        ]
    return found


PARAMETERS = {"steps": 400, "lanes": 1 << 16, "random bits": 8, "seed": 1, "formats": [WEIGHTS, MOMENTS]}
FIGURE = PaperFigure(
    "stationary_law", "exact law of stochastic rounding against simulation", True,
    {"quick": PARAMETERS, "full": PARAMETERS | {"lanes": 1 << 18}}, compute, draw, caption, claims, "a few seconds",
)  # fmt: skip
