"""Which programs have a class for PyTorch, and how each is dressed: options of a param group, names of its state.

A class is one ``Face``. ``FACES`` holds those that are written out, and every other program of ``STEPS`` gets one made
from its hyperparameters. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.program import RUNNABLE, Program

# Options that two hyperparameters share, or one has another name for; torch's schedulers look for these.
_BETAS = ("beta1", "beta2")
_ALONE = {"beta1": "momentum", "beta2": "alpha"}
_FIRST = ("lr", "betas", "momentum", "alpha", "eps")  # torch's order of positional arguments
# The classes whose name is not the program's with a capital.
_NAMES = {
    "sgd": "SGD", "signsgd": "SignSGD", "rmsprop": "RMSprop", "adamw": "AdamW", "amsgrad": "AMSGrad", "nadam": "NAdam",
}  # fmt: skip
# What torch.optim calls the states, so that a checkpoint of one optimizer can be read by the other.
_STATES = {
    "momentum": {"m": "momentum_buffer"},
    "signum": {"m": "momentum_buffer"},
    "rmsprop": {"v": "square_avg", "m": "momentum_buffer"},
    "adagrad": {"v": "sum"},
}
_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


def _uniform(dtype: str) -> Precision:
    """Every operation in the format of the parameter."""
    return Precision.uniform(dtype)


@dataclass(frozen=True)
class Face:
    """One optimizer class: everything in which it differs from the others.

    Parameters
    ----------
    name : the class
    program : (options of a param group, number of the step from 0) -> Program with its hyperparameters bound
    defaults : option -> its default, in the order of positional arguments
    states : state array of the program -> its name in ``optimizer.state[p]``; the array ``w`` is the parameter itself,
        and an array without a name here keeps its own
    precision : name of a parameter's dtype -> the precision where a param group gives none
    stages : the program is the same in all steps from number ``stages`` - 1 on: 1, or 2 where the first one differs
    start : state array -> name of the option that holds its start value; the others start at 0
    about : what is computed; the class's documentation shows it
    """

    name: str
    program: Callable[[Mapping[str, Any], int], Program]
    defaults: Mapping[str, Any]
    states: Mapping[str, str] = field(default_factory=dict)
    precision: Callable[[str], Precision] = _uniform
    stages: int = 1
    start: Mapping[str, str] = field(default_factory=dict)
    about: str = ""


def of_program(name: str, program: Program, states: Mapping[str, str] | None = None) -> Face:
    """The face of a program whose hyperparameters are the options of a param group.

    ``beta1`` and ``beta2`` together are the pair ``betas``; alone they are ``momentum`` and ``alpha``, as in torch.

    Examples
    --------
    >>> from fpsim.optim import adam
    >>> dict(of_program("Adam", adam).defaults)
    {'lr': 0.001, 'betas': (0.9, 0.999), 'eps': 1e-08}
    """
    given = dict(program.hyperparameters)
    defaults: dict[str, Any] = {}
    if all(beta in given for beta in _BETAS):
        defaults["betas"] = tuple(given[beta] for beta in _BETAS)
    for hyperparameter, value in given.items():
        if "betas" not in defaults or hyperparameter not in _BETAS:
            defaults[_ALONE.get(hyperparameter, hyperparameter)] = value
    order = [option for option in _FIRST if option in defaults]
    order += [option for option in defaults if option not in order]
    return Face(
        name=name,
        program=partial(_bound, program),
        defaults={option: defaults[option] for option in order},
        states=_MOMENTS if states is None else states,
        about=program.variant,
    )


def _bound(program: Program, options: Mapping[str, Any], _: int) -> Program:
    values = {}
    for hyperparameter in program.hyperparameters:
        if "betas" in options and hyperparameter in _BETAS:
            values[hyperparameter] = options["betas"][_BETAS.index(hyperparameter)]
        else:
            values[hyperparameter] = options[_ALONE.get(hyperparameter, hyperparameter)]
    return program.bind(**values)


# The classes that are written out. A row here stands before the one that is made from a program of the same name.
FACES: dict[str, Face] = {}


def names() -> dict[str, str]:
    """Class -> name of its program in ``STEPS``, or "" where ``FACES`` has it.

    Examples
    --------
    >>> names()["RMSprop"]
    'rmsprop'
    """
    made = {_NAMES.get(step, step.title().replace("_", "")): step for step, program in STEPS.items() if _fits(program)}
    return made | dict.fromkeys(FACES, "")


def face(name: str) -> Face:
    """The face of a class.

    Raises
    ------
    KeyError
        There is no such class.
    """
    if name in FACES:
        return FACES[name]
    step = names()[name]
    return of_program(name, STEPS[step], _STATES.get(step))


def _fits(program: Program) -> bool:
    """Whether a torch optimizer can run it: it reads parameter and gradient, and has no function of its caller's."""
    read = set(program.inputs) - set(program.state)
    return read == {"g"} and "w" in program.state and all(o.kind in RUNNABLE for o in program.operations)
