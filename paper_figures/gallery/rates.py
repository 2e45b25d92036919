"""Convergence with precision that grows with the run: which c in 1 + c log2 T mantissa bits keeps the rate T^-1/4."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paper_figures import style
from paper_figures.figure import Data, PaperFigure, Report
from paper_figures.studies import FLOOR, rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

OPTIMIZERS = {"sgd": "SGD", "rmsprop": "RMSprop"}
MODES = {"nearest_even": "to nearest", "stochastic": "stochastic"}
SHARES = ("0", "1/4", "1/2", "3/4")
WIDE = 52
CLOSE = 2.2
LOOKS = dict(
    zip(SHARES, ((style.PURPLE, "v"), (style.VERMILLION, "s"), (style.BLUE, "o"), (style.GREEN, "^")), strict=True)
)
COLUMNS = ("optimizer", "rounding", "mantissa_bits", "steps", *FLOOR)
SETTING = {
    "sgd": {"lr": "1/sqrt(T)"},
    "rmsprop": {"lr": "0.25/sqrt(T)", "beta2": "1 - 1/sqrt(T)"},
}


def bits(share: str, steps: int) -> int:
    """1 + ceil(c log2 T), of a T that is a power of two."""
    return 1 + math.ceil(Fraction(share) * (steps.bit_length() - 1))


def compute(parameters: Mapping[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    steps = [2**k for k in parameters["log2_steps"]]
    widths = [1 if share == "0" else f"ceil(1 + {share} * log2(T))" for share in SHARES]
    common = {
        "problem": "quadratic", "options": {"condition": 4}, "dimension": 8, "noise": "gaussian", "sigma": 0.1,
        "window": 0.5, "rounding": list(MODES), "seeds": parameters["seeds"], "mantissa": [*widths, WIDE],
    }  # fmt: skip
    studies = {
        f"{optimizer}_{number}": common | SETTING[optimizer] | {"optimizer": optimizer, "steps": number}
        for optimizer in OPTIMIZERS
        for number in steps
    }
    return {"rows": rows(studies, folder, report, COLUMNS), "steps": steps, "seeds": parameters["seeds"]}


def draw(data: Data, journal: Journal) -> Figure:
    figure = style.canvas(journal.width(True), 3.4)
    panels = figure.subplots(len(MODES), len(OPTIMIZERS), sharex=True, sharey=True, squeeze=False)
    for i, mode in enumerate(MODES):
        for j, optimizer in enumerate(OPTIMIZERS):
            _panel(panels[i, j], data, optimizer, mode)
        panels[i, 0].set_ylabel(MODES[mode])
    for j, label in enumerate(OPTIMIZERS.values()):
        panels[0, j].set_title(label)
    first, last = data["steps"][0], data["steps"][-1]
    panels[0, 0].set_xlim(first / 1.5, last * (last / first) ** 0.24)
    panels[0, 0].set_xticks(data["steps"])
    panels[0, 0].set_ylim(top=1.6 * panels[0, 0].get_ylim()[1])
    figure.supxlabel("number of steps $T$")
    figure.supylabel("gradient norm over the second half")
    return figure


def _panel(axes: Axes, data: Data, optimizer: str, mode: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.tick_params(which="minor", length=0)
    axes.grid(True)
    axes.spines[["top", "right"]].set_visible(False)
    steps = data["steps"]
    wide = [_row(data, optimizer, mode, WIDE, number)["rms_gradient"] for number in steps]
    axes.plot(steps, wide, color="0.75", linewidth=3.5, solid_capstyle="round", zorder=1)
    ends = []
    for share, (colour, marker) in LOOKS.items():
        line = [_row(data, optimizer, mode, bits(share, number), number) for number in steps]
        low, high = ([row[f"rms_gradient_{end}"] for row in line] for end in ("low", "high"))
        axes.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(steps, [row["rms_gradient"] for row in line], color=colour, marker=marker, zorder=3)
        ends.append((share, line[-1]["rms_gradient"]))
    guide = [0.45 * wide[0] * (number / steps[0]) ** -0.25 for number in steps]
    axes.plot(steps, guide, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)))
    axes.annotate("$T^{-1/4}$", (steps[1], guide[1]), xytext=(0, -2), textcoords="offset points", ha="right", va="top",
                  color="0.3", fontsize="small")  # fmt: skip
    ends.sort(key=lambda end: -end[1])
    values = [math.inf, *(value for _, value in ends), 0.0]
    for i, (share, value) in enumerate(ends):  # names of ends that lie close stand above and below each other
        up, down = value < CLOSE * values[i + 2], CLOSE * value > values[i]
        axes.annotate(f"$c={share}$", (steps[-1], value), xytext=(5, 4.5 * (up - down)), textcoords="offset points",
                      va="center", color=LOOKS[share][0], fontsize="small")  # fmt: skip


def _row(data: Data, optimizer: str, mode: str, width: int, steps: int) -> Mapping[str, Any]:
    wanted = {"optimizer": optimizer, "rounding": mode, "mantissa_bits": width, "steps": steps}
    found: Mapping[str, Any] = next(row for row in data["rows"] if all(row[k] == x for k, x in wanted.items()))
    return found


def _norm(data: Data, optimizer: str, mode: str, share: str | None, steps: int) -> float:
    """The norm with 1 + c log2 T bits, or of binary64's width."""
    width = WIDE if share is None else bits(share, steps)
    return float(_row(data, optimizer, mode, width, steps)["rms_gradient"])


def _exponent(data: Data, optimizer: str, mode: str, share: str | None) -> float:
    """The slope between the smallest and the largest T."""
    first, last = data["steps"][0], data["steps"][-1]
    fall = _norm(data, optimizer, mode, share, last) / _norm(data, optimizer, mode, share, first)
    return math.log(fall) / math.log(last / first)


def _excess(data: Data, share: str, mode: str) -> float:
    """Largest norm over that of 52 bits, at the largest T."""
    last = data["steps"][-1]
    return max(_norm(data, o, mode, share, last) / _norm(data, o, mode, None, last) for o in OPTIMIZERS)


def caption(data: Data) -> str:
    def exponents(mode: str, share: str | None) -> str:
        return " and ".join(f"{_exponent(data, optimizer, mode, share):.2f}" for optimizer in OPTIMIZERS)

    last = data["steps"][-1]
    return (
        r"How precision has to grow with the length $T$ of a run: $\lceil 1 + c \log_2 T\rceil$ stored mantissa bits "
        f"(here up to {bits('3/4', last)}), steps of $T^{{-1/2}}$ times a constant, for RMSprop "
        r"$1 - \beta_2 = T^{-1/2}$, Gaussian gradient noise, every operation rounded. Grey: 52 bits; bands: 95 % "
        f"confidence over {data['seeds']} seeds. Exponents of $T$, fitted to the ends, for SGD and RMSprop: "
        f"52 bits {exponents('stochastic', None)}; $c = 1/2$ to nearest {exponents('nearest_even', '1/2')}, stochastic "
        f"{exponents('stochastic', '1/2')}; $c = 1/4$ to nearest {exponents('nearest_even', '1/4')}, stochastic "
        f"{exponents('stochastic', '1/4')}. So $c = 1/2$ suffices for the rate, at the cost of a constant factor (at "
        f"most {max(_excess(data, '1/2', mode) for mode in MODES):.1f} at $T = 2^{{{last.bit_length() - 1}}}$), and "
        f"$c = 3/4$ costs less than {math.ceil(100 * (max(_excess(data, '3/4', m) for m in MODES) - 1)) or 1} %. With "
        r"$c = 1/4$ round to nearest does not converge, and stochastic rounding does at about half the exponent. T27 "
        "proves for RMSprop that $c = 1/2$ suffices for stochastically rounded weights and 3/4 for weights to nearest; "
        "under noise the latter do better."
    )


def claims(data: Data) -> Sequence[tuple[str, bool]]:
    found = []
    for optimizer, label in OPTIMIZERS.items():
        for mode, name in MODES.items():
            exponent = {share: _exponent(data, optimizer, mode, share) for share in (*SHARES, None)}
            found += [
                (f"{label}, {name}: 52 bits have the rate", -0.30 < exponent[None] < -0.20),
                (f"{label}, {name}: c = 1/2 and 3/4 keep it", max(exponent["1/2"], exponent["3/4"]) < -0.20),
                (f"{label}, {name}: c = 1/4 and 0 do not", min(exponent["1/4"], exponent["0"]) > -0.20),
            ]
        found.append(
            (
                f"{label}: to nearest with c = 1/4 does not converge",
                _exponent(data, optimizer, "nearest_even", "1/4") >= 0,
            )
        )
        half = -0.16 < _exponent(data, optimizer, "stochastic", "1/4") < -0.09
        found.append((f"{label}: stochastic with c = 1/4 has about half the exponent", half))
    for mode, name in MODES.items():
        found.append((f"{name}: c = 3/4 is within 10 % of 52 bits", _excess(data, "3/4", mode) < 1.1))
    return found


# The first and the last exponent are multiples of 4: there the widths are not rounded up, which would bend the slopes.
FIGURE = PaperFigure(
    "rates", "convergence against T with c log2 T mantissa bits", True,
    {"quick": {"log2_steps": [8, 10, 12, 14, 16], "seeds": 8},
     "full": {"log2_steps": [8, 10, 12, 14, 16], "seeds": 16}},
    compute, draw, caption, claims, "about a minute of CPU time (extrapolated: twice as many seeds)",
)  # fmt: skip
