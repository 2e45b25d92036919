"""A step of an optimizer of matrices on torch tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch

from fpsim import arrays
from fpsim.formats import format as named_format
from fpsim.optim.matrix import MatrixMethod, NarrowFormat
from fpsim.optim.torch_dtypes import DTYPES, store
from fpsim.optim.torch_row import Spot
from fpsim.precision import Precision, Slot
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic


class MatrixScalars:
    """In the place of ``Scalars``: the method itself, with the hyperparameters that it has now."""

    def __init__(self, method: MatrixMethod, precision: Precision, spot: Spot) -> None:
        if len(spot.shape) != 2:
            raise ValueError(
                f"{method.name}: a parameter of shape {spot.shape}; admissible: matrices. Vectors and tensors of a "
                "model are for an optimizer of their own, such as fpsim.optim.AdamW"
            )
        self.method = method
        rows, columns = (max(1, length) for length in spot.shape)
        reports = method.report(precision, (rows, columns), spot.step)
        late = spot.step > 0  # bias corrections come near 1
        self.warnings = {x.name: x.warning for x in reports if x.warning and not (late and x.effective == 1.0)}

    def at(self, step: int) -> MatrixMethod:
        return self.method


class MatrixRunner:
    """In the place of ``Runner``: runs one step of a method on one parameter at a time."""

    def __init__(self, method: MatrixMethod, precision: Precision, run: int) -> None:
        if run:
            raise ValueError(f"run={run}; admissible for {method.name}: 0, its random bits have no runs")
        self.axes, self.precision = method.state, precision
        self.slots: dict[str, Slot] = method.resolve(precision)
        self.states = tuple(name for name in method.state if name != "w")
        self.identities = method.identities
        stochastic = any(
            isinstance(mode, Stochastic) for name, (_, mode) in self.slots.items() if not name.startswith("scalar.")
        )
        self.draws = stochastic or bool(method.draws)

    def shape(self, name: str, of: torch.Size) -> tuple[int, ...]:
        """The shape of a state array of a parameter."""
        return tuple(of[("rows", "columns").index(axis)] for axis in self.axes[name])

    def step(
        self,
        tensors: Mapping[str, torch.Tensor],
        gradient: torch.Tensor,
        method: MatrixMethod,
        key: Key | None,
        number: int,
    ) -> None:
        """As ``Runner.step``; in place of scalars the method with its hyperparameters."""
        state = {name: tensor.double().numpy() for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            fmt, mode = self.slots[name]
            if not fmt.holds(named_format(DTYPES[tensor.dtype])):
                state[name] = arrays.round(state[name], fmt, "nearest_even" if isinstance(mode, Stochastic) else mode)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NarrowFormat)  # named once, from ``MatrixScalars.warnings``
            after = method.step(state, gradient.double().numpy(), self.precision, key, step=number)
        for name, tensor in tensors.items():
            store(torch.from_numpy(after[name]), tensor)
