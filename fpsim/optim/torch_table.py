"""Which programs have a class for PyTorch, and how each is dressed: options of a param group, names of its state.

A class is one ``Face``. ``FACES`` holds those that are written out, and every other program of ``STEPS`` gets one made
from its hyperparameters. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.program import RUNNABLE, Program

Function: TypeAlias = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

# Options that two hyperparameters share, or one has another name for; torch's schedulers look for these.
_BETAS = ("beta1", "beta2")
_ALONE = {"beta1": "momentum", "beta2": "alpha"}
_FIRST = ("lr", "betas", "momentum", "alpha", "eps")  # torch's order of positional arguments
# The classes whose name is not the program's with capitals.
_NAMES = {
    "sgd": "SGD",
    "sign_sgd": "SignSGD",
    "rmsprop": "RMSprop",
    "rmsprop_centered": "RMSpropCentered",
    "adamw": "AdamW",
    "amsgrad": "AMSGrad",
    "nadam": "NAdam",
}
# What a program of matrices does not take has a program of vectors.
_OF_VECTORS = {"adafactor": "adafactor_vector"}
# What torch.optim calls the states, so that a checkpoint of one optimizer can be read by the other.
_STATES = {
    "heavy_ball": {"m": "momentum_buffer"},
    "nesterov": {"m": "momentum_buffer"},
    "rmsprop": {"v": "square_avg"},
    "rmsprop_centered": {"v": "square_avg", "m": "grad_avg"},
    "adagrad": {"v": "sum"},
    "adafactor": {},  # torch's are means, these are sums
}
_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}


def _uniform(dtype: str) -> Precision:
    """Every operation in the format of the parameter."""
    return Precision.uniform(dtype)


@dataclass(frozen=True)
class Spot:
    """What a program may depend on besides the options of a param group.

    Parameters
    ----------
    step : its number, from 0;  dtype : name of the parameter's dtype;  ndim : number of its axes
    tail : whether it is for the elements that ``Face.tails`` marks
    """

    step: int
    dtype: str
    ndim: int
    tail: bool = False


@dataclass(frozen=True)
class Face:
    """One optimizer class: everything in which it differs from the others.

    Parameters
    ----------
    name : the class
    program : (options of a param group, Spot) -> Program with its hyperparameters bound; it reads ``w`` and ``g``
    defaults : option -> its default, in the order of positional arguments
    states : state array of the program -> its name in ``optimizer.state[p]``; the array ``w`` is the parameter itself,
        and an array without a name here keeps its own
    precision : name of a parameter's dtype -> the precision where a param group gives none
    stages : the program is the same in all steps from number ``stages`` - 1 on: 1, or 2 where the first one differs
    start : state array -> its start value, or the name of the option that holds it; the others start at 0
    functions : name of an opaque operation -> what computes it, of float64 ``[d]``
    tails : (number of elements, name of the dtype, whether they are contiguous) -> ranges (start, stop) of elements, in
        C order, that have a program of their own; for elementwise programs
    about : what is computed; the class's documentation shows it
    """

    name: str
    program: Callable[[Mapping[str, Any], Spot], Program]
    defaults: Mapping[str, Any]
    states: Mapping[str, str] = field(default_factory=dict)
    precision: Callable[[str], Precision] = _uniform
    stages: int = 1
    start: Mapping[str, float | str] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    tails: Callable[[int, str, bool], Sequence[tuple[int, int]]] | None = None
    about: str = ""


def of_program(
    name: str, program: Program, states: Mapping[str, str] | None = None, of_vectors: Program | None = None
) -> Face:
    """The face of a program whose hyperparameters are the options of a param group.

    ``beta1`` and ``beta2`` together are the pair ``betas``; alone they are ``momentum`` and ``alpha``, as in torch.
    ``of_vectors``, with the same hyperparameters, is for parameters that have not two axes.

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
        program=partial(_bound, program, of_vectors or program),
        defaults={option: defaults[option] for option in order},
        states=_MOMENTS if states is None else states,
        about=program.variant,
    )


def _bound(of_matrices: Program, of_others: Program, options: Mapping[str, Any], spot: Spot) -> Program:
    program = of_matrices if spot.ndim == 2 else of_others
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
    return of_program(name, STEPS[step], _STATES.get(step), STEPS.get(_OF_VECTORS.get(step, "")))


def _fits(program: Program) -> bool:
    """Whether a torch optimizer can run it: it reads parameter and gradient, and holds no function of its caller's."""
    read = set(program.inputs) - set(program.state)
    return read == {"g"} and "w" in program.state and all(o.kind in RUNNABLE for o in program.operations)
