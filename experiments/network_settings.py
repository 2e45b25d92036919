"""The defaults of a study's cells whose problem is a network with data, and the options that such a problem has.

Nothing here makes a network; only ``weights`` and ``content`` do look at data.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from experiments import datasets, networks
from experiments.datasets import TOKENS
from experiments.fields import StudyError

if TYPE_CHECKING:
    from experiments.cell import Cell
    from experiments.registry import Own
    from fpsim.optim.matrix import MatrixMethod
    from fpsim.program import Program

# Options of every such problem, with their defaults.
COMMON: dict[str, float | int | str | bool] = {
    "components": "all",  # what has the cell's widths: of COMPONENTS, joined by +
    "accumulator": "wide",  # of matrix products and sums: wide, or same: the cell's format
    "order": "sequential",  # of these sums, as fpsim.Accumulator names them
    "block": 0,  # terms of a block, for order = blocked
    "evaluation": 256,  # samples on which loss, gradient norm and accuracy are measured
    "vector_lr": 2.0**-8,  # of Adam, which has the parameters that an optimizer of matrices leaves
    "passthrough": "",  # functions of torch that are computed by PyTorch and rounded afterwards, joined by +
}
COMPONENTS = ("weights", "activations", "gradients", "m", "v", "all")
STEPS, WINDOW, BATCH, SEQUENCES = 1000, 0.25, 128, 16

# Step sizes are powers of two, as in ``experiments.defaults``.
RATES = {
    "sgd": 2.0**-4,
    "momentum": 2.0**-4,
    "sign_sgd": 2.0**-10,
    "signum": 2.0**-10,
    "lion": 2.0**-12,
    "adam": 2.0**-9,
    "adamw": 2.0**-9,
    "muon": 2.0**-6,
    "shampoo": 2.0**-8,
}


def source(optimizer: str) -> Program | MatrixMethod:
    """The step or method of an optimizer of networks.

    Raises
    ------
    StudyError
        There is none of this name.
    """
    from fpsim.optim import STEPS as PROGRAMS
    from fpsim.optim.matrix import METHODS

    known = {**PROGRAMS, **METHODS}
    if optimizer not in known:
        raise StudyError("optimizer", f"{optimizer!r} does not train networks; admissible: {', '.join(known)}")
    return known[optimizer]


def learns(problem: str, noise: str) -> bool:
    """Whether a problem is a network, whose noise is that of minibatches.

    Raises
    ------
    StudyError
        A network with another noise.
    """
    if problem in networks.PROBLEMS and noise != "minibatch":
        raise StudyError("noise", f"{noise!r} with {problem}, which learns from data; admissible: minibatch")
    return problem in networks.PROBLEMS


def check_cell(cell: Cell, own: Own) -> None:
    """Refuse a cell that cannot run, whatever its problem is.

    Raises
    ------
    StudyError, ValueError
        As ``experiments.trajectory.check_cell`` and ``experiments.networks.cells.check``.
    """
    if learns(cell.problem, cell.noise):
        from experiments.networks.cells import check

        return check(cell)
    if cell.gradient == "stored":
        raise StudyError("gradient", f"'stored' is for networks, not {cell.problem}; admissible: exact, rounded")
    from experiments.trajectory import check_cell as of_others

    of_others(cell, own)
    return None


def setting(optimizer: str, problem: str) -> dict[str, Any]:
    """The default setting of a cell, with the keys of ``experiments.defaults.setting``."""
    tokens = datasets.DATASETS[networks.PROBLEMS[problem][1]].kind == TOKENS
    return {
        "noise": "minibatch",
        "sigma": 0.0,
        "batch": SEQUENCES if tokens else BATCH,
        "gradient": "stored",
        "dimension": 0,
        "steps": STEPS,
        "window": WINDOW,
        "hyperparameters": {"lr": RATES[optimizer]} if optimizer in RATES else {},
        "asks": {},
    }


@functools.cache
def options(problem: str) -> dict[str, Any]:
    """The options of a problem with their defaults: of its network, of its data, and those that all have."""
    of_network, of_data = _options(problem)
    return of_network | of_data | COMMON


def divided(problem: str, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Options of a cell as those of the network, of the data, and the common ones with their defaults."""
    of_network, of_data = _options(problem)
    return (
        {name: x for name, x in given.items() if name in of_network},
        {name: x for name, x in given.items() if name in of_data},
        COMMON | {name: x for name, x in given.items() if name in COMMON},
    )


@functools.cache
def _options(problem: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the network and of the data.

    Raises
    ------
    StudyError
        torch is not installed.
    """
    network, dataset = networks.PROBLEMS[problem]
    try:
        return _of(networks.factory(network)), _of(datasets.factory(dataset))
    except ImportError as error:
        raise StudyError("problem", f"{problem}: {error}") from error


def _of(factory: Any) -> dict[str, Any]:
    return {p.name: p.default for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY}


def weights(problem: str, given: dict[str, Any]) -> int:
    """The number of weights of a network.

    Raises
    ------
    StudyError
        An option that the network or the data refuse, a file that cannot be read, torch is missing.
    """
    return _weights(problem, tuple(sorted(given.items())))


@functools.lru_cache(maxsize=256)
def _weights(problem: str, given: tuple[tuple[str, Any], ...]) -> int:
    from fpsim.random_bits import Key

    of_network, of_data, _ = divided(problem, dict(given))
    network, dataset = networks.PROBLEMS[problem]
    try:
        made = networks.make(network, datasets.make(dataset, **of_data), Key(), **of_network)
    except (ValueError, OSError, ImportError) as error:
        raise StudyError("options" if given else "problem", f"{problem}: {' '.join(str(error).split())}") from error
    return sum(p.numel() for p in made.parameters())


def forget() -> None:
    """Look anew: at data, which may be files that have changed, and at whether torch is there."""
    datasets.forget()
    options.cache_clear()
    _options.cache_clear()
    _weights.cache_clear()


def content(cell: Cell) -> str:
    """What names data that are not fpsim's own: a digest of the file, or of the text of this Python; else ""."""
    _, of_data, _ = divided(cell.problem, cell.options)
    return str(datasets.make(networks.PROBLEMS[cell.problem][1], **of_data).record.get("digest", ""))
