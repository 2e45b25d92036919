"""Where rounding to nearest stops training: second moments that cannot decay (T14), weights that cannot move (T16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fpsim
from fpsim.number_format import Format
from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.precision import Precision
from paper_figures import style
from paper_figures.figure import Data, PaperFigure, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

NAMED = {2: "E5M2", 3: "E4M3", 7: "bfloat16", 10: "binary16"}
EXPONENT_BITS = 8


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    bits = list(range(1, parameters["bits"] + 1))
    first, last, each = parameters["octaves"][0], parameters["octaves"][1], parameters["per octave"]
    # the middles of columns of 1/each octave; none of them makes a tie
    shares = 2.0 ** -((np.arange(first * each, last * each) + 0.5) / each)
    found: dict[str, list[list[float]]] = {x: [] for x in ("v", "v theory", "w", "w theory")}
    for done, m in enumerate(bits):
        fmt = Format(EXPONENT_BITS, m)
        numbers = 1.0 + np.unique(np.linspace(0, 2**m - 1, parameters["numbers"]).astype(np.int64)) * 2.0**-m
        for name, made in (("v", _second_moments), ("w", _weights)):
            simulated, theory = made(fmt, numbers, shares, parameters["steps"])
            found[name].append(simulated.mean(axis=0).tolist())
            found[f"{name} theory"].append(theory.mean(axis=0).tolist())
        report((done + 1) / len(bits))
    return {"bits": bits, "shares": shares.tolist(), "steps": parameters["steps"], **found}


def _second_moments(fmt: Format, v: Any, lost: Any, steps: int) -> tuple[Any, Any]:
    """[numbers, shares] which v are what they were after so many steps without a gradient, simulated and by T14."""
    from theory.theorems.t14_frozen_decay import frozen

    precision = Precision.uniform("binary64").replace(dict.fromkeys(("v", "v.decay", "v.add"), fmt))
    start = np.repeat(v[:, None], len(lost), axis=1)
    zeros = np.zeros_like(start)
    program = rmsprop.bind(beta2=1.0 - lost, eps=0.5)
    end = fpsim.run(program, {"w": zeros, "v": start}, {"g": zeros}, precision, steps=steps).state["v"]
    theory = np.stack([frozen(v, float(x), fmt, "nearest_even") for x in 1.0 - lost], axis=1)
    return end == start, theory


def _weights(fmt: Format, w: Any, ratio: Any, steps: int) -> tuple[Any, Any]:
    """[numbers, shares] which weights Adam's steady steps of lr = ratio |w| leave, simulated and by T16."""
    from theory.rounding_model import gap_toward

    precision = Precision.uniform("binary64").replace({"w": fmt, "w.sub": fmt})
    start = np.repeat(w[:, None], len(ratio), axis=1)
    lr = (start * ratio).ravel()  # one weight a run, each with its own step size
    state = {"w": start.reshape(1, -1), "m": np.zeros((1, lr.size)), "v": np.zeros((1, lr.size))}
    program, g = adam.bind(lr=lr, eps=0.0), np.ones((1, lr.size))
    stays = np.ones(start.shape, dtype=np.bool_)
    for sign in (1.0, -1.0):
        end = fpsim.run(program, state, {"g": sign * g}, precision, steps=steps).state["w"]
        stays &= end.reshape(start.shape) == start
    gaps = [gap_toward(w, np.full_like(w, side), fmt) for side in (1.0, -1.0)]
    return stays, start * ratio < np.minimum(*gaps)[:, None] / 2


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 2.6)
    decay, weights = figure.subplots(1, 2, sharey=True)
    mesh = _panel(decay, data, "v", r"$u/(1+2u)$", "all decay")
    decay.set_xlabel(r"$1-\beta_2$")
    decay.set_ylabel("mantissa bits of $v$ or $w$")
    decay.set_title("second moments, no gradient")
    decay.axvline(1e-3, color="white", linewidth=0.6, linestyle=":")
    decay.text(1e-3, data["bits"][0], r"$\beta_2 = 0.999$", color="white", rotation=90, ha="right", fontsize="small")
    _panel(weights, data, "w", "$u$", "all move")
    weights.set_xlabel(r"$\mathrm{lr}/|w|$")
    weights.set_title("weights, Adam's steady steps")
    decay.set_yticks([1, *NAMED], ["1", *(f"{name}  {m}" for m, name in NAMED.items())])
    bar = figure.colorbar(mesh, ax=[decay, weights], fraction=0.03, pad=0.02, ticks=[0, 0.5, 1])
    bar.set_label("share frozen")
    bar.outline.set_visible(False)
    return figure


def _panel(axes: Axes, data: Data, name: str, free: str, moving: str) -> Any:
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    shares, bits = np.array(data["shares"])[::-1], np.array(data["bits"])
    half = np.sqrt(shares[1] / shares[0])
    colours = ListedColormap(mpl.colormaps["Blues"](np.linspace(0.0, 0.85, 256)))
    mesh = axes.pcolormesh(np.append(shares / half, shares[-1] * half), np.append(bits, bits[-1] + 1) - 0.5,
                           np.array(data[name])[:, ::-1], cmap=colours, vmin=0.0, vmax=1.0)  # fmt: skip
    axes.set_xscale("log", base=2)
    ends = np.array([bits[0] - 0.5, bits[-1] + 0.5])
    for place, lines, text, shift, colour, side in (
        (0.72, "-", "$u/2$", -4, "white", "right"), (0.42, "--", free, 4, "black", "left")
    ):  # fmt: skip
        at = ends[0] + place * (ends[1] - ends[0])
        axes.plot(_line(name, ends, lines), ends, linestyle=lines, color=style.ORANGE if lines == "-" else style.BLACK)
        axes.annotate(text, (_line(name, at, lines), at), (shift, 0), textcoords="offset points", color=colour,
                      ha=side, va="center")  # fmt: skip
    axes.text(0.16, 0.3, "all\nfrozen", color="white", ha="center", va="center", transform=axes.transAxes)
    axes.text(0.8, 0.8, moving, ha="center", va="center", transform=axes.transAxes)
    axes.set_xlim(shares[0] / half, shares[-1] * half)
    axes.set_ylim(*ends)
    return mesh


def _line(name: str, bits: Any, lines: str) -> Any:
    """Up to the solid line all is frozen, from the dashed one on nothing."""
    u = 2.0 ** -(bits + 1.0)
    return u / 2 if lines == "-" else u / (1 + 2 * u) if name == "v" else u


def _agree(data: Data, name: str) -> bool:
    return bool(np.array_equal(data[name], data[f"{name} theory"]))


def _regimes(data: Data, name: str) -> tuple[bool, bool]:
    """Whether all is frozen left of the solid line, and nothing right of the dashed one."""
    found, shares = np.array(data[name]), np.array(data["shares"])
    stuck, free = (_line(name, np.array(data["bits"])[:, None], lines) for lines in ("-", "--"))
    return bool(np.all(found[shares < stuck] == 1)), bool(np.all(found[shares > free] == 0))


def caption(data: Data) -> str:
    count, edge = len(data["bits"]) * len(data["shares"]), 2.0**-9
    partly = [int(np.sum((np.array(data[name]) > 0) & (np.array(data[name]) < 1))) for name in ("v", "w")]
    return (
        f"Rounding to nearest freezes. Shade: share of the numbers of a binade that are what they were after "
        f"{data['steps']} bit-exact steps. Left: second moments without a gradient; below $1-\\beta_2 = u/2$ (solid, "
        f"$u = 2^{{-p}}$) none decays, from $u/(1+2u)$ on (dashed) all do (T14). Right: weights under Adam's steps of "
        f"length lr; below $\\mathrm{{lr}}/|w| = u/2$ none moves, from $u$ on all do (T16). Theory and simulation "
        f"agree in all {2 * count} points; in {partly[0]} on the left and {partly[1]} on the right a part is frozen. "
        f"In bfloat16 $\\beta_2 = 0.999$ lies at {1e-3 / edge:.2g} times the solid line: no $v$ decays; and a step of "
        f"0.001 is lost on every $|w| > {1e-3 / edge:.2g}$."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = []
    for name, theorem in (("v", "T14"), ("w", "T16")):
        stuck, free = _regimes(data, name)
        found += [
            (f"{theorem} gives the share of frozen {name} in every point", _agree(data, name)),
            (f"every {name} is frozen left of the solid line", stuck),
            (f"no {name} is frozen right of the dashed line", free),
        ]
    return found


PARAMETERS = {"bits": 12, "octaves": [1, 15], "per octave": 3, "numbers": 64, "steps": 50}
FIGURE = PaperFigure(
    "freeze_maps", "what rounding to nearest freezes: second moments and weights", True,
    {"quick": PARAMETERS, "full": PARAMETERS}, compute, draw, caption, claims, "the same",
)  # fmt: skip
