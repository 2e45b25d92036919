"""Which functions of PyTorch are emulated, and by what: a layer is one file that registers its functions here.

A handler takes the call and the function's own arguments, ``uses`` the tensors among them, and returns activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

Handler: TypeAlias = Callable[..., Any]
_H = TypeVar("_H", bound=Handler)

HANDLERS: dict[Any, Handler] = {}
# Functions that move numbers and compute nothing: run as they are, forward and backward.
MOVES: set[Any] = set()
# Functions whose result is no number of the network: sizes, comparisons, indices, new tensors.
QUERIES: set[Any] = set()


def handles(*functions: Any) -> Callable[[_H], _H]:
    """Register a handler for functions of PyTorch."""

    def register(handler: _H) -> _H:
        for function in functions:
            if function in HANDLERS:
                raise ValueError(f"{name_of(function)} has a handler already")
            HANDLERS[function] = handler
        return handler

    return register


def name_of(function: Any) -> str:
    """What a user calls it."""
    own = getattr(function, "__objclass__", None) or getattr(function, "__self__", None)
    name = getattr(function, "__name__", repr(function))
    if name in ("__get__", "__set__"):
        return f"torch.Tensor.{getattr(own, '__name__', own)}"
    module = getattr(function, "__module__", None) or "torch.Tensor"
    return f"{module}.{name}".replace("torch._C._nn", "torch.nn.functional").replace("torch._tensor", "torch.Tensor")
