"""The problems by name. A new one is a file with a ``Problem`` and a factory, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from experiments.problems.base import Problem
from experiments.problems.dense_quadratic import dense_quadratic
from experiments.problems.logistic import logistic
from experiments.problems.quadratic import quadratic
from experiments.problems.rational import rational
from experiments.problems.rosenbrock import rosenbrock

# name -> factory(dimension=.., **options)
PROBLEMS: dict[str, Callable[..., Problem]] = {
    "quadratic": quadratic,
    "dense_quadratic": dense_quadratic,
    "rational": rational,
    "rosenbrock": rosenbrock,
    "logistic": logistic,
}
