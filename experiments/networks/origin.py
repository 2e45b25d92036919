"""Where the first number that is not finite came from: a step run again, with an eye on every operation.

Emulated operations are watched at the arithmetic that computes them, and named by the module that was at work: a module
is entered and left in the forward pass, and in the backward pass the gradient of its result arrives. An operation whose
operands are finite comes first; one that passes infinities on, as attention does with those of its mask, counts only
where there is no other, and not if it did so in the step before. What the optimizer made is found by running its
program once more on the parameter with every operation recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from experiments.networks.optimizers import Group
from experiments.networks.training import OPTIMIZER, Run
from fpsim.nn.arithmetic import Fast
from fpsim.program import Program

Name = tuple[str, str, str]  # pass, module, operation
Found = tuple[Name, bool]  # and whether all that it read was finite


@dataclass(frozen=True)
class Origin:
    """Where a number that is not finite first appeared.

    Attributes
    ----------
    step : int, the step, counted from 0
    slot : such as ``forward network.3: matmul``, ``backward network.1: mul``, ``adam v.square of network.1.weight``
    """

    step: int
    slot: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.slot}"


class _Watch(Fast):
    """An arithmetic that computes by another one and notes who gave numbers that are not finite."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.where = ("forward", "")
        self.found: list[Found] = []

    def _noted(self, operation: str, y: torch.Tensor, *read: torch.Tensor) -> torch.Tensor:
        if not _finite(y):
            self.found.append(((*self.where, operation), all(map(_finite, read))))
        return y

    def operation(self, kind: str, operands: Any, *how: Any) -> torch.Tensor:
        return self._noted(kind, self.inner.operation(kind, operands, *how), *operands)

    def matmul(self, a: torch.Tensor, b: torch.Tensor, *how: Any) -> torch.Tensor:
        return self._noted("matmul", self.inner.matmul(a, b, *how), a, b)

    def sum(self, x: torch.Tensor, *how: Any) -> torch.Tensor:
        return self._noted("sum", self.inner.sum(x, *how), x)

    def operand(self, x: torch.Tensor, *how: Any) -> tuple[torch.Tensor, int]:
        y, power = self.inner.operand(x, *how)
        return self._noted("operand of a product", y, x), power

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def find(run: Run, state: dict[str, Any]) -> Origin:
    """The origin, from a state whose numbers are finite and after which, in some step, one is not.

    Parameters
    ----------
    run : used for the search; its own state is lost
    state : as ``Run.state`` gives it
    """
    run.load(state)
    before = last = run.state()
    while run.finite(states=True):
        last, before = before, run.state()
        run.advance()
    usual: set[Name] = set()
    if last["step"] < before["step"]:
        run.load(last)
        usual = {name for name, _ in _watched(run)[1]}
    run.load(before)
    return Origin(before["step"], _slot(run, usual))


def _slot(run: Run, usual: set[Name]) -> str:
    """What first gave such a number in the next step of ``run``."""
    loss, found = _watched(run)
    if not (math.isfinite(loss) and all(p.grad is None or _finite(p.grad) for p in run.parameters.values())):
        news = [name for name, born in found if born] or [name for name, _ in found if name not in usual]
        if news:
            way, module, operation = news[0]
            return f"{way} {module}: {operation}" if module else f"{way}: {operation}"
    for name, parameter in run.parameters.items():
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"gradient of {name}"
    for number, group in enumerate(run.groups):
        held = {name: (p.detach().clone(), group.arrays(p)) for name, p in group.parameters.items()}
        states = {name: {array: x.clone() for array, x in arrays.items()} for name, (_, arrays) in held.items()}
        group.step(run.step, run.scaler)
        for index, (name, parameter) in enumerate(group.parameters.items()):
            bad = [
                a for a, x in {**group.arrays(parameter), "w": parameter}.items() if not bool(torch.isfinite(x).all())
            ]
            if bad:
                exact = _operation(run, group, number, index, parameter, held[name][0], states[name])
                return f"{group.spec.name} {exact or bad[0]} of {name}"
    return "loss"


def _finite(x: torch.Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def _watched(run: Run) -> tuple[float, list[Found]]:
    """Forward and backward pass of the next step: the loss, and the operations whose results are not all finite."""
    if run.module is run.plain:
        return run.gradients(), []
    emulation = run.module.emulation
    watch = _Watch(emulation.arithmetic)
    emulation.arithmetic = watch
    try:
        with _located(run.plain, watch):
            return run.gradients(), watch.found
    finally:
        emulation.arithmetic = watch.inner


@contextmanager
def _located(module: torch.nn.Module, watch: _Watch) -> Iterator[None]:
    """Keep ``watch.where`` up to date while forward and backward passes of ``module`` run."""
    stack: list[str] = []
    handles = []

    def entered(name: str) -> Any:
        def hook(*_: Any) -> None:
            stack.append(name)
            watch.where = ("forward", name)

        return hook

    def left(name: str) -> Any:
        def arrived(_: torch.Tensor) -> None:
            watch.where = ("backward", name)

        def hook(_: Any, __: Any, y: Any) -> None:
            stack.pop()
            watch.where = ("forward", stack[-1] if stack else "")
            with torch._C.DisableTorchFunction():
                if isinstance(y, torch.Tensor) and y.requires_grad:
                    y.register_hook(arrived)

        return hook

    for name, part in module.named_modules():
        if name:
            handles += [part.register_forward_pre_hook(entered(name)), part.register_forward_hook(left(name))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _operation(
    run: Run, group: Group, number: int, index: int, parameter: Any, w: torch.Tensor, states: dict[str, torch.Tensor]
) -> str:
    """The first slot of the optimizer's program, in its order, whose value is not finite; "" if that cannot be told."""
    import fpsim

    source = group.spec.source
    if not isinstance(source, Program) or source.shape("w") != ("d",):
        return ""
    program = source.bind(**group.spec.at(group.steps, run.step))
    start = {name: np.zeros(w.numel()) for name in program.state if program.shape(name) == ("d",)}
    start |= {name: x.double().reshape(-1).numpy() for name, x in {**states, "w": w}.items()}
    names = [*(o.slot for o in program.operations), *program.state]
    done = fpsim.run(
        program,
        start,
        {"g": parameter.grad.double().reshape(-1).numpy()},
        group.precision,
        run.training.root.fold(OPTIMIZER).fold(number).fold(index),
        first_step=run.step,
        runs=[0],
        record=names,
    )
    return next((name for name in names if not np.isfinite(done.records[name]).all()), "")
