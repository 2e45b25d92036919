"""A program from an update whose arrays depend on options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeAlias

from fpsim.program import Program
from fpsim.scalars import STEP, Number, ScalarExpression
from fpsim.shapes import Shape
from fpsim.tracing import Value, step

Values: TypeAlias = dict[str, Value]
Numbers: TypeAlias = dict[str, ScalarExpression]


def traced(
    name: str,
    arrays: tuple[str, ...],
    declared: Mapping[str, Number],
    update: Callable[[Values, Numbers], Values],
    variant: Callable[..., Program],
    shapes: Mapping[str, Shape] | None = None,
) -> Program:
    """The program of ``update``, which maps arrays and hyperparameters by name to what is stored.

    Parameters
    ----------
    declared : hyperparameter -> declared value; the step number t comes with them
    variant : whose docstring says which algorithm this is
    shapes : as in ``fpsim.step``

    Examples
    --------
    >>> traced("fixed", ("w", "g"), {}, lambda x, h: {"w": x["w"] - x["g"]}, traced).inputs
    ('w', 'g')
    """

    def function(*values: Value, **numbers: ScalarExpression) -> Values:
        return update(dict(zip(arrays, values, strict=True)), numbers)

    kinds = inspect.Parameter
    parameters = [kinds(array, kinds.POSITIONAL_OR_KEYWORD) for array in arrays]
    parameters += [kinds(key, kinds.KEYWORD_ONLY, default=value) for key, value in declared.items()]
    parameters.append(kinds(STEP, kinds.KEYWORD_ONLY))
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__doc__ = variant.__doc__
    program: Program = step(function, name=name, shapes=shapes)
    return program
