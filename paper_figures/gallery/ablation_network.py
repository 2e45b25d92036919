"""Adam and Muon on a network of four layers with one array rounded: which of them needs its mantissa?

The companion of ``ablation_rosenbrock`` where gradients are those of minibatches. Data: the digits of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import network_settings
from experiments.study import Study, StudyError
from paper_figures import ablation, style
from paper_figures.figure import Data, PaperFigure, Report
from paper_figures.results import MissingResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

# Muon's v is that of Adam, which has the biases: not part of the comparison.
ARRAYS = {"adam": "wgmv", "muon_polar": "wgm"}
TITLES = {"adam": "Adam", "muon_polar": "Muon"}
COMPONENTS = {"w": "weights", "g": "gradients", "m": "m", "v": "v"}
SCHEDULE = "*(1-(t-1)/T)**2"
MEASURES = ("rms_gradient", "loss")
WIDE = 23
WINDOW = 0.1
SHOWN = 2  # bits of the courses
ONE = {"norm": 1.0, "low": 1.0, "high": 1.0}  # binary32 over itself
NORM = r"$\Vert\nabla F\Vert$"


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    try:
        network_settings.options("mlp-digits")
    except StudyError as error:  # there is no torch
        raise MissingResults(f"{FIGURE.name} cannot be computed: {error}") from error
    found: dict[str, Any] = {name: parameters[name] for name in ("width", "batch", "steps", "seeds", "bits")}
    found["runs"] = {}
    bits = parameters["bits"]
    for i, (optimizer, arrays) in enumerate(ARRAYS.items()):
        nearest = _run(parameters, optimizer, "w", "nearest_even", [*bits, WIDE], folder)
        report((2 * i + 1) / 4)
        drawn = _run(parameters, optimizer, arrays, "stochastic", bits, folder)
        report((2 * i + 2) / 4)
        wide = nearest.pop()
        about = [{"array": "w", "bits": b} for b in bits], [{"array": a, "bits": b} for a in arrays for b in bits]
        run: dict[str, Any] = {"steps": wide["trace_step"], "wide": ablation.cells_of([wide], [{}])[0]}
        run["stochastic"] = ablation.cells_of(drawn, about[1])
        for what in MEASURES:
            pairs = zip((nearest, drawn), about, strict=True)
            ratios = (
                ablation.cells_of([_against(row, wide, what) for row in rows], more, what) for rows, more in pairs
            )
            run[what] = dict(zip(("nearest", "stochastic"), ratios, strict=True))
        found["runs"][optimizer] = run
    return found


def _against(row: Mapping[str, Any], wide: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The row with ratios, seed by seed, to the run that differs in nothing but the format."""
    pairs = zip(row[f"seed_{what}"], wide[f"seed_{what}"], strict=True)
    return {**row, f"seed_{what}": [None if x is None or y is None else x / y for x, y in pairs]}


def _run(
    parameters: Mapping[str, Any], optimizer: str, arrays: str, rounding: str, bits: Sequence[int], folder: Path
) -> list[dict[str, Any]]:
    study = Study(
        optimizer=optimizer,
        problem="mlp-digits",
        options={
            "width": parameters["width"],
            "components": [COMPONENTS[array] for array in arrays],
            "evaluation": parameters["evaluation"],
            **({"vector_lr": parameters["vector_lr"]} if optimizer != "adam" else {}),
        },
        mantissa=list(bits),
        rounding=rounding,
        steps=parameters["steps"],
        batch=parameters["batch"],
        seeds=parameters["seeds"],
        window=WINDOW,
        lr=parameters["lr"][optimizer] + SCHEDULE,
    )
    return study.run(out=folder / f"{optimizer}_{rounding}").to_dicts()


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 4.1)
    panels = figure.subplots(2, 3)
    for i, (optimizer, run) in enumerate(data["runs"].items()):
        shown = [cell for cell in run["stochastic"] if cell["bits"] == SHOWN]
        ablation.course(panels[i, 0], run["steps"], run["wide"], shown)
        for axes, what in zip(panels[i, 1:], MEASURES, strict=True):
            ablation.against_bits(axes, ONE, run[what]["stochastic"])
            weights = run[what]["nearest"]
            ablation.band(axes, [cell["bits"] for cell in weights], weights, ablation.ARRAYS["w"], True)
            axes.set_xticks(data["bits"])
        panels[i, 0].set_ylabel(f"{TITLES[optimizer]}: " + NORM)
        titles = (f"$M = {SHOWN}$", f"{NORM} / binary32", "loss / binary32")
        for axes, letter, title in zip(panels[i], "abcdef"[3 * i :], titles, strict=False):
            axes.set_title(f"({letter}) {title}", loc="left", fontsize="medium")
            ablation.few_decades(axes)
    entries = ablation.handles("wgmv", "binary32", "to nearest")
    figure.legend(handles=entries, loc="outside lower center", ncols=3, columnspacing=1.2, handlelength=2.4)
    return figure


def _losses(data: Data, rounding: str, optimizer: str, most: int = WIDE) -> list[float]:
    """Median ratios of the loss to that in binary32, of 2 to ``most`` bits."""
    cells = data["runs"][optimizer]["loss"][rounding]
    return [ablation.ratio(cell, ONE) for cell in cells if 2 <= cell["bits"] <= most]


def caption(data: Data) -> str:
    number = ablation.number
    drawn = [x for optimizer in ARRAYS for x in _losses(data, "stochastic", optimizer)]
    stuck = [_losses(data, "nearest", optimizer, 2)[0] for optimizer in ARRAYS]
    widths = f"64-{data['width']}-{data['width']}-{data['width']}-10"
    return (
        f"Which array needs its mantissa? Adam (top) and Muon (bottom, exact polar factor; Adam has the biases) on the "
        f"digits, a {widths} network, {data['steps']} steps with minibatches of {data['batch']}; one array is stored "
        "with $M$ mantissa bits and 8 of the exponent, all else is binary32. Filled marks: rounded stochastically, "
        "hollow: weights rounded to nearest. Norm and loss are those of samples that are not learnt from. (a, d) "
        f"Gradient norm (root mean square over seeds) against steps, $M = {SHOWN}$. (b, e) Its root mean square in the "
        f"last {100 * WINDOW:g} % of the steps, (c, f) the mean loss there, both over those of the same seed in "
        f"binary32: {ablation.confidence(data['seeds'])}. Behind the noise of minibatches stochastic rounding is not "
        f"seen: with 2 bits or more in any one array the loss is {number(min(drawn))} to {number(max(drawn))} times "
        f"that of binary32. Weights of 2 bits rounded to nearest cannot follow: {number(stuck[0])} times with Adam, "
        f"{number(stuck[1])} with Muon."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = []
    for optimizer, title in TITLES.items():
        drawn = max(_losses(data, "stochastic", optimizer))
        found.append((f"{title}: drawn stochastically no array of 2 bits or more doubles the loss", drawn < 2))
        stuck = _losses(data, "nearest", optimizer, 2)
        found.append((f"{title}: weights of 2 bits to nearest double it", len(stuck) == 1 and stuck[0] > 2))
    return found


_COMMON = {"batch": 128, "evaluation": 512}
_QUICK = {"width": 32, "steps": 80, "seeds": 4, "bits": [2, 4, 7], "lr": {"adam": "2**-6", "muon_polar": "2**-4"}}
_QUICK |= {"vector_lr": 2.0**-6}
_FULL = {"width": 256, "steps": 1000, "seeds": 6, "bits": [1, 2, 4, 7, 10]}
_FULL |= {"lr": {"adam": "2**-8", "muon_polar": "2**-6"}, "vector_lr": 2.0**-10}
FIGURE = PaperFigure(
    "ablation_network", "one array of Adam or Muon rounded, network of four layers", True,
    {"quick": _QUICK | _COMMON, "full": _FULL | _COMMON}, compute, draw, caption, claims,
    "about 2 hours of one core (from single cells: 11 s a seed for Adam, 37 s for Muon)",
)  # fmt: skip
