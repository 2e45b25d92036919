"""Random cells: formats, modes, optimizers, problems, noise, hyperparameters and given gradients.

Half of the batches are tame: settings as studies have them, so that hypotheses hold and theorems speak. The others take
every corner, schedules, mixed formats and absurd values included.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from experiments.cell import Cell
from experiments.defaults import NOISELESS
from experiments.fields import StudyError
from experiments.overrides import uses_study_bits
from experiments.problems import PROBLEMS
from experiments.problems.sequence import KINDS
from experiments.registry import check_step
from fpsim.optim import STEPS
from theory.theorems import theorems

BLOCKS = 6  # cells of a batch: they differ in format and in the values of hyperparameters

# Widths of the cell, and the name of a format that lays itself over every slot.
FORMATS: dict[tuple[int, int, str], float] = {
    (4, 3, "float8_e4m3fn"): 0.12,
    (5, 2, ""): 0.1,
    (5, 10, ""): 0.15,
    (8, 7, ""): 0.2,
    (8, 10, ""): 0.1,
    (8, 23, ""): 0.13,
}
OTHERS = ("float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e3m4", "float6_e3m2fn", "p3109_k8p3se", "p3109_k8p4sf")
WILD = 0.5
DIMENSIONS = {1: 0.2, 2: 0.2, 3: 0.1, 4: 0.2, 6: 0.1, 8: 0.15, 16: 0.05}
STEPS_DONE = {64: 0.35, 128: 0.3, 256: 0.2, 640: 0.1, 1920: 0.05}
TAME_STEPS = {128: 0.2, 256: 0.4, 640: 0.3, 1920: 0.1}
TAME_MODES = {"nearest_even": 0.45, "stochastic": 0.55}
NEAREST_OR_RANDOM = {
    "nearest_even": 0.3, "stochastic": 0.42, "nearest_away": 0.06, "toward_zero": 0.06, "up": 0.05, "down": 0.06,
    "to_odd": 0.05,
}  # fmt: skip
RANDOM_BITS = {2: 0.05, 4: 0.1, 8: 0.2, 16: 0.4, 32: 0.25}
# Of exp and its kin: with p + n > 52 each value is computed in ball arithmetic, 1000 times as long.
FEW_BITS = 16
# Of some slots, another rounding or format than all others have.
MIXED: dict[tuple[tuple[str, str, str], ...], float] = {
    (): 0.72,
    (("w*", "", "stochastic"),): 0.08,
    (("w*", "binary32", "nearest_even"),): 0.06,
    (("update.*", "", "stochastic8"),): 0.04,
    (("g", "float8_e5m2", ""),): 0.04,
    (("w*", "", "nearest_even"),): 0.06,
}
SLOWER = {"rosenbrock": 2.0**-12, "logistic": 0.25}  # smoothness is about one over this
SCHEDULES = ("0.1/sqrt(t)", "0.25/t", "0.0625*(1-(t-1)/T)+0.001")


def batch(seed: int, number: int, seeds: int, attempt: int = 0) -> list[Cell]:
    """The cells of a batch, of one kin; a function of the numbers.

    Parameters
    ----------
    seed, number : of the hunt, and of the batch in it
    seeds : runs of each cell
    attempt : of drawing cells that can run
    """
    draw = np.random.default_rng([seed, number, attempt])
    optimizer = _pick(draw, optimizers())
    problem = _pick(draw, dict.fromkeys(PROBLEMS, 1.0) | {"quadratic": 2.0, "sequence": 2.0})
    wild = draw.random() < WILD
    shared = _problem(draw, problem, optimizer, wild)
    rounding = _pick(draw, NEAREST_OR_RANDOM if wild else TAME_MODES)
    mixed = _pick(draw, MIXED) if wild else ()
    bits = _pick(draw, RANDOM_BITS)
    if problem == "logistic" and shared["gradient"] == "rounded":
        bits = min(bits, FEW_BITS)
    roundings = tuple(("w.sub" if slot == "w*" and draw.random() < 0.5 else slot, f, r) for slot, f, r in mixed)
    shared |= {
        "optimizer": optimizer, "problem": problem, "rounding": rounding, "seeds": seeds,
        "seed": int(draw.integers(0, 1 << 62)), "random_bits": bits if uses_study_bits(rounding, roundings) else 0,
    }  # fmt: skip
    cells = []
    for _ in range(BLOCKS):
        exponent, mantissa, name = _format(draw)
        values = {h: _value(draw, h, given, problem, wild) for h, given in STEPS[optimizer].hyperparameters.items()}
        cell = Cell(
            exponent_bits=exponent, mantissa_bits=mantissa, overrides=roundings, hyperparameters=values, **shared
        )
        cells.append(in_format(cell, name) if name else cell)
    return cells


@functools.cache
def optimizers() -> dict[str, float]:
    """Name -> share of the steps that a study can run: those that a theorem is about count four times."""
    about = {name for theorem in theorems().values() for name in theorem.optimizers}
    found = {}
    for name, program in STEPS.items():
        try:
            check_step(name, program)
        except StudyError:
            continue
        found[name] = 1.0 if name in about else 0.25
    return found


def _problem(draw: np.random.Generator, problem: str, optimizer: str, wild: bool) -> dict[str, Any]:
    """Problem, noise and length of a run."""
    d = int(_pick(draw, DIMENSIONS))
    options: dict[str, float | int | str | bool] = {}
    if problem in ("quadratic", "rational", "dense_quadratic"):
        options = {
            "spectrum": _pick(draw, {"uniform": 0.4, "geometric": 0.3, "isotropic": 0.3}),
            "condition": float(_pick(draw, {1.0: 0.2, 4.0: 0.2, 10.0: 0.4, 1e3: 0.2 * wild})),
            "smoothness": float(2.0 ** draw.integers(-4, 5)) if wild else 1.0,
            "center": _pick(draw, {"thirds": 0.7, "grid": 0.2, "zero": 0.1 * wild}),
        }
        if d % 2 == 0 and draw.random() < 0.4:
            options["rows"] = 2 if d < 16 else 4
    elif problem == "rosenbrock":
        d, options = 2 * max(2, d // 2), {"rows": 2}
    elif problem == "sequence":
        kind = str(draw.choice(list(KINDS)))
        options = {
            "kind": kind,
            "scale": float(2.0 ** draw.integers(-6, 4)),
            "start": float(2.0 ** draw.integers(-6, 6)),
        }
        options["period"] = int(draw.choice([16, 64, 256]))
        if kind == "geometric" and draw.random() < 0.4:
            options["ratio"] = float(draw.choice([0.5, 0.8, 0.95, 1.1]))
    noises = {"none": 0.65, "gaussian": 0.35} if optimizer in NOISELESS else {"none": 0.35, "gaussian": 0.65}
    if problem == "logistic":
        noises["minibatch"] = 0.5
    noise = "none" if problem == "sequence" else _pick(draw, noises)
    inside = problem in ("quadratic", "rational") or (problem not in ("sequence",) and draw.random() < 0.15)
    return {
        "options": options,
        "noise": noise,
        "sigma": float(10.0 ** draw.uniform(-3, 1 if wild else 0)) if noise == "gaussian" else 0.0,
        "batch": int(draw.choice([1, 4, 16])) if noise == "minibatch" else 0,
        "gradient": "rounded" if inside and draw.random() < 0.7 else "exact",
        "dimension": d,
        "steps": int(_pick(draw, STEPS_DONE if wild or problem == "sequence" else TAME_STEPS)),
        "window": 1.0 if problem == "sequence" else float(_pick(draw, {1.0: 0.3 * wild, 0.5: 0.6, 0.25: 0.1})),
    }


def _format(draw: np.random.Generator) -> tuple[int, int, str]:
    left = draw.random()
    for (exponent, mantissa, name), share in FORMATS.items():
        left -= share
        if left < 0:
            return exponent, mantissa, name
    if left < 0.05:
        return 8, 7, str(draw.choice(OTHERS))
    return int(draw.integers(3, 9)), int(draw.integers(1, 24)), ""


def in_format(cell: Cell, name: str) -> Cell:
    """The cell with a named format in every slot but those that only define the problem; its own overrides stay."""
    step = STEPS[cell.optimizer]
    slots: tuple[str, ...] = ("*",)
    if cell.gradient == "rounded":
        slots = ("gradient.*", "scalar.*", *(slot for slot in step.slots if not slot.startswith("scalar.")))
    return msgspec.structs.replace(cell, overrides=(*((slot, name, "") for slot in slots), *cell.overrides))


def _value(draw: np.random.Generator, name: str, declared: Any, problem: str, wild: bool) -> float | str:
    """A hyperparameter: usual, unusual, now and then a schedule."""
    if name == "lr":
        if wild and draw.random() < 0.08:
            return str(draw.choice(SCHEDULES))
        if not wild:
            return float(2.0 ** draw.integers(-9, -1)) * SLOWER.get(problem, 1.0)
        power = float(2.0 ** draw.integers(-12, 1)) if draw.random() < 0.9 else float(2.0 ** draw.integers(-30, 5))
        return power * (1.0 if draw.random() < 0.7 else float(draw.uniform(0.5, 1.0))) * SLOWER.get(problem, 1.0)
    if name == "beta1":
        known = {0.0: 0.1, 0.5: 0.15, 0.9: 0.4, 0.95: 0.1, 0.99: 0.1, -1.0: 0.3 * wild}
    elif name == "beta2":
        known = {0.5: 0.07, 0.75: 0.08, 0.9: 0.15, 0.95: 0.1, 0.99: 0.25, 0.999: 0.2, 0.9999: 0.05, -1.0: 0.2 * wild}
    elif name == "weight_decay":
        return float(_pick(draw, {0.0: 0.2, 2.0**-7: 0.3, 0.1: 0.5}))
    elif name == "eps":
        return float(_pick(draw, {0.0: 0.2 * wild, 1e-8: 0.4, 2.0**-20: 0.2, 2.0**-10: 0.2, 0.05: 0.2 * wild}))
    else:
        return float(declared) if isinstance(declared, (int, float)) else str(declared)
    value = float(_pick(draw, known))
    return value if value >= 0 else float(draw.uniform(0.0, 0.9999))


def _pick(draw: np.random.Generator, shares: Mapping[Any, float]) -> Any:
    weights = np.array(list(shares.values()))
    return list(shares)[int(draw.choice(len(weights), p=weights / weights.sum()))]
