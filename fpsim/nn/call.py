"""One forward pass of an emulated network, and the backward pass that belongs to it.

A tensor that is read in two places gets the sum of two gradients. PyTorch would add them itself; so every read is a
``Fork``, whose backward pass adds with a rounding: the gradients of later reads first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules._functions import BackwardHookFunction

from fpsim.nn.arithmetic import Fast, Tensor
from fpsim.nn.roles import NetworkPrecision, Slot
from fpsim.nn.table import UnsupportedOperation
from fpsim.random_bits import Key

CARRYING = (torch.float32, torch.float64)  # dtypes whose tensors carry emulated numbers
ACTIVATION, INSIDE, WEIGHT = "activation", "inside", "weight"
_NETWORK = 0x4E455457  # "NETW": the key of a network's draws
BACKWARD = 16  # roundings that one operation may have, forward, and the number of its first backward


_HOOKED = (
    "a full backward hook of a module whose input or result is read elsewhere, too: PyTorch would add the gradients; "
    "admissible: hooks of tensors and of modules in a chain"
)


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
        self._masks = key.fold(_NETWORK).fold(number) if key is not None else None
        self._key = self._masks if precision.draws else None
        self._operations = 0
        self._latest: dict[int, tuple[Tensor, Tensor]] = {}
        # Storages that were changed in place, kept alive: a tensor of each, and who of its owners may be read.
        self._written: dict[int, tuple[Tensor, set[int]]] = {}
        self._replaced: set[int] = set()
        self._hooks: set[Any] = set()  # nodes of PyTorch's graph: of its hooks of modules,
        self._hooked: set[Any] = set()  # and what they read

    def number(self) -> int:
        """The place of the next operation."""
        self._operations += 1
        return self._operations - 1

    def key(self, number: int, part: int) -> Key | None:
        """The key of one rounding of operation ``number``: ``part`` 0..15 forward, 16..31 backward."""
        return None if self._key is None else self._key.fold(number * 2 * BACKWARD + part)

    def mask_key(self) -> Key:
        """The key of the next operation, for draws that are no rounding.

        Raises
        ------
        ValueError
            The network has no key.
        """
        if self._masks is None:
            raise ValueError("key=None: dropout draws random bits and needs a Key, as in emulate(.., key=Key(0))")
        return self._masks.fold(self.number() * 2 * BACKWARD)

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

    def read_role(self, x: Tensor) -> str:
        """The role that x has when it is read."""
        latest = self.latest(x)
        return WEIGHT if isinstance(latest, torch.nn.Parameter) else self.role(latest)

    def gradient_slot(self, role: str) -> Slot:
        """Format and mode of the gradient of a tensor."""
        precision = self.precision
        if role == ACTIVATION:
            return precision.gradients  # type: ignore[no-any-return]
        return precision.inside_backward if role == INSIDE else precision.weight_gradients

    def slots(self, role: str) -> tuple[Slot, Slot]:
        """Format and mode of a tensor and of its gradient."""
        precision = self.precision
        forward = {WEIGHT: precision.weights, INSIDE: precision.inside}.get(role, precision.activations)
        return forward, self.gradient_slot(role)

    def use(self, x: Any) -> Any:
        """x as an operation reads it: rounded to its role where it comes from outside, forked where it has a gradient.

        What is no floating tensor is given back.
        """
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return x
        latest = self.latest(x)
        if self._written:
            self._check_shares(x)
        made = getattr(type(latest.grad_fn), "_forward_cls", None)
        if made is not None and not made.__module__.startswith("fpsim.nn."):
            self._check_function(latest, made)
        if not self.known(latest):
            if x.dtype not in CARRYING:
                raise ValueError(f"a tensor of {x.dtype}; admissible: torch.float32, torch.float64")
            role = WEIGHT if isinstance(x, torch.nn.Parameter) else ACTIVATION
            slot = self.precision.weights if role == WEIGHT else self.precision.activations
            backward = None if role == WEIGHT and self.precision.level == "operation" else self.gradient_slot(role)
            latest = self.tagged(convert(self, latest, slot, backward), role)
            self._latest[id(x)] = (x, latest)
        if self.precision.level == "storage":
            return latest
        if self._hooked and x.grad_fn in self._hooked:
            raise UnsupportedOperation(_HOOKED)
        number = self.number()  # also where no gradient is recorded: the draws that follow are the same
        if not (latest.requires_grad and torch.is_grad_enabled()):
            return latest
        role = self.role(latest)
        now, later = _Fork.apply(self, number, self.gradient_slot(role), latest)
        self._latest[id(x)] = (x, self.tagged(later, role))
        return self.tagged(now, role)

    def latest(self, x: Tensor) -> Tensor:
        """What stands for x now."""
        return self._latest[id(x)][1] if id(x) in self._latest else x

    def changed(self, x: Tensor) -> bool:
        """Whether an operation in place changed x."""
        return id(x) in self._replaced

    def replace(self, old: Tensor, new: Tensor) -> Tensor:
        """From now on ``new`` is read where ``old`` is named: what an operation in place leaves. Returns ``old``.

        A tensor from outside, such as a buffer, is written itself, too. Other tensors that share its numbers cannot be
        read any more: they do not follow.

        Raises
        ------
        ValueError
            Another shape or dtype, or a parameter.
        """
        for what, found, admissible in (
            ("shape", tuple(new.shape), tuple(old.shape)),
            ("dtype", new.dtype, old.dtype),
        ):
            if found != admissible:
                raise ValueError(
                    f"in place: the result has {what} {found}; admissible: that of the tensor that is written, "
                    f"{admissible}"
                )
        outside = not self.known(old)
        if outside and old.requires_grad and torch.is_grad_enabled():
            kind = "parameter" if isinstance(old, torch.nn.Parameter) else "tensor from outside with a gradient"
            raise ValueError(f"forward writes in place a {kind}; admissible: a tensor that it made, a buffer")
        for one in (old, self.latest(old)):
            if one.numel():
                self._written[one.untyped_storage().data_ptr()] = (one, {id(old)})
        if outside:
            old.detach().copy_(new.detach())
        self._latest[id(old)] = (old, new)
        self._replaced.add(id(old))
        return old

    def _check_function(self, x: Tensor, made: Any) -> None:
        """What an autograd function that is not of this package gives: of PyTorch's hooks of modules, or of a user."""
        if made is BackwardHookFunction:
            self._check_hook(x)
        elif self.known(x):
            raise UnsupportedOperation(
                f"{made.__name__}: an autograd function of its own, whose backward pass is not emulated; admissible: "
                "operations of PyTorch (torch.utils.checkpoint: around the whole emulated module)"
            )

    def _check_hook(self, x: Tensor) -> None:
        """A full backward hook of a module reads its tensors unseen: PyTorch would add other gradients of theirs."""
        if x.grad_fn in self._hooks:
            return
        read = {one.grad_fn for one, _ in self._latest.values()} | self._hooked
        for node, _ in x.grad_fn.next_functions:
            if node is not None and node in read:
                raise UnsupportedOperation(_HOOKED)
            read.add(node)
        self._hooks.add(x.grad_fn)
        self._hooked |= {node for node, _ in x.grad_fn.next_functions if node is not None}

    def _check_shares(self, x: Tensor) -> None:
        _, read_by = self._written.get(x.untyped_storage().data_ptr(), (x, {id(x)}))
        if id(x) in read_by:
            return
        if self.known(x) or id(x) in self._latest:
            raise UnsupportedOperation(
                f"a tensor of shape {tuple(x.shape)} is read that shares its numbers with one that was changed in "
                "place; admissible: x = x + .. in place of x += .., x[i] = x[i] + .. in place of x[i] += .."
            )
        read_by.add(id(x))

    def leave(self, x: Tensor) -> Tensor:
        """x as the module's result: its last value. The gradient from outside is rounded to its format, then added to
        those of earlier reads; but not that of a number without axes: a loss may be scaled beyond that format, and what
        follows is rounded."""
        if id(x) in self._latest:
            x = self.use(x)
        if not x.ndim or not x.requires_grad or not self.known(x) or self.role(x) == WEIGHT:
            return x
        return _Arrival.apply(self, self.number(), self.gradient_slot(self.role(x)), x)

    def finish(self) -> None:
        """Let go of the tensors."""
        self._latest.clear()
        self._written.clear()
        self._replaced.clear()
        self._hooks.clear()
        self._hooked.clear()

    # Boundaries of a layer that computes inside in a format of its own

    def load(self, x: Tensor) -> Tensor:
        """An activation or weight as a number of the format inside a layer."""
        precision = self.precision
        if precision.elementwise is None and precision.weights[0] == precision.activations[0]:
            return x
        x = self.use(x)
        role = self.role(x)
        if precision.elementwise is None and role != WEIGHT:
            return x
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
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        _check_first_order()
        if ctx.slot is not None:
            g = ctx.call.arithmetic.operation("round", (g,), ctx.slot, ctx.call.key(ctx.number, BACKWARD))
        return None, None, None, None, g


class _Arrival(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, call: Call, number: int, slot: Slot, x: Tensor) -> Tensor:
        ctx.call, ctx.number, ctx.slot = call, number, slot
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        _check_first_order()
        return (
            None,
            None,
            None,
            ctx.call.arithmetic.operation("round", (g,), ctx.slot, ctx.call.key(ctx.number, BACKWARD)),
        )


def _check_first_order() -> None:
    """PyTorch's ``once_differentiable`` would let a gradient pass as a constant: every gradient meets this instead."""
    if torch.is_grad_enabled():
        raise RuntimeError("create_graph=True: emulated operations have first derivatives only; admissible: False")


class _Fork(torch.autograd.Function):  # type: ignore[misc]
    """x, twice: for the operation that reads it now, and for those that read it later."""

    @staticmethod
    def forward(ctx: Any, call: Call, number: int, slot: Slot, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.call, ctx.number, ctx.slot = call, number, slot
        return x.view_as(x), x.view_as(x)

    @staticmethod
    def backward(ctx: Any, now: Tensor | None, later: Tensor | None) -> tuple[Any, ...]:
        _check_first_order()
        if now is None or later is None:
            return None, None, None, later if now is None else now
        key = ctx.call.key(ctx.number, BACKWARD)
        return None, None, None, ctx.call.arithmetic.operation("add", (later, now), ctx.slot, key)
