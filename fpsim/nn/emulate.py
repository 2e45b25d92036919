"""Ordinary PyTorch modules whose forward and backward operations are emulated."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fpsim.nn import layers
from fpsim.nn.arithmetic import ByDefinition, Fast
from fpsim.nn.call import ACTIVATION, Call
from fpsim.nn.presets import network_precision
from fpsim.nn.roles import NetworkPrecision
from fpsim.nn.table import HANDLERS, MOVES, QUERIES, name_of
from fpsim.random_bits import Key, check_key

ARITHMETIC = {"fast": Fast, "exact": ByDefinition}
CARRIERS = {torch.float32: "binary32", torch.float64: "binary64"}


class UnsupportedOperation(NotImplementedError):
    """A function of PyTorch that is not emulated."""


class Emulation:
    """What an emulated module keeps beside what the module has.

    Attributes
    ----------
    precision : NetworkPrecision
    key : Key or None
    calls : int, forward passes so far; with the key it names the random bits of the next. A run that is resumed sets it
        to what it was
    """

    def __init__(
        self, precision: NetworkPrecision, key: Key | None, arithmetic: str, passthrough: frozenset[Any]
    ) -> None:
        self.precision, self.key, self.passthrough = precision, key, passthrough
        self.arithmetic = ARITHMETIC[arithmetic]()
        self.calls = 0

    def begin(self) -> Call:
        call = Call(self.precision, self.arithmetic, self.key, self.calls)
        self.calls += 1
        return call


class Emulated:
    """What ``emulate`` adds to a module's class."""

    emulation: Emulation

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call = self.emulation.begin()
        try:
            with _Mode(call, self.emulation.passthrough):
                result = super().forward(*args, **kwargs)  # type: ignore[misc]
            return layers.moves.mapped(result, call.leave)
        finally:
            call.finish()

    def __reduce__(self) -> Any:
        """Made anew from its class's parent: a class made at run time cannot be found by its name."""
        return _rebuilt, (type(self).__bases__[1],), self.__dict__


def emulate(
    module: torch.nn.Module,
    precision: NetworkPrecision | str,
    *,
    key: Key | None = None,
    arithmetic: str = "fast",
    passthrough: Iterable[Any] = (),
) -> Any:
    """A module with the same parameters whose forward and backward operations are emulated.

    Parameters
    ----------
    module : torch.nn.Module of float32 or float64 parameters, which carry the emulated numbers; it is not changed
    precision : NetworkPrecision, or the name of a preset (``fpsim.nn.PRESETS``) or of a format for all roles
    key : Key, needed where a role rounds stochastically
    arithmetic : "fast", or "exact": rational arithmetic, for small shapes
    passthrough : functions of PyTorch, such as ``torch.cumsum``, that are computed by PyTorch and rounded to an
        activation afterwards

    Returns
    -------
    a module of a subclass of the module's class, which shares its parameters, buffers and submodules: ``state_dict``,
    ``parameters()`` and training mode are as before. ``emulation.calls`` counts forward passes

    Raises
    ------
    TypeError
        Something else in the place of a module, a precision or a key.
    ValueError
        A dtype that cannot hold a format of the precision, a missing key.
    UnsupportedOperation
        By the forward pass: a function that is not emulated; the message lists those that are.

    Examples
    --------
    >>> import torch, fpsim.nn
    >>> layer = torch.nn.Linear(1, 1)
    >>> _ = torch.nn.init.constant_(layer.weight, 1.0), torch.nn.init.constant_(layer.bias, 2.0**-9)
    >>> emulate(layer, "bfloat16")(torch.ones(1, 1)).item(), layer(torch.ones(1, 1)).item()
    (1.0, 1.001953125)
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; admissible: a torch.nn.Module")
    if isinstance(module, Emulated):
        raise TypeError("module is emulated already; admissible: the module that it was made from")
    if arithmetic not in ARITHMETIC:
        raise ValueError(f"arithmetic={arithmetic!r}; admissible: {', '.join(ARITHMETIC)}")
    precision = network_precision(precision)
    check_key(key)
    if precision.draws and key is None:
        raise ValueError("key=None: the precision rounds stochastically and needs a Key")
    _check_carriers(module, precision)
    copied = copy.copy(module)
    of: Any = type(module)
    copied.__class__ = _emulated_class(of)
    copied.emulation = Emulation(precision, key, arithmetic, frozenset(passthrough))
    return copied


@functools.cache
def _emulated_class(of: Any) -> Any:
    return type(of.__name__, (Emulated, of), {"__doc__": of.__doc__, "__module__": of.__module__})


def _rebuilt(of: Any) -> Any:
    made = _emulated_class(of)
    return made.__new__(made)


def _check_carriers(module: torch.nn.Module, precision: NetworkPrecision) -> None:
    from fpsim.array_call import check_holds

    for name, x in [*module.named_parameters(), *module.named_buffers()]:
        if x.is_floating_point() and x.dtype not in CARRIERS:
            raise ValueError(
                f"{name!r} has dtype {x.dtype}; admissible: torch.float32, torch.float64, which carry numbers"
            )
        if x.is_floating_point():
            for fmt in precision.formats():
                check_holds(str(x.dtype).removeprefix("torch."), fmt, False)


class _Mode(TorchFunctionMode):  # type: ignore[misc]
    """Sends every function of PyTorch that a forward pass calls to its handler."""

    def __init__(self, call: Call, passthrough: frozenset[Any]) -> None:
        super().__init__()
        self.call, self.passthrough = call, passthrough

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # An emulated module inside this one computes in its own mode: nothing of it is emulated twice.
        with torch._C.DisableTorchFunction():
            return self._performed(func, args, kwargs)

    def _performed(self, func: Any, args: Any, kwargs: Any) -> Any:
        call = self.call
        storage = call.precision.level == "storage"
        if func in HANDLERS and not storage:
            return HANDLERS[func](call, *args, **kwargs)
        if func in MOVES:
            return layers.moves.moved(call, func, args, kwargs)
        if func in QUERIES or not layers.moves.floating(args, kwargs):
            return func(*args, **kwargs)
        if storage or func in self.passthrough:
            return layers.moves.rounded_afterwards(call, func, args, kwargs)
        raise UnsupportedOperation(
            f"{name_of(func)} is not emulated; admissible: passthrough=[..], or one of: "
            f"{', '.join(sorted({name_of(f) for f in HANDLERS}))}"
        )


__all__ = ["ACTIVATION", "Emulated", "Emulation", "UnsupportedOperation", "emulate"]
