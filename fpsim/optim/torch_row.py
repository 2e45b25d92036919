"""What tells one optimizer class for PyTorch from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpsim.precision import Precision
from fpsim.program import Program

if TYPE_CHECKING:
    from fpsim.optim.matrix import MatrixMethod

Function: TypeAlias = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
Layout: TypeAlias = tuple[int, ...]


def uniform(dtype: str) -> Precision:
    """Every operation in the format of the parameter."""
    return Precision.uniform(dtype)


@dataclass(frozen=True)
class Spot:
    """What a program may depend on besides the options of a param group.

    Parameters
    ----------
    step : its number, from 0;  dtype : name of the parameter's dtype;  shape : the parameter's
    chosen : whether the user has chosen a precision other than ``Face.precision``
    tail : whether it is for the elements that ``Face.tails`` marks
    """

    step: int
    dtype: str
    shape: Layout
    chosen: bool
    tail: bool = False


@dataclass(frozen=True)
class Face:
    """One optimizer class: everything in which it differs from the others.

    Parameters
    ----------
    name : the class
    program : (options of a param group, Spot) -> Program with its hyperparameters bound, which reads ``w`` and ``g``;
        or a MatrixMethod of ``fpsim.optim.matrix``
    defaults : option -> its default, in the order of positional arguments
    states : state array of the program -> its name in ``optimizer.state[p]``; the array ``w`` is the parameter itself,
        and an array without a name here keeps its own
    precision : name of a parameter's dtype -> the precision where a param group gives none
    stages : 1, or 2 where the first step, that is the one which finds no states, has a program of its own
    start : state array -> its start value, or the name of the option that holds it; the others start at 0
    functions : name of an opaque operation -> what computes it, of a float64 array; element by element where the
        program is one of vectors, because these go through the machine in pieces
    tails : (shape, strides of parameter, gradient and states, name of the dtype) -> places, in C order, of the elements
        that have a program of their own where the precision is ``precision``, and whether these are known to be all;
        for elementwise programs and states of one number
    below_one : options that are below 1
    by_ndim : whether ``program`` looks at the number of axes
    about : what is computed; the class's documentation shows it
    """

    name: str
    program: Callable[[Mapping[str, Any], Spot], Program | MatrixMethod]
    defaults: Mapping[str, Any]
    states: Mapping[str, str] = field(default_factory=dict)
    precision: Callable[[str], Precision] = uniform
    stages: int = 1
    start: Mapping[str, float | str] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    tails: Callable[[Layout, tuple[Layout, ...], str], tuple[npt.NDArray[np.int64], bool]] | None = None
    below_one: tuple[str, ...] = ("betas",)
    by_ndim: bool = False
    about: str = ""
