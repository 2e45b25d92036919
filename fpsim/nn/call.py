"""One forward pass of an emulated network, and the backward pass that belongs to it.

A tensor that is read in two places gets the sum of two gradients. PyTorch would add them itself; so every read is a
``Fork``, whose backward pass adds with a rounding: the gradients of later reads first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fpsim.nn.arithmetic import Fast, Tensor
from fpsim.nn.roles import NetworkPrecision, Slot
from fpsim.random_bits import Key

ACTIVATION, INSIDE, WEIGHT = "activation", "inside", "weight"
_NETWORK = 0x4E455457  # "NETW": the key of a network's draws
_PARTS = 16  # roundings that one operation may have, forward and backward


class Call:
    """What all operations of one forward pass share.

    Parameters
    ----------
    precision : NetworkPrecision
    arithmetic : what computes
    key : Key, needed where a role rounds stochastically
    number : int >= 0, of the pass; with the place of an operation in it, it names the operation's random bits
    """

    def __init__(self, precision: NetworkPrecision, arithmetic: Fast, key: Key | None, number: int) -> None:
        self.precision, self.arithmetic = precision, arithmetic
        self._key = key.fold(_NETWORK).fold(number) if key is not None and precision.draws else None
        self._operations = 0
        self._latest: dict[int, tuple[Tensor, Tensor]] = {}

    def number(self) -> int:
        """The place of the next operation."""
        self._operations += 1
        return self._operations - 1

    def key(self, number: int, part: int) -> Key | None:
        """The key of one rounding of operation ``number``: ``part`` 0..7 forward, 8..15 backward."""
        return None if self._key is None else self._key.fold(number * _PARTS + part)

    # Roles of tensors

    def tagged(self, x: Tensor, role: str) -> Tensor:
        """x, known as a number of its role's format."""
        x.fpsim_role = (self, role)
        return x

    def known(self, x: Tensor) -> bool:
        """Whether an operation of this call made x."""
        return getattr(x, "fpsim_role", (None,))[0] is self

    def role(self, x: Tensor) -> str:
        """The role of a tensor that an operation of this call made; of any other: activation."""
        return x.fpsim_role[1] if self.known(x) else ACTIVATION

    def gradient_slot(self, role: str) -> Slot:
        """Format and mode of the gradient of a tensor."""
        precision = self.precision
        slot = {WEIGHT: precision.weight_gradients, INSIDE: precision.inside_backward}.get(role, precision.gradients)
        return slot  # type: ignore[no-any-return]

    def use(self, x: Any) -> Any:
        """x as an operation reads it: rounded to its role where it comes from outside, forked where it has a gradient.

        What is no floating tensor is given back.
        """
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return x
        latest = self._latest[id(x)][1] if id(x) in self._latest else x
        if not self.known(latest):
            role = WEIGHT if isinstance(x, torch.nn.Parameter) else ACTIVATION
            slot = self.precision.weights if role == WEIGHT else self.precision.activations
            backward = None if role == WEIGHT and self.precision.level == "operation" else self.gradient_slot(role)
            latest = self.tagged(convert(self, latest, slot, backward), role)
            self._latest[id(x)] = (x, latest)
        if self.precision.level == "storage" or not (latest.requires_grad and torch.is_grad_enabled()):
            return latest
        role = self.role(latest)
        now, later = _Fork.apply(self, self.number(), self.gradient_slot(role), latest)
        self._latest[id(x)] = (x, self.tagged(later, role))
        return self.tagged(now, role)

    def replace(self, old: Tensor, new: Tensor) -> Tensor:
        """From now on ``new`` is read where ``old`` is named: what an operation in place leaves."""
        self._latest[id(old)] = (old, new)
        return new

    def leave(self, x: Any) -> Any:
        """x as the module's result: the gradient that comes from outside is rounded to its format."""
        if not isinstance(x, torch.Tensor) or not x.requires_grad or self.role(x) == WEIGHT:
            return x
        return _Arrival.apply(self, self.number(), self.gradient_slot(self.role(x)), x)

    def finish(self) -> None:
        """Let go of the tensors."""
        self._latest.clear()

    # Boundaries of a layer that computes inside in a format of its own

    def load(self, x: Tensor) -> Tensor:
        """An activation or weight as a number of the format inside a layer."""
        precision = self.precision
        if precision.elementwise is None:
            return x
        x = self.use(x)
        role = self.role(x)
        return self.tagged(convert(self, x, precision.inside, self.gradient_slot(role)), INSIDE)

    def store(self, x: Tensor) -> Tensor:
        """The result of a layer as an activation."""
        precision = self.precision
        if precision.elementwise is None:
            return self.tagged(x, ACTIVATION)
        x = convert(self, self.use(x), precision.activations, precision.inside_backward)
        return self.tagged(x, ACTIVATION)


def convert(call: Call, x: Tensor, forward: Slot, backward: Slot | None) -> Tensor:
    """x rounded to one format and its gradient to another; None: the gradient has its format already."""
    return _Convert.apply(call, call.number(), forward, backward, x)


class _Convert(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, call: Call, number: int, forward: Slot, backward: Slot | None, x: Tensor) -> Tensor:
        ctx.call, ctx.number, ctx.slot = call, number, backward
        return call.arithmetic.operation("round", (x.detach(),), forward, call.key(number, 0))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        if ctx.slot is not None:
            g = ctx.call.arithmetic.operation("round", (g,), ctx.slot, ctx.call.key(ctx.number, 8))
        return None, None, None, None, g


class _Arrival(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, call: Call, number: int, slot: Slot, x: Tensor) -> Tensor:
        ctx.call, ctx.number, ctx.slot = call, number, slot
        return x.view_as(x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return None, None, None, ctx.call.arithmetic.operation("round", (g,), ctx.slot, ctx.call.key(ctx.number, 8))


class _Fork(torch.autograd.Function):  # type: ignore[misc]
    """x, twice: for the operation that reads it now, and for those that read it later."""

    @staticmethod
    def forward(ctx: Any, call: Call, number: int, slot: Slot, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.call, ctx.number, ctx.slot = call, number, slot
        return x.view_as(x), x.view_as(x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, now: Tensor | None, later: Tensor | None) -> tuple[Any, ...]:
        if now is None or later is None:
            return None, None, None, later if now is None else now
        key = ctx.call.key(ctx.number, 8)
        return None, None, None, ctx.call.arithmetic.operation("add", (later, now), ctx.slot, key)
