"""The problems by name. A new one is a file with a ``Problem`` and a factory, and a line here.

An installed package adds its own through the entry point group ``fpsim.problems``, name -> factory(dimension=..).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from experiments.problems.base import Problem
from experiments.problems.dense_quadratic import dense_quadratic
from experiments.problems.logistic import logistic
from experiments.problems.quadratic import quadratic
from experiments.problems.rational import rational
from experiments.problems.rosenbrock import rosenbrock
from experiments.problems.sequence import sequence
from fpsim import plugins

# name -> factory(dimension=.., **options)
PROBLEMS: dict[str, Callable[..., Problem]] = {
    "quadratic": quadratic,
    "dense_quadratic": dense_quadratic,
    "rational": rational,
    "rosenbrock": rosenbrock,
    "logistic": logistic,
    "sequence": sequence,
}
GROUP = "fpsim.problems"


def available() -> list[str]:
    """Every name that ``find`` takes: fpsim's own first, then those of installed packages."""
    return [*PROBLEMS, *plugins.names(GROUP, PROBLEMS)]


def find(name: str) -> tuple[Callable[..., Problem], str]:
    """The factory of a name, and the package that it comes from ("" for fpsim's own, which need no look around).

    Raises
    ------
    KeyError
        Neither fpsim nor an installed package has the name.
    ValueError
        A package has it, and it cannot be loaded or called; the message names the package.
    """
    if name in PROBLEMS:
        return PROBLEMS[name], ""
    factory, package = plugins.load(GROUP, name)
    if not callable(factory):
        kind = type(factory).__name__
        raise plugins.PluginError(f"{name!r} of package {package} is a {kind}; a factory(dimension=..) is needed")
    return factory, package


def options_of(factory: Callable[..., Problem]) -> dict[str, Any]:
    """The options of a factory with their defaults, ``dimension`` left out.

    Examples
    --------
    >>> options_of(rosenbrock)
    {'rows': 4, 'box': 1.5}
    """
    parameters = inspect.signature(factory).parameters.values()
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {p.name: p.default for p in parameters if p.kind in kinds and p.name != "dimension"}
