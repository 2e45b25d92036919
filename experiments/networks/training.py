"""A training run as data, and the state of one that runs: a step, the same to the bit wherever it is made again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from experiments import datasets, networks
from experiments.networks.losses import WithLoss
from experiments.networks.measures import Measure, Ruler
from experiments.networks.optimizers import Group, Optimizer, divided
from experiments.problems.base import checked_integer
from experiments.streams import MINIBATCH, START
from fpsim import arrays
from fpsim.formats import format as named_format
from fpsim.nn import NetworkPrecision, emulate
from fpsim.precision import Precision
from fpsim.random_bits import Key

# Purposes of a run's keys, as ASCII words.
RUN, OPTIMIZER = 0x54524E52, 0x4F505449  # "TRNR", "OPTI"
CARRIERS = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Training:
    """A training run: everything that its bits depend on.

    Parameters
    ----------
    network, dataset : names, with ``network_options`` and ``dataset_options``
    optimizer : Optimizer;  vectors : the one for parameters that are no matrices, where ``optimizer`` is for matrices
    precision : NetworkPrecision of forward and backward pass, or None: PyTorch's own operations, not rounded
    steps : int in 1..10^9;  batch : int in 1..65536, samples of a step;  evaluation : int >= 1, samples to measure on
    carrier : "float32" or "float64", the dtype that carries the numbers
    key : Key, the root of starting weights, batches and random bits;  run : int, of which a key has 2^32
    passthrough : names of functions in torch.nn.functional or torch that are computed by PyTorch and rounded afterwards

    Examples
    --------
    >>> training = Training("mlp", "digits", Optimizer("sgd"), NetworkPrecision.storage("bfloat16"), steps=3)
    >>> training.precision.level
    'storage'
    """

    network: str
    dataset: str
    optimizer: Optimizer
    precision: NetworkPrecision | None
    steps: int = 1000
    batch: int = 128
    evaluation: int = 256
    carrier: str = "float32"
    key: Key = field(default_factory=Key)
    run: int = 0
    vectors: Optimizer = field(default_factory=lambda: Optimizer("adam", {"lr": 2.0**-8}))
    network_options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    passthrough: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_integer("steps", self.steps, 1, 10**9)
        checked_integer("batch", self.batch, 1, 1 << 16)
        checked_integer("evaluation", self.evaluation, 1, 1 << 24)
        checked_integer("run", self.run, 0, (1 << 32) - 1)
        if self.carrier not in CARRIERS:
            raise ValueError(f"carrier={self.carrier!r}; admissible: {', '.join(CARRIERS)}")
        if self.vectors.of_matrices:
            raise ValueError(f"vectors={self.vectors.name!r}; admissible: an optimizer of vectors, such as adam")
        if not isinstance(self.precision, (NetworkPrecision, type(None))):
            raise TypeError(f"precision={self.precision!r}; admissible: NetworkPrecision, None")
        for name in self.passthrough:
            _function(name)

    @property
    def root(self) -> Key:
        """The key of this run."""
        return self.key.fold(RUN).fold(self.run)

    @property
    def digest(self) -> str:
        """32 hex digits: two trainings that differ in anything differ in it."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()

    def precision_of(self, spec: Optimizer) -> Precision:
        """The precision of an optimizer that has none: what ``NetworkPrecision.optimizer`` says, gradients as the role
        ``weight_gradients``, and sums in matrix products of a matrix method in the format of the accumulator."""
        if self.precision is None:
            return Precision((named_format(self.carrier.replace("float", "binary")), "nearest_even"))
        given, sums = self.precision.optimizer(), (self.precision.accumulator.result, "nearest_even")
        products = getattr(spec.source, "products", ())
        more = (*((slot, *sums) for slot in products), ("g", *self.precision.weight_gradients))
        return replace(given, families=(*given.families, *more))


class Run:
    """A training under way.

    Attributes
    ----------
    step : int, steps done
    loss : float, that of the last step's batch, as the network computed it; NaN before the first
    module : the network with its loss, emulated where the training says so
    scaler : torch.amp.GradScaler of the loss
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        root = training.root
        self.data = datasets.make(training.dataset, **training.dataset_options)
        # a file may be another one when a state is loaded
        named = training.digest + repr(sorted(self.data.record.items()))
        self._digest = hashlib.blake2b(named.encode(), digest_size=16).hexdigest()
        network = networks.make(training.network, self.data, root.fold(START), **training.network_options)
        self.plain = WithLoss(network, self.data.kind).to(CARRIERS[training.carrier])
        self.module: Any = self.plain
        if training.precision is not None:
            through = [_function(name) for name in training.passthrough]
            self.module = emulate(self.plain, training.precision, key=root, passthrough=through)
        self._specs = divided(training.optimizer, training.vectors, self.plain)
        self.scaler = (training.precision or NetworkPrecision.uniform("binary64")).grad_scaler()
        self._ruler: Ruler | None = None
        # every cell sees the same samples in the same order, whatever its format and optimizer are
        self._batches = root.fold(MINIBATCH)
        self.step, self.loss = 0, float("nan")
        self.groups = self._made()
        self._store_start()

    def _made(self) -> list[Group]:
        key = self.training.root.fold(OPTIMIZER)
        return [
            Group(spec, some, self.training.precision_of(spec), key.fold(number), self.training.steps)
            for number, (spec, some) in enumerate(self._specs)
        ]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _store_start(self) -> None:
        """Round the starting weights, to nearest even, to the format in which the optimizer stores them."""
        for group in self.groups:
            for parameter in group.parameters.values():
                numbers = arrays.round(parameter.detach().numpy(), group.slots["w"][0], "nearest_even")
                parameter.copy_(torch.from_numpy(numbers))

    @property
    def parameters(self) -> dict[str, Any]:
        return {name: parameter for group in self.groups for name, parameter in group.parameters.items()}

    def gradients(self) -> float:
        """Forward and backward pass of the next step: gives its loss; the gradients, scaled where the loss is, stay in
        the parameters."""
        training = self.training
        x, y = (torch.from_numpy(part) for part in self.data.batch(self._batches, self.step, training.batch))
        dtype = CARRIERS[training.carrier]
        x, y = (part.to(dtype) if part.is_floating_point() else part for part in (x, y))
        for parameter in self.plain.parameters():
            parameter.grad = None
        loss = self.module(x, y)
        self.scaler.scale(loss).backward()
        return float(loss.detach())

    def update(self) -> None:
        """The optimizers' part of the step."""
        for group in self.groups:
            group.step(self.step, self.scaler)
        self.scaler.update()
        self.step += 1

    def advance(self) -> None:
        """One step."""
        self.loss = self.gradients()
        self.update()

    def finite(self, states: bool = False) -> bool:
        """Whether the loss and all weights are finite numbers; with ``states``, those of the optimizers too."""
        known = self.step == 0 or abs(self.loss) < float("inf")
        return known and all(bool(torch.isfinite(x).all()) for x in self._numbers(states))

    def _numbers(self, states: bool) -> Iterator[torch.Tensor]:
        for group in self.groups:
            for parameter in group.parameters.values():
                yield parameter.detach()
                if states:
                    yield from group.arrays(parameter).values()

    def measure(self) -> Measure:
        """Loss, gradient norm and accuracy in binary64 at the weights that are stored now."""
        if self._ruler is None:
            self._ruler = Ruler(self.plain, self.data, self.training.evaluation)
        return self._ruler.measure(self.plain, self.step)

    def warnings(self) -> list[str]:
        """What formats do to scalars of the optimizers, such as a beta2 that becomes 1."""
        return [f"{group.spec.name}: {text}" for group in self.groups for text in group.said.values()]

    # Saving and going on

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as plain data and tensors of its own."""
        return {
            "training": self._digest,
            "step": self.step,
            "loss": self.loss,
            "scaler": _copied(self.scaler.state_dict()),
            "calls": self.module.emulation.calls if self.module is not self.plain else 0,
            "weights": {name: x.detach().clone() for name, x in self.plain.named_parameters()},
            "optimizers": [_copied(group.optimizer.state_dict()) for group in self.groups],
        }

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave.

        Raises
        ------
        ValueError
            It is the state of another training, or of other data.
        """
        if state["training"] != self._digest:
            raise ValueError(f"state of training {state['training']}; admissible: {self._digest}, the same one")
        for name, parameter in self.plain.named_parameters():
            parameter.copy_(state["weights"][name])
        self.step, self.loss = state["step"], state["loss"]
        if self.module is not self.plain:
            self.module.emulation.calls = state["calls"]
        self.scaler.load_state_dict(state["scaler"])
        self.groups = self._made()
        for group, saved in zip(self.groups, state["optimizers"], strict=True):
            if saved["state"]:  # none before its first step, which comes later where a scaled loss overflows
                group.optimizer.load_state_dict(_copied(saved))


def _function(name: str) -> Any:
    found = getattr(torch.nn.functional, name, None) or getattr(torch, name, None)
    if not callable(found):
        raise ValueError(f"passthrough={name!r}; admissible: a function of torch.nn.functional or torch")
    return found


def _copied(x: Any) -> Any:
    """The same data with tensors of their own."""
    if isinstance(x, torch.Tensor):
        return x.detach().clone()
    if isinstance(x, dict):
        return {name: _copied(value) for name, value in x.items()}
    return type(x)(_copied(value) for value in x) if isinstance(x, (list, tuple)) else x
