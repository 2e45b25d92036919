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
from fpsim.optim.torch_dtypes import DTYPES, store
from fpsim.optim.torch_parts import Parts, parts_of
from fpsim.optim.torch_row import Function
from fpsim.precision import Precision, Slot
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.scalars import STEP, ScalarExpression
from fpsim.shapes import DEFAULT, Sizes

PIECE = 1 << 16  # elements: shorter ones pay for the calls (2^13 took twice as long), longer ones leave the caches


class Runner:
    """Runs one step of a program on one tensor at a time, whatever its hyperparameters are.

    Parameters
    ----------
    program : Program; of its hyperparameters only the names count
    precision : Precision
    run : the run's number in the random bits
    functions : of the program's opaque operations, by name
    """

    def __init__(self, program: Program, precision: Precision, run: int, functions: Mapping[str, Function]) -> None:
        steps = ScalarExpression.symbol(STEP)
        moving = {name: steps * 0 + ScalarExpression.of(value) for name, value in program.hyperparameters.items()}
        self.program, self.precision, self.run = program.bind(**moving), precision, run
        self.slots: dict[str, Slot] = precision.resolve(program)
        self.functions = functions
        self.states = tuple(name for name in program.state if name != "w")
        self.identities: tuple[str, ...] = ()  # states that start as such
        self.flat = program.shape("w") == DEFAULT
        parts = [part for part, _ in parts_of(program)]
        self.elementwise = all(part.uniform and all(o.kind != "sum" for o in part.operations) for part in parts)
        self.draws = any(
            isinstance(mode, Stochastic) for name, (_, mode) in self.slots.items() if not name.startswith("scalar.")
        )
        self._idle: dict[Any, list[Any]] = {}  # machines by lengths

    def shape(self, name: str, of: torch.Size) -> tuple[int, ...]:
        """The shape of a state array of a parameter."""
        if self.program.shape(name) == self.program.shape("w"):
            return tuple(of)
        if 0 in of:  # there is no machine for it: that has lengths of at least 1
            lengths = dict.fromkeys(DEFAULT, 0) if self.flat else dict(zip(self.program.shape("w"), of, strict=False))
            return Sizes({str(axis): length for axis, length in lengths.items()}).of(self.program.shape(name))
        return self._sizes(of).of(self.program.shape(name))

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
        tensors : state array -> contiguous CPU tensor, all of them distinct
        gradient : contiguous CPU tensor of the parameter's shape
        scalars : float64 [scalars], what ``Scalars`` gives
        key : Key of this parameter, needed where a slot rounds stochastically
        """
        size = gradient.numel()
        if self.draws and size > 1 << 32:
            raise ValueError(f"a parameter of {size} elements; admissible where random bits are drawn: at most 2^32")
        if not self.elementwise:
            self._once(self._sizes(gradient.shape).lengths(), tensors, gradient, scalars, key, number, 0)
            return
        flat, given = {name: tensor.view(-1) for name, tensor in tensors.items()}, gradient.view(-1)

        def work(start: int, stop: int) -> None:
            for begin in range(start, stop, PIECE):
                part = slice(begin, min(begin + PIECE, stop))
                here = {name: tensor[part] for name, tensor in flat.items()}
                self._once({"d": part.stop - begin}, here, given[part], scalars, key, number, begin)

        in_pieces(work, size, PIECE)

    def _once(
        self,
        lengths: dict[str, int],
        tensors: Mapping[str, torch.Tensor],
        gradient: torch.Tensor,
        scalars: npt.NDArray[np.float64],
        key: Key | None,
        number: int,
        first: int,
    ) -> None:
        """One step of the elements from ``first`` on. Several threads may be here, each with a machine of its own."""
        idle = self._idle.setdefault(tuple(lengths.items()), [])
        try:
            machine = idle.pop()
        except IndexError:
            machine = self._made(lengths)
        machine.begin(scalars, key, number, first)
        registers = {name: machine.register(name) for name in tensors}
        for name, tensor in tensors.items():
            register = registers[name]
            register.copy_(tensor.view(register.shape))
            fmt, mode = self.slots[name]
            if not fmt.holds(
                named_format(DTYPES[tensor.dtype])
            ):  # what is there may be off the grid: it is loaded as any start state
                values = register.numpy()
                at_load = "nearest_even" if isinstance(mode, Stochastic) else mode
                arrays.round(values, fmt, at_load, out=values)
        given = machine.given
        given.copy_(gradient.view(given.shape))
        machine.run(1, {"g": given.numpy()[np.newaxis, ..., np.newaxis]})
        for name, tensor in tensors.items():
            register = machine.register(name)
            store(register, tensor.view(register.shape))
        idle.append(machine)

    def _sizes(self, of: torch.Size) -> Sizes:
        sizes = Sizes()
        sizes.meet("w", self.program.shape("w"), (of.numel(),) if self.flat else tuple(of))
        return sizes

    def _made(self, lengths: dict[str, int]) -> Any:
        if self.program.opaque:
            return Parts(self.program, self.slots, lengths, self.functions, self._machine)
        machine = self._machine(self.program, self.precision, lengths)
        machine.given = torch.empty(machine.shape("g"), dtype=torch.float64, device="cpu")
        return machine

    def _machine(self, program: Program, precision: Precision, lengths: dict[str, int]) -> Any:
        runs = np.array([self.run], dtype=np.uint64)
        return (_Elementwise if program.uniform else _Whole)(program, [precision], 1, lengths, Key(0), runs)


class _Live:
    """What both machines here have: scalars that are given, and a view of an array as a tensor."""

    element = 0

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


class _Elementwise(_Live, Machine):
    def register(self, name: str) -> torch.Tensor:
        """The same memory in every step, so that its view is made once."""
        views: dict[str, torch.Tensor] = self.__dict__.setdefault("views", {})
        if name not in views:
            views[name] = super().register(name)
        return views[name]


class _Whole(_Live, WholeMachine):
    pass
