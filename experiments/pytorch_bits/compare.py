"""fpsim's side, and the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.pytorch_bits.cases import SIZES, Case, gradients, start
from experiments.pytorch_bits.torch_side import TorchSide
from fpsim.optim.pytorch import STATES, plan_of, simulate, tail_of
from fpsim.precision import Precision

Arrays = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Verdict:
    """What was compared: ``mismatches`` of ``bits`` values (an element of an array after a step) differ.

    first : the first mismatch in words, or ""
    """

    case: Case
    values: int
    mismatches: int
    first: str


def equal(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where two arrays have the same bits. All NaNs are one: PyTorch's have no defined sign or payload.

    Examples
    --------
    >>> equal(np.array([0.0, np.nan]), np.array([-0.0, np.nan])).tolist()
    [False, True]
    """
    same: npt.NDArray[np.bool_] = ((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))
    return same


def compared(case: Case, side: TorchSide, steps: int) -> Verdict:
    """Run a case here and there."""
    theirs = side.bits(case, steps)
    ours = simulated(case, steps, side.facts)
    if sorted(ours) != sorted(theirs):
        raise AssertionError(f"{case}: PyTorch has {sorted(theirs)}, fpsim {sorted(ours)}")
    values = mismatches = 0
    first = ""
    for name, x in theirs.items():
        y = ours[name]
        same = equal(x, y)
        values, mismatches = values + same.size, mismatches + int((~same).sum())
        if not same.all() and not first:
            step, element = (int(i) for i in np.argwhere(~same)[0])
            first = (
                f"{name}, step {step + 1}, element {element}: PyTorch {float(x[step, element]).hex()}, "
                f"fpsim {float(y[step, element]).hex()}"
            )
    return Verdict(case, values, mismatches, first)


def simulated(case: Case, steps: int, facts: dict[str, Any]) -> Arrays:
    """What fpsim computes: name in PyTorch -> ``[steps, sum(SIZES)]``; for ``fused`` the bits of ``single``."""
    import torch

    arguments = {name: x for name, x in case.arguments.items() if name != "fused"}
    optimizer = getattr(torch.optim, case.optimizer)([torch.zeros(1)], **arguments)
    elements = sum(SIZES)
    tail = np.concatenate([tail_of(n, case.dtype) for n in SIZES])
    names = {"param": "w", **STATES[case.optimizer]}
    found: Arrays = {}
    w, g = start(case.dtype), gradients(case.dtype, steps)
    plans = [
        plan_of(optimizer, dtype=case.dtype, capability=facts["capability"], root=facts["root"], tail=where)
        for where in (False, True)
    ]
    places = [~tail, tail]
    if plans[0] == plans[1]:
        plans, places = plans[:1], [np.ones(elements, dtype=np.bool_)]
    for plan, own in zip(plans, places, strict=True):
        state = {name: np.zeros(int(own.sum())) for name in plan[-1].state}
        state["w"] = _single(w[own])
        if "mu_product" in state:
            state["mu_product"] = np.ones(())
        if case.optimizer == "Adagrad":
            state["v"] += optimizer.param_groups[0]["initial_accumulator_value"]
        kept = {theirs: name for theirs, name in names.items() if name in state}
        inputs = {"g": _single(g[:, own, np.newaxis])}
        precision = Precision.torch(case.dtype)
        rows = simulate(plan, state, inputs, precision, steps=steps, record=tuple(kept.values())).records
        for theirs, name in kept.items():
            found.setdefault(theirs, np.empty((steps, elements)))[:, own] = rows[name][..., 0].reshape(steps, -1)
    return found


def _single(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Binary64 by way of binary32, as PyTorch casts it to a 16-bit type."""
    return x.astype(np.float32).astype(np.float64)
