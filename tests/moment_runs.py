"""Runs that hold one moment of an optimizer, in one format but for its scalars, and how a bound fares on them."""

from __future__ import annotations

import itertools

import numpy as np
from history_windows import recorded
from sequences import adversarial_gradients, random_gradients

from fpsim.formats import format
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.tracing import Value, fma, slot, step
from theory.chain import stored_scalars
from theory.theorem import Theorem
from theory.verdict import Verdict, verdict
from theory.window import Window

FORMATS = ["float8_e4m3fn", "float8_e5m2", "binary16", "bfloat16", "tf32", "binary32"]
POWER = {"beta1": 1, "beta2": 2}  # of the gradient in the moment that it decays


def window(program: Program, name: str, g: np.ndarray, mode: object = "nearest_even", **changes: object) -> Window:
    """The step with gradients g [n, d, S], from w = 1 and moments 0; ``changes``: slots stored otherwise."""
    precision = Precision.uniform(name, mode).replace({"scalar.*": ("binary32", "nearest_even"), **changes})
    start = {state: np.ones((1, 1)) if state == "w" else np.zeros((1, 1)) for state in program.state}
    return recorded(program, precision, start, g)


def judged(theorem: Theorem, found: Window) -> Verdict:
    """The verdict of a bound that has to apply and to hold."""
    bound = theorem.evaluate(found)
    assert bound.applicable, bound.reason
    result = verdict(theorem.measured(found), bound)
    assert result.status == "holds", result.reason
    return result


def adversarial(program: Program, beta: str, name: str, sign: float, steps: int = 120, seed: int = 0) -> np.ndarray:
    """Gradients of four coordinates that make the moment of ``beta`` err to one side."""
    scalars = stored_scalars(program, Precision.uniform("binary32"))
    b, c = scalars[f"scalar.{beta}"], scalars[f"scalar.one_minus_{beta}"]
    return adversarial_gradients(format(name), b, c, POWER[beta], sign, steps, 4, seed)


def grid_ratios(theorem: Theorem, program: Program, beta: str, name: str) -> dict[str, list[float]]:
    """The committed grid: per format, four decays, three random kinds and the two adversaries from two seeds."""
    found: dict[str, list[float]] = {"random": [], "adversarial": []}
    for decay in (0.5, 0.8, 0.9, 0.95):
        bound = program.bind(**{beta: decay})
        for kind in ("normal", "constant", "lognormal"):
            g = random_gradients(kind, 120, 4, 2)
            found["random"].append(judged(theorem, window(bound, name, g)).ratio)
        for sign, seed in itertools.product((1.0, -1.0), range(2)):
            g = adversarial(bound, beta, name, sign, seed=seed)
            found["adversarial"].append(judged(theorem, window(bound, name, g)).ratio)
    return found


@step
def fused(v: Value, g: Value, *, beta2: float = 0.9) -> dict[str, Value]:
    square = slot("square", g * g)
    return {"v": slot("sum", fma(v, beta2, slot("inject", (1 - beta2) * square)))}


@step
def reordered(v: Value, g: Value, *, beta2: float = 0.9) -> dict[str, Value]:
    scaled = slot("scaled", (1 - beta2) * g)
    return {"v": slot("sum", slot("share", scaled * g) + slot("decay", beta2 * v))}
