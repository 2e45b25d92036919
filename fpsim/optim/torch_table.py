"""Which optimizers have a class for PyTorch, and under which name.

``FACES`` of ``torch_variants`` are what PyTorch computes. Every program of ``STEPS`` gets a class too, made from its
hyperparameters; where PyTorch's has the name already, it is called ``Textbook...``. Nothing here needs torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from fpsim.optim import STEPS, matrix
from fpsim.optim.matrix import METHODS, MatrixMethod
from fpsim.optim.torch_row import Face, Spot
from fpsim.optim.torch_variants import VARIANTS
from fpsim.program import RUNNABLE, Program

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


def of_program(
    name: str,
    program: Program | MatrixMethod,
    states: Mapping[str, str] | None = None,
    of_vectors: Program | None = None,
) -> Face:
    """The face of a program whose hyperparameters are the options of a param group.

    ``beta1`` and ``beta2`` together are the pair ``betas``; alone they are ``momentum`` and ``alpha``, as in torch.
    ``of_vectors``, with the same hyperparameters, is for parameters that have not two axes.

    Raises
    ------
    ValueError
        A program without the state ``w``, with another input than ``g``, or with an opaque operation.

    Examples
    --------
    >>> from fpsim.optim import adam
    >>> dict(of_program("Adam", adam).defaults)
    {'lr': 0.001, 'betas': (0.9, 0.999), 'eps': 1e-08}
    """
    if isinstance(program, Program) and not _fits(program):
        raise ValueError(
            f"program {program.name!r} reads {', '.join(program.inputs)} and stores {', '.join(program.state)}; "
            "needed: one that stores 'w', reads 'g' besides its states, and has operations that machines run"
        )
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
        below_one=("betas", "momentum", "alpha"),
        by_ndim=of_vectors is not None or isinstance(program, MatrixMethod),
        about=program.variant if isinstance(program, Program) else _about(program),
    )


def _about(method: MatrixMethod) -> str:
    """What the documentation says of the function that makes the method, up to its errors and examples."""
    made_by = getattr(matrix, method.name.partition("_")[0], None)
    text = "" if made_by is None else (inspect.getdoc(made_by) or "").partition("Raises\n---")[0].strip()
    return f"{text}\nParameters are matrices here, and sums of products have the format of their slot.".strip()


def _bound(
    of_matrices: Program | MatrixMethod, of_others: Program | MatrixMethod, options: Mapping[str, Any], spot: Spot
) -> Program | MatrixMethod:
    program = of_matrices if len(spot.shape) == 2 else of_others
    values = {}
    for hyperparameter in program.hyperparameters:
        if "betas" in options and hyperparameter in _BETAS:
            values[hyperparameter] = options["betas"][_BETAS.index(hyperparameter)]
        else:
            values[hyperparameter] = options[_ALONE.get(hyperparameter, hyperparameter)]
    return program.bind(**values)


# The classes that are written out.
FACES: dict[str, Face] = {**VARIANTS}
# Methods of matrices whose class has not their name with capitals.
_METHODS = {"soap": "SOAP", "kron": "PSGDKron"}


def names() -> dict[str, str]:
    """Class -> name of its program in ``STEPS`` or of its method in ``METHODS``, or "" where ``FACES`` has it.

    Examples
    --------
    >>> names()["TextbookRMSprop"]
    'rmsprop'
    """
    made = {_NAMES.get(step, _capitals(step)): step for step, program in STEPS.items() if _fits(program)}
    textbook = {f"Textbook{name}" if name in FACES else name: step for name, step in made.items()}
    methods = {_METHODS.get(method, _capitals(method)): method for method in METHODS}
    return textbook | methods | dict.fromkeys(FACES, "")


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
    if step in METHODS:
        return of_program(name, METHODS[step], {"m": "momentum_buffer"} if "v" not in METHODS[step].state else None)
    return of_program(name, STEPS[step], _STATES.get(step), STEPS.get(_OF_VECTORS.get(step, "")))


def _fits(program: Program) -> bool:
    """Whether a torch optimizer can run it: it reads parameter and gradient, and holds no function of its caller's."""
    read = set(program.inputs) - set(program.state)
    return read == {"g"} and "w" in program.state and all(o.kind in RUNNABLE for o in program.operations)


def _capitals(name: str) -> str:
    return name.title().replace("_", "")
