"""Optimizers: one step a file. A new one is one file and one row here.

``kahan`` and ``error_feedback`` wrap a step, and ``clip_by_norm() >> step`` clips its gradient. Weights that are
rounded stochastically are a choice of precision, not a wrapper:
``precision.replace({"w.sub": (fmt, "stochastic"), "w": (fmt, "stochastic")})``.

An installed package adds its own through the entry point group ``fpsim.optimizers``, name -> ``Program``.
"""

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
