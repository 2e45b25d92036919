"""Which format every kind of tensor and every sum of a network has."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import frexp
from typing import Any, Literal, TypeAlias

from fpsim.accumulator import Accumulator
from fpsim.block_formats import BlockFormat
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.rounding import Rounding, Stochastic, parse
from fpsim.tensor_core import TensorCore

Slot: TypeAlias = tuple[Format, Rounding]
Operand: TypeAlias = tuple[Format | BlockFormat, Rounding]

LEVELS = ("operation", "storage")
SCALINGS = ("none", "tensor")
_SLOTS = ("weights", "activations", "gradients", "weight_gradients", "elementwise", "master", "state", "update")
_OPERANDS = ("forward_operands", "backward_operands")


@dataclass(frozen=True)
class NetworkPrecision:
    """The formats and rounding modes of a network, by role.

    Each slot is a Format, its name, or a pair (format, rounding mode); a format alone rounds to nearest even.

    Parameters
    ----------
    weights : what a layer reads of a parameter; the gradient passes this rounding unchanged (straight through)
    activations : results of layers, and of operations written in ``forward`` itself
    gradients : gradients of activations
    weight_gradients : gradients of parameters
    accumulator : Accumulator or a tensor core; products and sums of matrix products, convolutions and sums
    backward_accumulator : the same in the backward pass; default ``accumulator``
    elementwise : operations inside a layer (softmax, norms, losses, a bias that is added to a product) before its
        result becomes an activation; default: as activations, and as gradients in the backward pass
    forward_operands : what matrix products and convolutions read of activations and weights, where this is narrower
        than what is stored: a slot, or a pair (BlockFormat, mode), whose blocks lie along the terms of the sum
    backward_operands : the same for the gradient that a backward product reads
    operand_scaling : ``"tensor"``: what such a format reads is multiplied by the largest power of two that keeps the
        tensor within the format, and the product is divided by it; ``"none"``
    master, state : stored weights and states of the optimizer (``optimizer``); default binary32
    update : operations of the optimizer; default: as ``master``
    loss_scale : a power of two by which the loss is multiplied at first, to be adapted (``grad_scaler``); None: 1
    level : ``"operation"``, every operation rounded; ``"storage"``, tensors rounded and operations those of PyTorch

    Raises
    ------
    ValueError
        An unknown format, mode, scaling or level; a loss scale that is no power of two.
    TypeError
        Something else in the place of an accumulator.

    Examples
    --------
    >>> bf16 = NetworkPrecision.uniform("bfloat16")
    >>> bf16.accumulator.result.name, bf16.replace(weights=("e4m3", "stochastic")).weights[0].name
    ('e8m7', 'e4m3')
    """

    weights: Any
    activations: Any
    gradients: Any
    weight_gradients: Any
    accumulator: Accumulator | TensorCore
    backward_accumulator: Accumulator | TensorCore | None = None
    elementwise: Any = None
    forward_operands: Any = None
    backward_operands: Any = None
    operand_scaling: Literal["none", "tensor"] = "none"
    master: Any = "binary32"
    state: Any = "binary32"
    update: Any = None
    loss_scale: float | None = None
    level: Literal["operation", "storage"] = "operation"

    def __post_init__(self) -> None:
        for name in (*_SLOTS, *_OPERANDS):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _slot(name, given, name in _OPERANDS))
        for name in ("accumulator", "backward_accumulator"):
            given = getattr(self, name)
            if not isinstance(given, (Accumulator, TensorCore)) and (given is not None or name == "accumulator"):
                raise TypeError(f"{name}={given!r}; admissible: Accumulator, or Accumulator.tensor_core(..)")
        for name, known in (("level", LEVELS), ("operand_scaling", SCALINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}; admissible: {', '.join(known)}")
        if self.level == "storage" and (self.forward_operands or self.backward_operands):
            raise ValueError(
                "level='storage' with operands of products, which PyTorch reads there; admissible: level='operation', "
                "or narrower weights, activations and gradients"
            )
        if self.loss_scale is not None and not (0 < self.loss_scale < 2**127 and frexp(self.loss_scale)[0] == 0.5):
            raise ValueError(f"loss_scale={self.loss_scale!r}; admissible: a power of two below 2^127, None")

    @classmethod
    def uniform(
        cls, fmt: Format | str, rounding: Rounding = "nearest_even", accumulator: Accumulator | TensorCore | None = None
    ) -> NetworkPrecision:
        """Every role in one format and mode; sums too, unless an ``accumulator`` is given."""
        slot = (named_format(fmt), parse(rounding))
        sums = Accumulator.uniform(*slot) if accumulator is None else accumulator
        return cls(slot, slot, slot, slot, sums, master=slot, state=slot)

    @classmethod
    def storage(cls, fmt: Format | str, rounding: Rounding = "nearest_even") -> NetworkPrecision:
        """Every tensor rounded to one format, every operation computed by PyTorch in the dtype that carries it."""
        return replace(cls.uniform(fmt, rounding), level="storage")

    def replace(self, **changes: Any) -> NetworkPrecision:
        """A copy with other roles.

        Raises
        ------
        ValueError
            A name that is no role.
        """
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise ValueError(f"{name!r} is no role of a network; admissible: {', '.join(known)}")
        return replace(self, **changes)

    @property
    def inside(self) -> Slot:
        """Format and mode of operations inside a layer, forward."""
        return self.elementwise or self.activations  # type: ignore[no-any-return]

    @property
    def inside_backward(self) -> Slot:
        return self.elementwise or self.gradients  # type: ignore[no-any-return]

    @property
    def backward(self) -> Accumulator | TensorCore:
        return self.backward_accumulator or self.accumulator

    @cached_property
    def sums(self) -> Accumulator:
        """How a sum without products is added up, forward: a tensor core's is sequential in its result's format."""
        return _sums(self.accumulator)

    @cached_property
    def backward_sums(self) -> Accumulator:
        return _sums(self.backward)

    @cached_property
    def draws(self) -> bool:
        """Whether a forward or a backward pass draws random bits."""
        modes = [getattr(self, name)[1] for name in (*_SLOTS[:5], *_OPERANDS) if getattr(self, name) is not None]
        for how in (self.accumulator, self.backward):
            modes += how.roundings().values() if isinstance(how, Accumulator) else []
        return any(isinstance(mode, Stochastic) for mode in modes)

    def optimizer(self) -> Precision:
        """The precision of the optimizer: its operations, the weights that it stores, its states.

        Examples
        --------
        >>> from fpsim.optim import STEPS
        >>> slots = NetworkPrecision.uniform("bfloat16").replace(state="e5m2").optimizer().resolve(STEPS["adam"])
        >>> slots["w"][0].name, slots["v"][0].name, slots["update.div"][0].name
        ('e8m7', 'e5m2', 'e8m7')
        """
        states = {name for program in STEPS.values() for name in program.state} - {"w"}
        families = tuple((name, *self.state) for name in sorted(states))
        return Precision(self.update or self.master, families=(*families, ("w", *self.master)))

    def grad_scaler(self, device: str = "cpu") -> Any:
        """A ``torch.amp.GradScaler`` that starts from ``loss_scale``; without one it leaves everything as it is.

        Its factors are powers of two: scaling and unscaling are exact while nothing over- or underflows.
        """
        import torch

        scale = self.loss_scale or 1.0
        return torch.amp.GradScaler(device, init_scale=scale, enabled=self.loss_scale is not None)

    def formats(self) -> set[Format]:
        """The formats that the carrying dtype must hold."""
        found = {getattr(self, name)[0] for name in _SLOTS[:5] if getattr(self, name) is not None}
        return found | {self.accumulator.result, self.backward.result}


def _sums(how: Accumulator | TensorCore) -> Accumulator:
    return how if isinstance(how, Accumulator) else Accumulator.uniform(how.result)


def _slot(name: str, given: Any, blocks: bool) -> Operand:
    fmt, mode = given if isinstance(given, tuple) and len(given) == 2 else (given, "nearest_even")
    if blocks and isinstance(fmt, BlockFormat):
        return fmt, parse(mode)
    try:
        return named_format(fmt), parse(mode)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
