"""Which functions of PyTorch are emulated, and by what: a layer is one file that registers its functions here.

A handler takes the call and the function's own arguments, ``uses`` the tensors among them, and returns activations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import torch


class UnsupportedOperation(NotImplementedError):
    """A function of PyTorch that is not emulated."""


Handler: TypeAlias = Callable[..., Any]
_H = TypeVar("_H", bound=Handler)

HANDLERS: dict[Any, Handler] = {}
_ARGUMENTS: dict[Handler, frozenset[str]] = {}  # of those that do not take any name
# Handlers that are used at storage level, too: PyTorch's own functions would draw from its own generator.
AT_STORAGE: dict[Any, Handler] = {}
# Functions that move numbers and compute nothing: run as they are, forward and backward.
MOVES: set[Any] = set()
# Functions whose result is no number of the network: sizes, comparisons, indices, new tensors.
QUERIES: set[Any] = set()
# Functions that change their first argument: the function that gives the numbers it holds afterwards.
WRITES: dict[Any, Any] = {}
# Those functions of WRITES that are handlers of this package, on every level, and no functions of PyTorch.
WRITERS: set[Any] = set()


def handles(*functions: Any) -> Callable[[_H], _H]:
    """Register a handler for functions of PyTorch."""

    def register(handler: _H) -> _H:
        for function in functions:
            if function in HANDLERS:
                raise ValueError(f"{name_of(function)} has a handler already")
            HANDLERS[function] = handler
        parameters = inspect.signature(handler).parameters
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            _ARGUMENTS[handler] = frozenset(parameters) - {"call"}
        return handler

    return register


def writes(*functions: Any) -> Callable[[_H], _H]:
    """Register a handler for functions that change their first argument: it returns what they leave there."""

    def register(handler: _H) -> _H:
        WRITERS.add(handler)
        WRITES.update(dict.fromkeys(functions, handler))
        return handler

    return register


def named(*names: str) -> list[Any]:
    """The functions of PyTorch of these names: of ``torch``, of its tensors and of ``torch.nn.functional``."""
    places = (torch, torch.Tensor, torch.nn.functional)
    found = [getattr(place, name, None) for name in names for place in places]
    return list(dict.fromkeys(f for f in found if f is not None))


def admitted(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The named arguments that the function's handler takes; those that are None are left out.

    Raises
    ------
    ValueError
        Another argument.
    """
    known = _ARGUMENTS.get(HANDLERS[function])
    unknown = [name for name in given if name not in known] if known is not None else []
    for name in unknown:
        if given[name] is not None:
            shown = f"a {type(given[name]).__name__}" if isinstance(given[name], torch.Tensor) else repr(given[name])
            raise ValueError(
                f"{name_of(function)}: {name}={shown} is not emulated; admissible: "
                f"{', '.join(sorted((known or frozenset()) - {'_stacklevel'}))}"
            )
    return {name: x for name, x in given.items() if name not in unknown} if unknown else given


def name_of(function: Any) -> str:
    """What a user calls it."""
    own = getattr(function, "__objclass__", None) or getattr(function, "__self__", None)
    name = getattr(function, "__name__", repr(function))
    if name in ("__get__", "__set__"):
        return f"torch.Tensor.{getattr(own, '__name__', own)}"
    module = getattr(function, "__module__", None) or "torch.Tensor"
    return f"{module}.{name}".replace("torch._C._nn", "torch.nn.functional").replace("torch._tensor", "torch.Tensor")
