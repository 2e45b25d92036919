"""What a problem is: an objective with proven constants, a gradient with a proven evaluation error, and a loss gap."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from experiments.recipes import UNIT
from experiments.streams import START, folded, uniform
from fpsim.number_format import Format
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Rounding

Array = npt.NDArray[np.float64]

# Decorator: a run that diverges is an outcome, found in its numbers, and not a warning.
quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")


@dataclass(frozen=True)
class Moment:
    """What gradients without an objective may depend on: the step, the runs, and all that the machine holds.

    Attributes
    ----------
    step : counted from 0
    key : of the run's random bits
    runs : [n], run numbers of the columns of one block; those of all blocks are the same
    slots : of each block, slot -> (Format, rounding)
    scalars : of each block, the stored scalars that do not change
    state : name -> a copy [d, blocks * n] of the state before the step, block by block
    """

    step: int
    key: Key
    runs: npt.NDArray[np.uint64]
    slots: Sequence[Mapping[str, tuple[Format, Rounding]]]
    scalars: Sequence[Mapping[str, float]]
    state: Callable[[str], Array]

    @property
    def blocks(self) -> int:
        return len(self.slots)

    def of(self, block: int, x: Array) -> Array:
        """The columns [d, n] of one block, a view."""
        return x[:, block * len(self.runs) : (block + 1) * len(self.runs)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem(ABC):
    """An objective F on R^d; every subclass is final and lives in a file of its own.

    ``n`` counts lanes: columns of ``w`` that are independent runs. A column's result never depends on the others.
    All arithmetic that can enter a trajectory is binary64 + - * / sqrt in a fixed order.

    Attributes
    ----------
    name : its name in ``PROBLEMS``
    dimension : d
    smoothness : L >= every |eigenvalue| of the Hessian, wherever |w_i| <= box (everywhere if ``box`` is None)
    strong_convexity : 0 <= mu <= every eigenvalue of the Hessian; 0 if nothing is claimed
    minimum : a lower bound of F* = min F, at most an ulp or a certified 1e-30 below it
    box : where ``smoothness`` holds, or None
    separable : the Hessian is diagonal
    curvature : [d], c_i >= |d^2 F / dw_i^2| everywhere, for separable problems; else None
    hessian_diagonal : [d], upper bounds of the diagonal of one matrix, of norm at most L, that dominates every Hessian
        where L holds; None where no such matrix is known
    minimizer : [d], a minimiser w*, each coordinate within an ulp; None where none is known
    shape : (rows, columns) where the weights are one matrix in C order, else None
    spectral_smoothness : L with F(Y) <= F(X) + <grad F(X), Y-X> + L |Y-X|^2/2 where L holds, |.| the spectral norm of
        the matrix (the largest |entry| where ``shape`` is None), and the gradient L-Lipschitz from it to its dual;
        None where none is claimed
    hessian : of a quadratic, exact as declared: its diagonal [d], or [d, d]; None where the Hessian is not constant
    program : the gradient as a program (inputs ``w`` and the names in ``constants``, output ``g``), or None
    program_default : whether a study that does not say so computes the gradient by that program, every operation
        rounded; else it is evaluated in binary64, by ``gradient``
    constants : name -> array of the shape that the program declares, exact as declared: rounding them to a narrow
        format makes another problem
    objective : False: there is no F, and every step's gradients are ``given``; constants and gradients say nothing then
    start_scale : start points are uniform in (-start_scale, start_scale)

    Laws (tests hold every problem to them)
    ---------------------------------------
    * ``gradient`` differs from the exact gradient of the declared F by at most ``gradient_error`` in each component.
    * |exact gradient| <= ``gradient_bound``.
    * ``loss_gap`` >= 0, and accurate to a relative 1e-12 however small it is.
    * ||grad F(x) - grad F(y)|| <= L ||x - y|| inside the box, and >= mu ||x - y||.
    """

    name: str
    dimension: int
    smoothness: float
    strong_convexity: float
    minimum: float = 0.0
    box: float | None = None
    separable: bool = False
    curvature: Array | None = None
    hessian_diagonal: Array | None = None
    minimizer: Array | None = None
    shape: tuple[int, int] | None = None
    spectral_smoothness: float | None = None
    hessian: Array | None = None
    program: Program | None = None
    program_default: bool = True
    constants: Mapping[str, Array] = field(default_factory=dict)
    objective: bool = True
    start_scale: float = 0.125

    def start(self, key: Key, runs: npt.ArrayLike) -> Array:
        """Start points [d, len(runs)], a pure function of ``key.fold(START)`` and the run number.

        Near the origin, where every grid is fine: a run is then stopped by the grid around its goal and not, by
        accident, by the grid around its start.
        """
        return self.start_scale * uniform(folded(key, START), self.dimension, runs)

    @abstractmethod
    def gradient(self, w: Array, out: Array | None = None) -> Array:
        """The gradient at each column of ``w`` [d, n], C-contiguous binary64."""

    def minibatch_gradient(
        self, w: Array, step: int, runs: npt.ArrayLike, key: Key, batch: int = 16, out: Array | None = None
    ) -> Array:
        """The mean gradient of ``batch`` samples drawn with replacement for each column; its mean is the gradient.

        Parameters
        ----------
        step : step number, counted from 0
        runs : [n], the run number of each column
        """
        raise ValueError(f"noise='minibatch': {self.name!r} has no data to draw from; admissible: none, gaussian")

    def minibatch_program(self, batch: int = 16) -> tuple[Program, Mapping[str, Array]]:
        """The mean gradient of the samples ``index``, as a program, and its constants.

        Its inputs are ``w``, the constants and ``index`` [batch], for every step and run: ``minibatch_indices``.
        """
        raise ValueError(f"minibatch program: {self.name!r} has no data to draw from")

    def minibatch_indices(self, steps: range, runs: npt.ArrayLike, key: Key, batch: int = 16) -> Array:
        """[len(steps), batch, len(runs)], the samples that ``minibatch_gradient`` draws."""
        raise ValueError(f"minibatch indices: {self.name!r} has no data to draw from")

    def given(self, moment: Moment, out: Array) -> Array:
        """Fill ``out`` [d, lanes] with the gradients of a step, where there is no objective."""
        raise ValueError(f"given gradients: {self.name!r} has an objective")

    @abstractmethod
    def gradient_error(self, w_abs_max: Array) -> Array:
        """[d], bound of the evaluation error of ``gradient`` and ``minibatch_gradient`` for |w_i| <= w_abs_max_i."""

    @abstractmethod
    def gradient_bound(self, w_abs_max: Array) -> Array:
        """[d], a priori bound of |dF/dw_i| for |w_i| <= w_abs_max_i."""

    @abstractmethod
    def loss_gap(self, w: Array) -> Array:
        """[n], F(w) - F*, free of cancellation."""

    def _arrays(self, w: Array, out: Array | None) -> Array:
        """Check ``w`` and give the result's array."""
        if w.ndim != 2 or w.shape[0] != self.dimension or w.dtype != np.float64 or not w.flags.c_contiguous:
            raise ValueError(f"w {w.dtype}{list(w.shape)}: C-contiguous float64[{self.dimension}, n] is needed")
        if out is None:
            return np.empty_like(w)
        if out.shape != w.shape or out.dtype != np.float64 or not out.flags.c_contiguous or np.may_share_memory(out, w):
            needed = f"C-contiguous float64{list(w.shape)} that does not overlap w"
            raise ValueError(f"out {out.dtype}{list(out.shape)}: {needed} is needed")
        return out


def gamma(count: int) -> float:
    """gamma_k = k u / (1 - k u): the relative error bound of k successive roundings to nearest in binary64."""
    return count * UNIT / (1.0 - count * UNIT) * (1.0 + 2.0**-50)


def outward(bound: Array) -> Array:
    """A bound computed in binary64 from fewer than 2^12 non-negative terms, made safe against that computation.

    The added 2^-1000 also covers every underflow on the way.
    """
    return bound * (1.0 + 2.0**-40) + 2.0**-1000


def checked_integer(name: str, value: int, low: int, high: int) -> int:
    """An integer in low..high, or a ``ValueError`` with that interval."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} is outside {low}..{high}")
    return int(value)


def rounded_up(value: Fraction) -> float:
    """The smallest binary64 number that is not below ``value``."""
    nearest = float(value)
    return nearest if nearest >= value else math.nextafter(nearest, math.inf)


def checked_real(name: str, value: float, low: float, high: float = np.inf) -> float:
    """A finite number in [low, high], or a ``ValueError`` with the admissible interval."""
    if isinstance(value, str) or not low <= value <= high or value in (np.inf, -np.inf):
        raise ValueError(f"{name}={value!r} is outside [{low:g}, {high:g}]")
    return float(value)
