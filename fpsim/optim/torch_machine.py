"""A step of a program on torch tensors: into the machine's registers piece by piece, one step, and back.

A machine is kept from step to step, with its plan. All hyperparameters count as schedules when it is planned, so that
it serves every value that they get; what they become is computed anew where they change, and only there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fpsim import arrays
from fpsim.cpu.machine import Machine
from fpsim.cpu.threads import in_pieces
from fpsim.cpu.whole_machine import WholeMachine
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.precision import Precision, Slot, scalar_report, scalar_values
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.scalars import STEP, ScalarExpression

PIECE = 1 << 15  # elements: four arrays of a piece stay in a second-level cache
_AHEAD = 32  # steps whose scalars are computed at a time while no hyperparameter changes
DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Scalars:
    """The scalar operands of a program with its hyperparameters bound, step by step."""

    def __init__(self, program: Program, precision: Precision, step: int) -> None:
        self.program, self.precision = program, precision
        self._compute(range(step, step + 1))
        self.warnings: dict[str, str] = {}
        if not np.all((self._table != 0) & (self._table != 1) & np.isfinite(self._table)):
            self.warnings = self._warnings(step)

    def at(self, step: int) -> npt.NDArray[np.float64]:
        """float64 [scalars]"""
        if step not in self._when:
            self._compute(range(step, step + _AHEAD))
        return self._table[:, step - self._when.start]

    def _compute(self, when: range) -> None:
        values = scalar_values(self.program, self.precision, when)
        rows = [np.broadcast_to(values[scalar.name], len(when)) for scalar in self.program.scalars]
        self._when, self._table = when, np.array(rows).reshape(len(rows), len(when))

    def _warnings(self, step: int) -> dict[str, str]:
        reports = scalar_report(self.program, self.precision, step)
        return {
            report.name: report.warning
            for scalar, report in zip(self.program.scalars, reports, strict=True)
            # 1 - beta^t comes near 1 in the course of every run
            if report.warning and not (scalar.per_step and report.effective == 1.0)
        }


class Runner:
    """Runs one step of a program on one tensor at a time, whatever its hyperparameters are.

    Parameters
    ----------
    program : Program; only its operations count
    precision : Precision
    run : the run's number in the random bits
    """

    def __init__(self, program: Program, precision: Precision, run: int) -> None:
        steps = ScalarExpression.symbol(STEP)
        moving = {name: steps * 0 + ScalarExpression.of(value) for name, value in program.hyperparameters.items()}
        self.program, self.precision, self.run = program.bind(**moving), precision, run
        self.slots: dict[str, Slot] = precision.resolve(program)
        self.flat = all(program.shape(name) == ("d",) for name in program.inputs)
        self.elementwise = program.uniform and all(operation.kind != "sum" for operation in program.operations)
        self.draws = any(
            isinstance(mode, Stochastic) for name, (_, mode) in self.slots.items() if not name.startswith("scalar.")
        )
        self._idle: dict[tuple[int, ...], list[Any]] = {}  # machines by shape

    def step(
        self,
        tensors: Mapping[str, torch.Tensor],
        gradient: torch.Tensor,
        scalars: npt.NDArray[np.float64],
        key: Key | None,
        number: int,
    ) -> None:
        """Step ``number`` (from 0), in place.

        Parameters
        ----------
        tensors : state array -> CPU tensor of the parameter's shape, all of them distinct
        gradient : CPU tensor of the same shape
        scalars : float64 [scalars], what ``Scalars`` gives
        key : Key of this tensor, needed where a slot rounds stochastically
        """
        shape = tuple(gradient.shape)
        held = {name: tensor.contiguous() for name, tensor in tensors.items()}
        given = gradient.contiguous()
        if self.flat:
            flat, shape = {name: tensor.view(-1) for name, tensor in held.items()}, (given.numel(),)
            given = given.view(-1)
        else:
            flat = held
        size = given.numel()
        if self.draws and size > 1 << 32:
            raise ValueError(f"a parameter of {size} elements; admissible where random bits are drawn: at most 2^32")
        if self.elementwise:

            def work(start: int, stop: int) -> None:
                for first in range(start, stop, PIECE):
                    part = slice(first, min(first + PIECE, stop))
                    here = {name: tensor[part] for name, tensor in flat.items()}
                    self._once((part.stop - first,), here, given[part], scalars, key, number, first)

            in_pieces(work, size, PIECE)
        else:
            self._once(shape, flat, given, scalars, key, number, 0)
        for name, tensor in tensors.items():
            if held[name] is not tensor:
                tensor.copy_(held[name])

    def _once(
        self,
        shape: tuple[int, ...],
        tensors: Mapping[str, torch.Tensor],
        gradient: torch.Tensor,
        scalars: npt.NDArray[np.float64],
        key: Key | None,
        number: int,
        first: int,
    ) -> None:
        """One step of the elements from ``first`` on. Several threads may be here, each with a machine of its own."""
        idle = self._idle.setdefault(shape, [])
        try:
            machine = idle.pop()
        except IndexError:
            machine = self._made(shape)
        machine.begin(scalars, key, number, first)
        for name, tensor in tensors.items():
            register = machine.register(name)
            register.copy_(tensor)
            fmt, mode = self.slots[name]
            if not fmt.holds(_format_of(tensor)):  # what is there may be off the grid: it is loaded as any start state
                values = register.numpy()
                at_load = "nearest_even" if isinstance(mode, Stochastic) else mode
                arrays.round(values, fmt, at_load, out=values)
        machine.given.copy_(gradient)
        machine.run(1, {"g": machine.given.numpy().reshape(1, *shape, 1)})
        for name, tensor in tensors.items():
            _store(machine.register(name), tensor)
        idle.append(machine)

    def _made(self, shape: tuple[int, ...]) -> Any:
        kind: Any = _Elementwise if self.program.uniform else _Whole
        lengths = {"d": shape[0]} if self.flat else self.program.lengths({"w": np.empty(shape)})
        machine = kind(self.program, [self.precision], 1, lengths, Key(0), np.array([self.run], dtype=np.uint64))
        machine.given = torch.empty(shape, dtype=torch.float64)
        return machine


def holds(tensor_dtype: Any, fmt: Format) -> bool:
    """Whether a dtype of torch has every value of a format."""
    return named_format(DTYPES[tensor_dtype]).holds(fmt)


def dtype_for(fmt: Format, parameter: Any) -> Any:
    """The dtype of a state: the parameter's if it has every value of the format, else float32, else float64."""
    return next(dtype for dtype in (parameter, torch.float32, torch.float64) if holds(dtype, fmt))


def _format_of(tensor: torch.Tensor) -> Format:
    return named_format(DTYPES[tensor.dtype])


def _store(source: torch.Tensor, target: torch.Tensor) -> None:
    """Into a dtype that holds every value. NaN is one code; torch's vectors make another one of it in bfloat16."""
    target.copy_(source)
    if target.dtype == torch.bfloat16 and bool(source.sum().isnan()):
        target.masked_fill_(source.isnan(), float("nan"))


class _Live:
    """What both machines here have: scalars that are given, and a view of an array as a tensor."""

    def begin(self: Any, scalars: npt.NDArray[np.float64], key: Key | None, number: int, element: int) -> None:
        self.first_step, self.key = number, key
        self.scalars = range(number, number + 1), scalars.reshape(1, -1, 1, 1)
        if element != self.element:
            self._elements += np.uint64((element - self.element) % (1 << 64))
            self.element = element

    def register(self: Any, name: str) -> torch.Tensor:
        return torch.from_numpy(self.values(name)[0, ..., 0])

    def _scalars(self: Any, step: int, wanted: int) -> Any:
        return self.scalars

    element = 0


class _Elementwise(_Live, Machine):
    pass


class _Whole(_Live, WholeMachine):
    pass
