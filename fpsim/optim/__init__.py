"""Optimizers: one step a file. A new one is one file and one row here.

``kahan`` and ``error_feedback`` wrap a step, and ``clip_by_norm() >> step`` clips its gradient. Weights that are
rounded stochastically are a choice of precision, not a wrapper:
``precision.replace({"w.sub": (fmt, "stochastic"), "w": (fmt, "stochastic")})``.

An installed package adds its own through the entry point group ``fpsim.optimizers``, name -> ``Program``.

For PyTorch every step is a class too, such as ``fpsim.optim.Adam(params, lr=..., precision=...)``, a
``torch.optim.Optimizer``. The classes are made on first access, because torch is loaded with them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fpsim import plugins
from fpsim.optim.adafactor import adafactor, adafactor_vector
from fpsim.optim.adagrad import adagrad
from fpsim.optim.adam import adam
from fpsim.optim.adam_sums import adam_sums
from fpsim.optim.adamw import adamw
from fpsim.optim.amsgrad import amsgrad
from fpsim.optim.clipping import clip_by_norm
from fpsim.optim.error_feedback import error_feedback
from fpsim.optim.heavy_ball import heavy_ball
from fpsim.optim.kahan import kahan
from fpsim.optim.lion import lion
from fpsim.optim.nadam import nadam
from fpsim.optim.nesterov import nesterov
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.rmsprop_centered import rmsprop_centered
from fpsim.optim.sgd import momentum, sgd
from fpsim.optim.sign_sgd import sign_sgd
from fpsim.optim.signum import signum
from fpsim.program import Program

if TYPE_CHECKING:
    from fpsim.optim.matrix import MatrixMethod

STEPS: dict[str, Program] = {
    "sgd": sgd,
    "momentum": momentum,
    "heavy_ball": heavy_ball,
    "nesterov": nesterov,
    "sign_sgd": sign_sgd,
    "signum": signum,
    "lion": lion,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "rmsprop_centered": rmsprop_centered,
    "adam": adam,
    "adam_sums": adam_sums,
    "adamw": adamw,
    "amsgrad": amsgrad,
    "nadam": nadam,
    "adafactor": adafactor,
    "adafactor_vector": adafactor_vector,
}
GROUP = "fpsim.optimizers"

__all__ = [
    "STEPS",
    "adafactor",
    "adafactor_vector",
    "adagrad",
    "adam",
    "adam_sums",
    "adamw",
    "amsgrad",
    "available",
    "clip_by_norm",
    "error_feedback",
    "find",
    "heavy_ball",
    "kahan",
    "lion",
    "momentum",
    "nadam",
    "nesterov",
    "rmsprop",
    "rmsprop_centered",
    "sgd",
    "sign_sgd",
    "signum",
    "torch_class",
]


def available() -> list[str]:
    """Every name that ``find`` takes: fpsim's own first, then those of installed packages."""
    return [*STEPS, *plugins.names(GROUP, STEPS)]


def find(name: str) -> tuple[Program, str]:
    """The step of a name, and the package that it comes from ("" for fpsim's own, which need no look around).

    Raises
    ------
    KeyError
        Neither fpsim nor an installed package has the name.
    ValueError
        A package has it, and it cannot be loaded or is no ``Program``; the message names the package.

    Examples
    --------
    >>> find("sgd")[0].state
    ('w',)
    """
    if name in STEPS:
        return STEPS[name], ""
    program, package = plugins.load(GROUP, name)
    if not isinstance(program, Program):
        raise plugins.PluginError(
            f"{name!r} of package {package} is a {type(program).__name__}; a Program (what fpsim.step makes) is needed"
        )
    return program, package


def torch_class(program: Program | MatrixMethod, name: str | None = None) -> Any:
    """A step of your own as a class of PyTorch's optimizers, like ``fpsim.optim.Adam``.

    Parameters
    ----------
    program : a step that stores the weights ``w`` and reads the gradient ``g`` besides its states, which start at 0; or
        a method of ``fpsim.optim.matrix``, such as ``muon(ns_steps=3)``
    name : of the class; default: the program's

    Returns
    -------
    class : a ``torch.optim.Optimizer`` that takes ``params``, the program's hyperparameters (``beta1`` and ``beta2``
        together as ``betas``, alone as ``momentum`` and ``alpha``), ``precision``, ``key`` and ``run``

    Raises
    ------
    ValueError
        The program has another input, or no ``w``.

    Examples
    --------
    >>> import fpsim, torch
    >>> @fpsim.step
    ... def signs(w, g, *, lr=0.25):
    ...     return {"w": fpsim.slot("w.sub", w - fpsim.slot("update.scale", lr * fpsim.tracing.sign(g)))}
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    >>> optimizer = torch_class(signs, "Signs")([w], precision=fpsim.Precision.uniform("float8_e4m3fn"))
    >>> w.grad = torch.tensor([0.1, -0.001])
    >>> optimizer.step()
    >>> w.tolist()
    [0.75, -0.75]
    """
    table, face = _torch_module("torch_table", "torch_class"), _torch_module("torch_face", "torch_class")
    return face.class_of(table.of_program(name or program.name, program))


def __getattr__(name: str) -> Any:
    """The class of a step for PyTorch, made when it is first asked for."""
    if not name[:1].isupper() or name not in importlib.import_module("fpsim.optim.torch_table").names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = _torch_module("torch_face", name).make(name)
    globals()[name] = made  # found without this function from now on
    return made


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("fpsim.optim.torch_table").names()})


def _torch_module(module: str, asked: str) -> Any:
    """A module of this package that needs torch, for what was asked."""
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"fpsim.optim.{asked} is for PyTorch and needs it: pip install 'fpsim[torch]'. Without it, fpsim.run takes "
            "the programs of fpsim.optim.STEPS"
        ) from error
    return importlib.import_module(f"fpsim.optim.{module}")
