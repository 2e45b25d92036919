"""Functions that move numbers, and functions that PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fpsim.nn.call import ACTIVATION, INSIDE, WEIGHT, Call, convert
from fpsim.nn.table import MOVES, QUERIES

_MOVED = (
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "movedim", "swapaxes",
    "t", "contiguous", "clone", "chunk", "split", "unbind", "narrow", "select", "view_as", "reshape_as", "__getitem__",
    "flip", "roll",
)  # fmt: skip
_ASKED = (
    "size", "dim", "numel", "item", "tolist", "detach", "argmax", "argmin", "is_floating_point", "__len__",
    "ndimension", "isfinite", "isnan", "isinf", "all", "any", "__gt__", "__lt__",
    "__ge__", "__le__", "__eq__", "__ne__", "gt", "lt",
    "ge", "le", "eq", "ne", "stride", "is_contiguous", "type", "data_ptr", "requires_grad_", "__bool__", "__float__",
    "__format__", "__repr__", "is_complex", "new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like",
)  # fmt: skip
_GETTERS_THAT_MOVE = ("T", "mT")

for _name in _MOVED:
    MOVES.update(f for f in (getattr(torch, _name, None), getattr(torch.Tensor, _name, None)) if f is not None)
for _name in _GETTERS_THAT_MOVE:
    MOVES.add(getattr(torch.Tensor, _name).__get__)
MOVES.update((torch.cat, torch.stack, torch.concat))
for _name in _ASKED:
    QUERIES.update(f for f in (getattr(torch, _name, None), getattr(torch.Tensor, _name, None)) if f is not None)
for _name in dir(torch.Tensor):
    _getter = getattr(getattr(torch.Tensor, _name), "__get__", None)
    if type(getattr(torch.Tensor, _name)).__name__ in ("getset_descriptor", "property") and _getter not in MOVES:
        QUERIES.add(_getter)


def floating(args: Any, kwargs: Any) -> bool:
    """Whether a number of the network is among the arguments."""
    return any(is_number(x) for x in _leaves((args, kwargs)))


def is_number(x: Any) -> bool:
    """Whether x is a tensor of numbers, not of indices or truth values."""
    return isinstance(x, torch.Tensor) and bool(x.is_floating_point())


def moved(call: Call, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The function on what it reads; what it gives has the role of what it read."""
    roles = set()

    def read(x: Any) -> Any:
        if is_number(x):
            x = call.use(x)
            roles.add(call.role(x))
        return x

    result = func(*mapped(args, read), **mapped(kwargs, read))
    role = WEIGHT if roles == {WEIGHT} else INSIDE if roles == {INSIDE} else ACTIVATION
    return mapped(
        result, lambda x: call.tagged(x, role) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
    )


def rounded_afterwards(call: Call, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The function of PyTorch on emulated numbers; its results become activations, their gradients gradients."""
    precision = call.precision

    def stored(x: Any) -> Any:
        if not is_number(x):
            return x
        return call.tagged(convert(call, x, precision.activations, precision.gradients), ACTIVATION)

    return mapped(func(*mapped(args, call.use), **mapped(kwargs, call.use)), stored)


def mapped(x: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(x, (tuple, list)):
        values = [mapped(one, function) for one in x]
        return type(x)(*values) if hasattr(x, "_fields") else type(x)(values)
    if isinstance(x, dict):
        return {name: mapped(one, function) for name, one in x.items()}
    return function(x)


def _leaves(x: Any) -> list[Any]:
    found: list[Any] = []
    mapped(x, found.append)
    return found
