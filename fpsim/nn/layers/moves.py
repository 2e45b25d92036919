"""Functions that move numbers, functions that write in place, and functions that PyTorch computes.

What only moves numbers is exact, forward and backward; a zero keeps its sign. Where a number is read in several places
(``expand``, ``repeat``, ``gather``, an index that names it twice), its gradient is a sum: see ``fpsim.nn.sources``.
"""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from fpsim.nn import primitives
from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, CARRYING, INSIDE, Call, convert
from fpsim.nn.layers import extremes
from fpsim.nn.sources import gathered
from fpsim.nn.table import MOVES, QUERIES, WRITES, UnsupportedOperation, handles, name_of, named, writes

_MOVED = (
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "movedim", "moveaxis",
    "swapaxes", "swapdims", "t", "adjoint", "ravel", "contiguous", "clone", "chunk", "split", "split_with_sizes",
    "unbind", "narrow", "select", "view_as", "reshape_as", "flip",
    "fliplr", "flipud", "roll", "rot90", "tril", "triu", "diagonal", "detach", "cat", "concat", "concatenate", "stack",
    "hstack", "vstack", "dstack", "column_stack", "row_stack", "atleast_1d", "atleast_2d", "atleast_3d",
)  # fmt: skip
_REPEATED = (
    "expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave", "gather", "index_select", "take",
    "take_along_dim", "masked_select", "unfold",
)  # fmt: skip
_ASKED = (
    "size", "dim", "numel", "item", "tolist", "argmax", "argmin", "argsort", "is_floating_point", "__len__",
    "ndimension", "isfinite", "isnan", "isinf", "all", "any", "allclose", "equal", "count_nonzero", "nonzero",
    "gt", "lt", "ge", "le", "eq", "ne", "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "__ne__", "signbit",
    "stride", "storage_offset", "is_contiguous", "is_complex", "is_same_size", "type", "data_ptr", "untyped_storage",
    "element_size", "get_device", "requires_grad_", "retain_grad", "long", "int", "bool",
    "__bool__", "__float__", "__format__", "__repr__", "__hash__", "new_zeros", "new_ones", "new_full", "new_empty",
    "new_tensor", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like",
)  # fmt: skip
_GETTERS_THAT_MOVE = ("T", "mT", "H", "mH")
_CAST = ("to", "float", "double", "half", "bfloat16", "type_as", "cpu", "cuda")


MOVES.update(named(*_MOVED))
MOVES.update(getattr(torch.Tensor, name).__get__ for name in _GETTERS_THAT_MOVE)
QUERIES.update(named(*_ASKED))
for _name in dir(torch.Tensor):
    _getter = getattr(getattr(torch.Tensor, _name), "__get__", None)
    if type(getattr(torch.Tensor, _name)).__name__ in ("getset_descriptor", "property") and _getter not in MOVES:
        QUERIES.add(_getter)


def floating(args: Any, kwargs: Any) -> bool:
    """Whether a number of the network is among the arguments."""
    return (bool(args) and is_number(args[0])) or any(is_number(x) for x in _leaves((args, kwargs)))


def check_real(func: Any, args: Any, kwargs: Any) -> None:
    """Raise for complex numbers, which would be computed by PyTorch unseen."""
    if any(isinstance(x, torch.Tensor) and x.is_complex() for x in _leaves((args, kwargs))) and func not in QUERIES:
        raise UnsupportedOperation(f"{name_of(func)} of complex numbers is not emulated; admissible: real numbers")


def is_number(x: Any) -> bool:
    """Whether x is a tensor of numbers, not of indices or truth values."""
    return isinstance(x, torch.Tensor) and bool(x.is_floating_point())


def moved(call: Call, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The function on what it reads. The result has the role of what was read; numbers of several roles become
    activations first."""
    roles = {call.read_role(x) for x in _leaves((args, kwargs)) if is_number(x)}
    role = roles.pop() if len(roles) == 1 else ACTIVATION

    def read(x: Any) -> Any:
        return as_role(call, x, role) if is_number(x) else x

    result = func(*mapped(args, read), **mapped(kwargs, read))
    return mapped(result, lambda x: call.tagged(x, role) if is_number(x) else x)


def as_role(call: Call, x: Tensor, role: str) -> Tensor:
    """x as it is read, rounded to an activation where it has another role than ``role``."""
    x = call.use(x)
    if call.role(x) == role:
        return x
    rounded = convert(call, x, call.precision.activations, call.gradient_slot(call.role(x)))
    return call.tagged(rounded, ACTIVATION)


def constant(call: Call, x: Tensor, number: Any) -> float:
    """A number that stands beside those of x: rounded to nearest even to the format of an activation."""
    if isinstance(number, torch.Tensor):
        if number.numel() != 1 or number.requires_grad:
            raise ValueError(f"a value of shape {tuple(number.shape)}; admissible: one number without a gradient")
        number = number.item()
    fmt, _ = call.precision.inside if call.role(x) == INSIDE else call.precision.activations
    return float(primitives.constant(float(number), x, fmt))


# Numbers that are read in several places


def _repeating(name: str, func: Callable[..., Any]) -> Callable[..., Any]:
    def handler(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not is_number(input):
            return func(input, *args, **kwargs)
        given = [call.latest(x) if isinstance(x, torch.Tensor) else x for x in args]
        return gathered(call, input, lambda x: func(x, *given, **kwargs))

    handler.__doc__ = f"``{name}``: exact; the gradient of a number that occurs twice is a sum."
    return handler


for _name in _REPEATED:
    for _func in named(_name):
        handles(_func)(_repeating(_name, _func))


@handles(torch.broadcast_tensors)
def broadcast_tensors(call: Call, *tensors: Any) -> Any:
    shape = torch.broadcast_shapes(*(x.shape for x in tensors))
    return tuple(_expanded(call, x, shape) for x in tensors)


@handles(torch.Tensor.__getitem__)
def getitem(call: Call, input: Tensor, index: Any) -> Tensor:
    """Slices and whole numbers are exact both ways; other indices are those of ``gather``."""
    if not is_number(input) or _basic(index):
        return moved(call, torch.Tensor.__getitem__, (input, index), {})
    return gathered(call, input, lambda x: x[index])


@handles(torch.tensor_split, torch.Tensor.tensor_split)
def tensor_split(call: Call, input: Tensor, indices_or_sections: Any, dim: int = 0) -> Any:
    """As ``split``, whose derivative is one: that of PyTorch's tensor_split adds up."""
    pieces = torch.tensor_split(call.latest(input), indices_or_sections, dim)
    return moved(call, torch.split, (input, [piece.shape[dim] for piece in pieces], dim), {})


@handles(functional.pad)
def pad(call: Call, input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """Exact; a constant is rounded. Numbers that are mirrored or repeated have sums as gradients."""
    if mode != "constant":
        return gathered(call, input, lambda x: functional.pad(x, pad, mode))
    if not value:
        return moved(call, functional.pad, (input, pad), {})
    number = constant(call, call.use(input), value)
    return moved(call, lambda x: functional.pad(x, pad, mode, number), (input,), {})


def _expanded(call: Call, x: Tensor, shape: Any) -> Tensor:
    return x if x.shape == shape else gathered(call, x, lambda one: one.expand(shape))


def _basic(index: Any) -> bool:
    """Whether an index reads every number at most once, and PyTorch's derivative of it only copies."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts)


# Choices


@handles(torch.masked_fill, torch.Tensor.masked_fill)
def masked_fill(call: Call, input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """As ``where(mask, value, input)``."""
    return extremes.where(call, mask, value, input)


# Carriers


def _cast(name: str, func: Callable[..., Any]) -> Callable[..., Any]:
    def handler(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        y = moved(call, func, (input, *args), kwargs)
        if is_number(y) and y.dtype not in CARRYING:
            raise ValueError(
                f"{name} to {y.dtype}; admissible: torch.float32, torch.float64, which carry emulated numbers"
            )
        return y

    handler.__doc__ = f"``{name}``: another dtype that carries the same numbers, or another device."
    return handler


for _name in _CAST:
    handles(getattr(torch.Tensor, _name))(_cast(_name, getattr(torch.Tensor, _name)))

# Writing in place

for _of in (torch, torch.Tensor, functional):
    for _name in dir(_of):
        _plain = getattr(_of, _name.removesuffix("_"), None)
        if _name.endswith("_") and not _name.endswith("__") and callable(_plain):
            WRITES[getattr(_of, _name)] = _plain
WRITES.update({torch.Tensor.__iadd__: torch.Tensor.add, torch.Tensor.__isub__: torch.Tensor.sub})
WRITES.update({torch.Tensor.__imul__: torch.Tensor.mul, torch.Tensor.__itruediv__: torch.Tensor.div})
for _name in ("requires_grad_", "copy_", "retain_grad_"):
    WRITES.pop(getattr(torch.Tensor, _name, None), None)


@writes(torch.Tensor.copy_)
def copied(call: Call, input: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """What is copied takes the place of the numbers; broadcast where it is smaller."""
    return moved(call, torch.clone, (_expanded(call, src, input.shape),), {})


@writes(torch.Tensor.fill_)
def filled(call: Call, input: Tensor, value: Any) -> Tensor:
    return call.tagged(torch.full_like(input, constant(call, call.latest(input), value)), ACTIVATION)


@writes(torch.Tensor.zero_)
def zeroed(call: Call, input: Tensor) -> Tensor:
    return call.tagged(torch.zeros_like(input), ACTIVATION)


@writes(torch.Tensor.__setitem__)
def setitem(call: Call, input: Tensor, index: Any, value: Any) -> Tensor:
    """Exact; a constant is rounded. An index that names a number twice is refused: which value stays is not defined."""
    places = torch.arange(input.numel(), device=input.device).reshape(input.shape)[index]
    if not _basic(index) and places.unique().numel() != places.numel():
        raise ValueError("x[index] = .. with an index that names a number twice; admissible: each number once")

    def written(x: Tensor, y: Any) -> Tensor:
        x = x.clone()
        x[index] = y
        return x

    if not is_number(value):
        number = constant(call, call.latest(input), value)
        return moved(call, lambda x: written(x, number), (input,), {})
    while value.ndim > places.ndim and value.shape[0] == 1:
        value = moved(call, torch.Tensor.select, (value, 0, 0), {})
    return moved(call, written, (input, _expanded(call, value, places.shape)), {})


# What PyTorch computes


def rounded_afterwards(call: Call, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The function of PyTorch on emulated numbers; its results become activations, their gradients gradients."""
    precision = call.precision

    def stored(x: Any) -> Any:
        if not is_number(x):
            return x
        return call.tagged(convert(call, x, precision.activations, precision.gradients), ACTIVATION)

    return mapped(func(*mapped(args, call.use), **mapped(kwargs, call.use)), stored)


def mapped(x: Any, function: Callable[[Any], Any]) -> Any:
    """The function on all that tuples, lists, dictionaries and dataclasses hold; what does not change is given back."""
    if isinstance(x, (tuple, list)) and not isinstance(x, torch.Size):
        values = [mapped(one, function) for one in x]
        if all(new is old for new, old in zip(values, x, strict=True)):
            return x
        return type(x)(*values) if hasattr(x, "_fields") else type(x)(values)
    if isinstance(x, dict):
        held: dict[Any, Any] = x
        put: Callable[..., None] = operator.setitem
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        held = {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
        put = object.__setattr__
    else:
        return function(x)
    changed = {name: mapped(one, function) for name, one in held.items()}
    if all(changed[name] is one for name, one in held.items()):
        return x
    x = copy.copy(x)
    for name, one in changed.items():
        put(x, name, one)
    return x


def _leaves(x: Any) -> list[Any]:
    found: list[Any] = []
    mapped(x, found.append)
    return found
