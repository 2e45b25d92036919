"""Ordinary PyTorch modules whose forward and backward operations are emulated."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from fpsim.nn import layers
from fpsim.nn.arithmetic import ByDefinition, Fast
from fpsim.nn.call import ACTIVATION, CARRYING, Call
from fpsim.nn.presets import network_precision
from fpsim.nn.roles import NetworkPrecision
from fpsim.nn.table import (
    AT_STORAGE,
    HANDLERS,
    MOVES,
    QUERIES,
    WRITERS,
    WRITES,
    UnsupportedOperation,
    admitted,
    name_of,
)
from fpsim.random_bits import Key, check_key

ARITHMETIC = {"fast": Fast, "exact": ByDefinition}
_CHECKPOINT = "torch.utils.checkpoint"


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
        outer = _get_current_function_mode()
        if isinstance(outer, _Mode):
            with torch._C.DisableTorchFunction():
                args, kwargs = layers.moves.mapped(args, outer.call.use), layers.moves.mapped(kwargs, outer.call.use)
        if self.emulation.key is not None and _checkpoints():
            raise UnsupportedOperation(
                "torch.utils.checkpoint around an emulated module with a key: what it computes again would draw other "
                "bits; admissible: key=None"
            )
        call = self.emulation.begin()
        try:
            with _Mode(call, self.emulation.passthrough):
                return returned(call, super().forward(*args, **kwargs))  # type: ignore[misc]
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
    ``parameters()`` and training mode are as before. Hooks of submodules are emulated with them, those of the module
    itself are its own and run outside. An emulated module inside it is a network of its own. ``emulation.calls``
    counts forward passes. Gradients of several backward passes are added in ``.grad`` by PyTorch, in the parameter's
    dtype

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
    for name, held in vars(module).items():
        if name.endswith("_hooks") or "_hooks_" in name:
            setattr(copied, name, copy.copy(held))
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
        if x.is_floating_point() and x.dtype not in CARRYING:
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
        self.hooks = _top_saved_tensors_default_hooks(True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # An emulated module inside this one computes in its own mode: nothing of it is emulated twice.
        with torch._C.DisableTorchFunction():
            return self._performed(func, args, kwargs)

    def _performed(self, func: Any, args: Any, kwargs: Any) -> Any:
        call = self.call
        hooks = _top_saved_tensors_default_hooks(True)
        if hooks is not self.hooks and hooks and hooks != self.hooks and hooks[0].__module__ == _CHECKPOINT:
            raise UnsupportedOperation(
                "torch.utils.checkpoint inside an emulated module: what it computes again is not emulated; admissible: "
                "around the whole emulated module"
            )
        if not layers.moves.floating(args, kwargs):
            layers.moves.check_real(func, args, kwargs)
            return func(*args, **kwargs)
        if func in WRITES and layers.moves.floating(args[:1], {}):
            return call.replace(args[0], self._left(WRITES[func], args, kwargs))
        storage = call.precision.level == "storage"
        if kwargs.get("out") is not None and (storage or func not in HANDLERS):
            raise UnsupportedOperation(f"{name_of(func)} with out=..; admissible: its result assigned to a name")
        if "inplace" in kwargs or _place_of_inplace(func) < len(args):
            args, kwargs, inplace = _without_inplace(func, args, kwargs)
            if inplace:
                return call.replace(args[0], self._performed(func, args, kwargs))
        if func in HANDLERS and not storage:
            return HANDLERS[func](call, *args, **admitted(func, kwargs))
        if storage and func in AT_STORAGE:
            return AT_STORAGE[func](call, *args, **kwargs)
        if func in MOVES:
            return layers.moves.moved(call, func, args, kwargs)
        if func in QUERIES:
            return func(*layers.moves.mapped(args, self._asked), **layers.moves.mapped(kwargs, self._asked))
        if storage or func in self.passthrough:
            return layers.moves.rounded_afterwards(call, func, args, kwargs)
        raise UnsupportedOperation(
            f"{name_of(func)} is not emulated; admissible: passthrough=[..], or one of: "
            f"{', '.join(sorted({name_of(f) for f in HANDLERS}))}"
        )

    def _left(self, plain: Any, args: Any, kwargs: Any) -> Any:
        """What an operation in place leaves."""
        if plain in WRITERS:
            return plain(self.call, *args, **kwargs)
        if plain in HANDLERS or plain in MOVES or plain in self.passthrough or self.call.precision.level == "storage":
            return self._performed(plain, args, kwargs)
        raise UnsupportedOperation(f"{name_of(plain)}_ in place is not emulated; admissible: one of {_in_place()}")

    def _asked(self, x: Any) -> Any:
        return self.call.latest(x) if isinstance(x, torch.Tensor) else x


def _in_place() -> str:
    return ", ".join(sorted({name_of(f) for f, plain in WRITES.items() if plain in HANDLERS or plain in WRITERS}))


@functools.cache
def _place_of_inplace(func: Any) -> int:
    """The position of the argument ``inplace``; after all arguments where there is none."""
    if not inspect.isfunction(func):
        return 1 << 30
    try:
        names = list(inspect.signature(func).parameters)
    except ValueError:  # a builtin function, wrapped
        return 1 << 30
    return names.index("inplace") if "inplace" in names else 1 << 30


def _without_inplace(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, bool]:
    place = _place_of_inplace(func)
    if place < len(args):
        return (*args[:place], False, *args[place + 1 :]), kwargs, bool(args[place])
    return args, {**kwargs, "inplace": False}, bool(kwargs["inplace"])


def returned(call: Call, result: Any) -> Any:
    """What a forward pass gives: tensors that were changed in place, or were read inside, as they are now; a gradient
    that arrives from outside is added to those of inside by the network's own sums."""
    found: list[int] = []

    def counted(x: Any) -> Any:
        found.append(id(x))
        return x

    def given(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or not call.known(call.latest(x)):
            return x
        if not call.known(x) and not call.changed(x):
            return x  # a tensor from outside, as it is
        return call.leave(call.use(x) if found.count(id(x)) > 1 else x)

    with torch._C.DisableTorchFunction():
        layers.moves.mapped(result, counted)
        return layers.moves.mapped(result, given)


def _checkpoints() -> bool:
    """Whether torch.utils.checkpoint called the emulated module."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == _CHECKPOINT:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


__all__ = ["ACTIVATION", "Emulated", "Emulation", "UnsupportedOperation", "emulate"]
