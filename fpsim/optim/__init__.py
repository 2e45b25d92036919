"""Optimizers: one step a file. A new one is one file and one row here.

``kahan`` and ``error_feedback`` wrap a step, and ``clip_by_norm() >> step`` clips its gradient. Weights that are
rounded stochastically are a choice of precision, not a wrapper:
``precision.replace({"w.sub": (fmt, "stochastic"), "w": (fmt, "stochastic")})``.

An installed package adds its own through the entry point group ``fpsim.optimizers``, name -> ``Program``.

For PyTorch every step is a class too, such as ``fpsim.optim.Adam(params, lr=..., precision=...)``, a
``torch.optim.Optimizer``. The classes are made on first access, because torch is loaded with them.
"""

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    """The class of a step for PyTorch, made when it is first asked for."""
    if not name[:1].isupper() or name not in importlib.import_module("fpsim.optim.torch_table").names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"fpsim.optim.{name} is a torch.optim.Optimizer and needs PyTorch: pip install 'fpsim[torch]'. "
            f"Without it, fpsim.run takes fpsim.optim.find(...)'s programs"
        ) from error
    made = importlib.import_module("fpsim.optim.torch_face").make(name)
    globals()[name] = made  # found without this function from now on
    return made


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("fpsim.optim.torch_table").names()})
