"""The options of a param group: checked, and what the documentation of a class says of them."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch

from fpsim.formats import NAMED
from fpsim.number_format import Format
from fpsim.optim.matrix import MatrixMethod
from fpsim.optim.torch_dtypes import DTYPES
from fpsim.optim.torch_row import Face
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key

# Arguments of torch.optim that choose among implementations with the same mathematics; here there is one.
IMPLEMENTATIONS = ("foreach", "fused", "capturable", "differentiable")
OWN: dict[str, Any] = {"precision": None, "key": None, "run": 0}  # options that every class has besides its own
_NOT_NEGATIVE = ("lr", "eps", "weight_decay", "momentum", "alpha", "lr_decay", "momentum_decay")
_NOTES = ("max_", "min_", "base_", "initial_")  # of schedulers

_DOCUMENTATION = """{name} as a ``torch.optim.Optimizer``, every operation rounded as ``precision`` says.

{about}

Parameters
----------
params : parameters or dicts of param groups, as for any ``torch.optim.Optimizer``; real, of dtype float32, float64,
    bfloat16 or float16, with dense gradients
{options} :
    numbers, and flags where the default is one; may change from step to step, as schedulers do
precision : fpsim.Precision of the program ``fpsim.optim.{name}.program``, each param group its own;
    default: {precision}
key : fpsim.Key or its seed, needed where a slot rounds stochastically; parameter number i draws from ``key.fold(i)``
run : int, the number of the run in the random bits

Raises
------
TypeError
    An unknown option, among them ``foreach`` and ``fused``: there is one implementation.
ValueError
    A value outside its interval, a precision whose arrays do not fit into the dtype of a parameter, a missing key.

Notes
-----
What is stored in ``state[p]``: ``step``, a tensor as in torch, of dtype float64; and {states},
in the parameter's dtype if that has every value of the slot's format, else in float32, else in float64.
Elements of a parameter are numbered in C order. ``state_dict()`` holds plain data: ``torch.load`` takes it with
``weights_only=True``. A start state or a parameter off the grid of its slot is rounded to it, as ``fpsim.run`` does.
Parameters on a CUDA device are copied to the CPU and back in every step, for the same bits.

Examples
--------
>>> import torch, fpsim
>>> w = torch.nn.Parameter(torch.tensor({start}))
>>> optimizer = fpsim.optim.{name}([w],{key} precision=fpsim.Precision.uniform("e8m16"))
>>> for _ in range(3):
...     optimizer.zero_grad()
...     (w * w).sum().backward()
...     optimizer.step()
>>> bool(w.abs().sum() < 3)
True
"""


def documentation(face: Face, program: Program | MatrixMethod) -> str:
    """What ``help`` shows of a class."""
    states = ", ".join(face.states.get(x, x) for x in program.state if x != "w") or "nothing else"
    about = face.about.replace("\n\n", "\n").strip()
    precision = "every operation in the format of the parameter's dtype"
    if face.tails is not None:
        precision = (
            "``fpsim.Precision.torch`` of the parameter's dtype, and with it on a CPU the bits of\n"
            f"    ``torch.optim.{face.name}(..., foreach=False)``; float64, for which there is none, in binary64. In\n"
            "    the 16-bit types parameter, gradient and states must fill their memory in one order, else a\n"
            "    ``LayoutWarning`` comes"
        )
    method = program if isinstance(program, MatrixMethod) else None
    return _DOCUMENTATION.format(
        name=face.name, about=about, options=", ".join(face.defaults), states=states, precision=precision,
        start="[[1.0, -2.0]]" if method else "[1.0, -2.0]",
        key=" key=0," if method and method.draws else "",
    )  # fmt: skip


def signature(face: Face) -> inspect.Signature:
    """The arguments of a class: its own options by place or name, the common ones by name."""
    by_place, by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    own = [inspect.Parameter(option, by_place, default=x) for option, x in face.defaults.items()]
    common = [inspect.Parameter(option, by_name, default=x) for option, x in OWN.items()]
    return inspect.Signature([inspect.Parameter("params", by_place), *own, *common])


def check_names(face: Face, given: Iterable[str], strict: bool) -> None:
    """Refuse options that would do nothing. Not strict: a param group may hold notes of its user and of schedulers."""
    known = [*face.defaults, *OWN]
    for name in given:
        if name in known or (not strict and name.startswith(_NOTES)):
            continue
        if name in IMPLEMENTATIONS:
            raise TypeError(f"{face.name}: option {name!r} chooses an implementation of PyTorch's; fpsim has one")
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if strict or close:
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise TypeError(f"{face.name}: option {name!r} is unknown; {hint}")


def common_name(fmt: Format) -> str:
    """``binary32`` rather than ``e8m23``."""
    return next((name for name, named in NAMED.items() if named == fmt), fmt.name)


def check_common(where: str, precision: Any, run: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` for what is no precision or no number of a run."""
    if precision is not None and not isinstance(precision, Precision):
        raise TypeError(f"{where}precision={precision!r}: a fpsim.Precision is needed, or None")
    if isinstance(run, bool) or not isinstance(run, int) or not 0 <= run < 1 << 32:
        raise ValueError(f"{where}run={run!r}; admissible: 0..2^32-1")


def seed_of(key: Any) -> int | None:
    """A key as the seed that makes it: param groups are saved as plain data."""
    if key is None or isinstance(key, Key):
        return None if key is None else key.seed
    if isinstance(key, bool) or not isinstance(key, int):
        raise TypeError(f"key={key!r}: a fpsim.Key or its seed is needed")
    return Key(key).seed


def checked(face: Face, where: str, name: str, value: Any) -> Any:
    """An option as a number, as a tuple of numbers, or as the flag that it is."""
    default = face.defaults[name]
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise TypeError(f"{where}{name}={value!r}; admissible: True, False")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(default):
            raise ValueError(f"{where}{name}={value!r}: {len(default)} numbers are needed")
        return tuple(_number(face, where, name, x) for x in value)
    return _number(face, where, name, value)


def _number(face: Face, where: str, name: str, value: Any) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.dtype in DTYPES:
        value = value.item()  # torch lets a learning rate be a tensor
    elif hasattr(value, "dtype") and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where}{name}={value!r}: a finite number is needed")
    if name in face.below_one and not 0 <= value < 1:
        raise ValueError(f"{where}{name}={value!r}; admissible: at least 0, below 1")
    if name in _NOT_NEGATIVE and value < 0:
        raise ValueError(f"{where}{name}={value!r}; admissible: at least 0")
    return value
