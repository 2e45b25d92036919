"""The optimizers of a training: the programs and matrix methods of ``fpsim.optim`` as classes of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from experiments.schedules import at_step
from fpsim.optim import STEPS, torch_class
from fpsim.optim.matrix import METHODS, MatrixMethod
from fpsim.precision import Precision, Slot
from fpsim.program import Program
from fpsim.random_bits import Key

NAMES = (*STEPS, *METHODS)
_ALONE = {"beta1": "momentum", "beta2": "alpha"}  # names of torch's options, as ``torch_class`` gives them


@dataclass(frozen=True)
class Optimizer:
    """An optimizer as data.

    Parameters
    ----------
    name : of a step in ``fpsim.optim.STEPS`` or a method in ``fpsim.optim.matrix.METHODS``
    hyperparameters : name -> number, or text of a schedule in the step ``t`` (from 1) and the number of steps ``T``;
        those that are not named keep the values that their author declared
    precision : Precision of its slots, or None: that of the training

    Raises
    ------
    ValueError
        An unknown name or hyperparameter.

    Examples
    --------
    >>> Optimizer("adam", {"lr": "0.01/sqrt(t)"}).source.name
    'adam'
    """

    name: str
    hyperparameters: Mapping[str, float | str] = field(default_factory=dict)
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"optimizer={self.name!r}; admissible: {', '.join(NAMES)}")
        for name in self.hyperparameters:
            if name not in self.source.hyperparameters:
                known = ", ".join(self.source.hyperparameters)
                raise ValueError(f"hyperparameter {name!r} of {self.name}; admissible: {known}")

    @property
    def source(self) -> Program | MatrixMethod:
        return STEPS[self.name] if self.name in STEPS else METHODS[self.name]

    @property
    def of_matrices(self) -> bool:
        return self.name not in STEPS

    def at(self, steps: int, step: int) -> dict[str, float]:
        """The numbers of a step, counted from 0."""
        return {name: at_step(value, steps, step) for name, value in self.hyperparameters.items()}


class Group:
    """One optimizer at work on some parameters.

    Parameters
    ----------
    spec : Optimizer
    parameters : (name, parameter) pairs
    precision : Precision, where the optimizer has none of its own
    key : Key of its random bits
    steps : int, of the whole training: T of schedules
    """

    def __init__(
        self, spec: Optimizer, parameters: Iterable[tuple[str, Any]], precision: Precision, key: Key, steps: int
    ) -> None:
        self.spec, self.steps, self.key = spec, steps, key
        self.names, given = zip(*parameters, strict=True)
        self.precision = spec.precision or precision
        source = spec.source
        resolved = self.precision.resolve(source) if isinstance(source, Program) else source.resolve(self.precision)
        self.slots: dict[str, Slot] = resolved
        self.said: dict[str, str] = {}  # warnings, by the scalar they are about
        made = torch_class(spec.source.bind(**spec.at(steps, 0)), spec.name)
        self.optimizer = _quiet(made, self.said)(list(given), precision=self.precision, key=key)

    def step(self, step: int, scaler: Any) -> None:
        """Step number ``step``, counted from 0, with its hyperparameters, through a ``torch.amp.GradScaler``."""
        for name, value in self.spec.at(self.steps, step).items():
            self._set(name, value)
        scaler.step(self.optimizer)

    def _set(self, name: str, value: float) -> None:
        group = self.optimizer.param_groups[0]
        if name in ("beta1", "beta2") and "betas" in group:
            betas = list(group["betas"])
            betas[name == "beta2"] = value
            group["betas"] = tuple(betas)
        else:
            group[_ALONE.get(name, name)] = value

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(zip(self.names, self.optimizer.param_groups[0]["params"], strict=True))

    def arrays(self, parameter: Any) -> dict[str, torch.Tensor]:
        """The states of a parameter, by their names in the program."""
        # to ask a defaultdict would make an entry, which no optimizer reads before its first step
        states, of = self.optimizer.face.states, self.optimizer.state.get(parameter, {})
        known = [name for name in self.spec.source.state if name != "w"]
        return {name: of[states.get(name, name)] for name in known if states.get(name, name) in of}


def divided(spec: Optimizer, vectors: Optimizer, module: torch.nn.Module) -> list[tuple[Optimizer, list[Any]]]:
    """Which optimizer has which parameters: one of matrices takes the weights of linear layers, ``vectors`` the others.

    Embeddings, whose rows are vectors of their own, and kernels of convolutions count as vectors.
    """
    named = list(module.named_parameters())
    if not spec.of_matrices:
        return [(spec, named)]
    inside = {id(p) for m in module.modules() if isinstance(m, torch.nn.Linear) for p in m.parameters() if p.ndim == 2}
    inside -= {id(p) for m in module.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    parts = [(spec, [x for x in named if id(x[1]) in inside]), (vectors, [x for x in named if id(x[1]) not in inside])]
    return [(one, some) for one, some in parts if some]


def _quiet(made: Any, said: dict[str, str]) -> Any:
    """The class, whose warnings are kept as texts: Python's filters belong to all threads."""

    def _warn(self: Any, found: Mapping[str, str], category: Any = None) -> None:
        said.update(found)

    return type(made.__name__, (made,), {"_warn": _warn})
