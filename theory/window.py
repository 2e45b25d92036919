"""The record of a run on its stationary window: everything that a theorem's hypotheses and constants read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fpsim.number_format import Format
    from fpsim.program import Program
    from fpsim.rounding import Rounding

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """One cell, all seeds, over the steps first_step .. first_step+steps-1. S counts seeds, d coordinates.

    Attributes
    ----------
    optimizer : ``"sgd"``, ``"momentum"``, ``"rmsprop"`` or ``"adam"``
    program : what the machine ran; ``gradient >> step`` when the gradient is computed inside the machine
    slots : slot -> (Format, rounding mode), the resolved precision
    scalars : effective (stored) constant scalars by name, ``"scalar.lr"``; scalars that change per step are absent
    hyperparameters : declared values; a schedule is an expression in the step
    dimension : d
    smoothness : L, an upper bound
    strong_convexity : mu (or PL constant), a lower bound; 0 if there is none
    curvature : [d] upper bounds of |d^2F/dw_i^2| of a separable problem, else None
    box : |w_i| <= box is where ``smoothness`` holds; None means everywhere
    gradient_inside : whether the machine computed the gradient operation by operation
    gradient_error : [d] absolute error bound of the binary64 gradient before it is rounded to slot ``g``; zeros inside
    gradient_bound : [d] bound of |true gradient| on the window
    noise : ``"none"``, ``"gaussian"``, ``"minibatch"``; ``"sequence"``: the gradients are given, there is no objective
    first_step, steps : the window
    start, end : state name -> [d, S], before the first and after the last step of the window
    loss_start, loss_end : [S], F - F*
    min_abs, max_abs : name -> [d, S], extremes of |value| over the window of every tracked slot and array, the starting
        states included; ``"g"`` is the rounded stochastic gradient that the step used
    underflow, overflow, invalid : slot -> number of events over the window, all seeds together (``fpsim.events``);
        divisions by zero are among the invalid ones
    halted : [S], a deterministic run whose state did not change in its last step
    end_gradient : [d, S], true gradient at the end state, in binary64
    squared_gradient : [n, S], squared norm of the true gradient before n steps chosen one per stratum at random
    step_ratio : [S], Adam: max over recorded steps and coordinates of |m|/sqrt(v) of the stored states (0/0 counts 0)
    stationary : result of the stationarity test, None where it was not made
    outcome : what became of the run
    exact_constants : constant inputs that lie on the grid of their slot, so that storing them changed nothing
    hessian_diagonal : [d] upper bounds of the diagonal of one matrix that dominates every Hessian on the box and whose
        norm is at most ``smoothness``; None if no such matrix is known
    history : consecutive steps of some coordinates d' and seeds S': a state's name -> [n+1, d', S'], before the first
        of the n steps and after each; ``"g"`` (the rounded gradient that the step used) or another slot -> [n, d', S'].
        Empty where none was kept.
    history_first : number of the first step in ``history``
    samples : other quantities at the steps of ``squared_gradient``, name -> [n, S]: ``"l1_gradient"`` (sum of the true
        gradient's moduli), ``"nuclear_gradient"``, ``"l1_m"``, ``"nuclear_m"`` (the stored first moment after the
        step), ``"squared_distance"`` (|w - w*|^2), ``"squared_move"`` (squared norm of what w then moved by); a theorem
        whose quantity is missing does not apply, or does with a bound of it
    hessian : the constant Hessian of a quadratic, exact in binary64: its diagonal [d], or [d, d]; else None
    minimizer : [d], w* where the problem has one and knows it in binary64, each within an ulp; else None
    shape : (rows, columns) of weights that are one matrix in C order, else None
    changing : scalars that change from step to step, stored: name -> [steps+1], the first one of the step before the
        window (of the first step itself, if that is where the run begins)
    spectral_smoothness : L with F(Y) <= F(X) + <grad F(X), Y-X> + L |Y-X|^2/2, |.| the spectral norm of the matrix
        (the largest |entry| where ``shape`` is None), and the gradient L-Lipschitz from it to its dual; None: not known
    """

    optimizer: str
    program: Program
    slots: Mapping[str, tuple[Format, Rounding]]
    scalars: Mapping[str, float]
    hyperparameters: Mapping[str, float]
    dimension: int
    smoothness: float
    strong_convexity: float
    curvature: FloatArray | None
    box: float | None
    gradient_inside: bool
    gradient_error: FloatArray
    gradient_bound: FloatArray
    noise: str
    first_step: int
    steps: int
    start: Mapping[str, FloatArray]
    end: Mapping[str, FloatArray]
    loss_start: FloatArray
    loss_end: FloatArray
    min_abs: Mapping[str, FloatArray]
    max_abs: Mapping[str, FloatArray]
    underflow: Mapping[str, int]
    overflow: Mapping[str, int]
    invalid: Mapping[str, int]
    halted: BoolArray
    end_gradient: FloatArray
    squared_gradient: FloatArray
    step_ratio: FloatArray | None = None
    stationary: bool | None = None
    outcome: str = ""
    exact_constants: tuple[str, ...] = ()
    hessian_diagonal: FloatArray | None = None
    history: Mapping[str, FloatArray] = field(default_factory=dict)
    history_first: int = 0
    samples: Mapping[str, FloatArray] = field(default_factory=dict)
    hessian: FloatArray | None = None
    minimizer: FloatArray | None = None
    shape: tuple[int, int] | None = None
    spectral_smoothness: float | None = None
    changing: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        return int(self.halted.shape[0])
