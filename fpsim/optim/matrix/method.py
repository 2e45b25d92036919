"""A matrix optimizer as data: its arrays, slots, scalars and hyperparameters, and one pure step.

These methods branch and factorize, which a ``Program`` does not. Slots, precisions, hyperparameters, schedules and
scalars are those of programs all the same (``fpsim.precision``, ``fpsim.scalars``): every elementwise operation, matrix
product and stored factorization has a slot by name, every array one under its own name, every scalar ``scalar.NAME``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpsim.contractions import How
from fpsim.optim.matrix.arithmetic import Arithmetic, Array, accumulators
from fpsim.precision import Precision, ScalarReport, Slot, scalar_report, scalar_values
from fpsim.program import Program, Scalar, hint
from fpsim.random_bits import Key, check_key
from fpsim.rounding import Stochastic
from fpsim.scalars import ScalarExpression
from fpsim.shapes import Sizes

State: TypeAlias = dict[str, Array]
Body: TypeAlias = Callable[[Arithmetic, State, Array, Mapping[str, Array]], State]
Axes: TypeAlias = tuple[str, ...]

MATRIX: Axes = ("rows", "columns")
LEFT: Axes = ("rows", "rows")
RIGHT: Axes = ("columns", "columns")

# hyperparameter -> the interval of its numbers, and whether the upper end belongs to it
INTERVALS: dict[str, tuple[float, float, bool]] = {
    **dict.fromkeys(("lr", "decay", "eps", "tiny", "radius", "factor_lr", "clip", "clip_eps"), (0.0, math.inf, False)),
    **dict.fromkeys(("beta1", "beta2"), (0.0, 1.0, False)),
    "alpha": (0.0, 1.0, True),
}


class NarrowFormat(UserWarning):
    """A format turns a scalar into 0, 1 or no number: another algorithm than the one declared."""


@dataclass(frozen=True)
class MatrixMethod:
    """An optimizer of one weight matrix ``w`` of ``rows`` x ``columns``.

    Attributes
    ----------
    name : str
    state : array -> its axes, ``rows`` and ``columns``; ``w`` first
    operations : slots of operations, in the order of their first use
    products : those of them that are matrix products or sums of squares, which an accumulator computes
    scalars : name -> expression in the hyperparameters, the step number ``t``, ``rows`` and ``columns``
    hyperparameters : declared values by name: numbers, or schedules in ``t``
    body : the step: (arithmetic, state, gradient, draws) -> values to be stored, by array
    identities : arrays that start as the identity; the others but ``w`` start at zero
    draws : what a step draws at random -> its axes
    """

    name: str
    state: Mapping[str, Axes]
    operations: tuple[str, ...]
    products: tuple[str, ...]
    scalars: Mapping[str, ScalarExpression]
    hyperparameters: Mapping[str, Any]
    body: Body
    identities: tuple[str, ...] = ()
    draws: Mapping[str, Axes] | None = None

    def __post_init__(self) -> None:
        lost = set(self.products) - set(self.operations)
        if lost:
            raise ValueError(f"products that are no operations of {self.name!r}: {', '.join(sorted(lost))}")
        declared = self._ledger(1, 1).hyperparameters
        for name, value in declared.items():
            if isinstance(value, tuple):
                raise ValueError(f"hyperparameter {name!r} has {len(value)} values; admissible: one number or schedule")
            low, high, closed = INTERVALS.get(name, (-math.inf, math.inf, False))
            if not isinstance(value, ScalarExpression) and not (low <= value < high or (closed and value == high)):
                interval = f"[{low:g}, {high:g}{']' if closed else ')'}"
                raise ValueError(f"hyperparameter {name}={float(value):g}; admissible: {interval}")
        object.__setattr__(self, "hyperparameters", declared)

    @property
    def slots(self) -> tuple[str, ...]:
        """Everything that has a format: operations, then arrays and the gradient ``g``, then scalars."""
        return (*self.operations, *self.state, "g", *(f"scalar.{name}" for name in self.scalars))

    def bind(self, **values: Any) -> MatrixMethod:
        """The same method with other declared hyperparameters; unknown names raise ``ValueError``.

        Examples
        --------
        >>> from fpsim.optim.matrix import METHODS
        >>> METHODS["muon"].bind(lr=0.1).hyperparameters["lr"]
        0.1
        """
        for name in values:
            if name not in self.hyperparameters:
                raise ValueError(f"hyperparameter {name!r} is unknown{hint(name, self.hyperparameters)}")
        return replace(self, hyperparameters={**self.hyperparameters, **values})

    def start(self, w: npt.ArrayLike, precision: Precision) -> State:
        """The state before the first step: all arrays, rounded to the formats of their slots, to nearest if stochastic.

        Parameters
        ----------
        w : ``[rows, columns]``, both at least 1;  precision : Precision

        Returns
        -------
        array name -> float64, of the axes in ``state``

        Raises
        ------
        ValueError
            ``w`` is no matrix or holds NaN; a rule of the precision names no slot.

        Warns
        -----
        NarrowFormat
            A scalar becomes 0, 1 or no number in its format.

        Examples
        --------
        >>> from fpsim.optim.matrix import METHODS
        >>> METHODS["muon"].start([[0.3, 1.0]], Precision.uniform("float8_e4m3fn", scalars="wide"))["w"].tolist()
        [[0.3125, 1.0]]
        """
        weights = _numbers("w", w)
        sizes = self._sizes(weights)
        if np.isnan(weights).any():
            raise ValueError("w holds NaN; admissible: numbers")
        ledger = self._ledger(*weights.shape)
        slots = precision.resolve(ledger)
        self._warn(ledger, precision, 0, stacklevel=3)
        state = {name: np.eye(sizes.of(axes)[0]) if name in self.identities else np.zeros(sizes.of(axes))
                 for name, axes in self.state.items()} | {"w": weights}  # fmt: skip
        nearest = {name: (fmt, "nearest_even" if isinstance(mode, Stochastic) else mode)
                   for name, (fmt, mode) in slots.items()}  # fmt: skip
        ops = Arithmetic(nearest, {}, {}, None, 0)
        return {name: ops.round(name, value) for name, value in state.items()}

    def resolve(self, precision: Precision) -> dict[str, Slot]:
        """Format and rounding mode of every slot; a rule that names none raises ``ValueError``.

        Examples
        --------
        >>> from fpsim.optim.matrix import METHODS
        >>> METHODS["muon"].resolve(Precision.uniform("bfloat16"))["w.sub"][1]
        'nearest_even'
        """
        return precision.resolve(self._ledger(1, 1))

    def report(self, precision: Precision, shape: tuple[int, int], step: int = 0) -> list[ScalarReport]:
        """Declared and effective value of every scalar in one step, with a warning or ''.

        Examples
        --------
        >>> from fpsim.optim.matrix import METHODS
        >>> [r.warning for r in METHODS["muon"].report(Precision.uniform("float8_e4m3fn"), (4, 4)) if r.warning][0]
        'scalar.eps = 1e-07 becomes 0'
        """
        return scalar_report(self._ledger(*shape), precision, step)

    def step(
        self,
        state: Mapping[str, npt.ArrayLike],
        gradient: npt.ArrayLike,
        precision: Precision,
        key: Key | None = None,
        *,
        step: int = 0,
        accumulators: Mapping[str, How] | None = None,
        draws: Mapping[str, npt.ArrayLike] | None = None,
    ) -> State:
        """One step. Pure: the same arguments give the same bits; nothing that is given is changed.

        Parameters
        ----------
        state : as ``start`` or an earlier step returned it
        gradient : ``[rows, columns]``, rounded to the slot ``g``
        precision : Precision over ``slots``
        key : Key, needed where a slot rounds stochastically or the method draws random numbers
        step : the number of the step, from 0; the ``t`` of formulas is one more
        accumulators : pattern of slots in ``products`` -> Accumulator, tensor core, Format or its name. Without one,
            products and a sequential sum have the slot's own format and mode
        draws : arrays in place of those that the method would draw

        Returns
        -------
        the new state

        Raises
        ------
        TypeError
            Something else in the place of a Precision, a Key or an accumulator.
        ValueError
            An array is missing, unknown, of another shape, or off the grid of its slot; a name matches no slot; a
            stochastic mode has no key.

        Warns
        -----
        NarrowFormat
            A scalar becomes 0, 1 or no number in its format; of one that varies from step to step, 1 counts at step 0.

        Examples
        --------
        >>> from fpsim.optim.matrix import METHODS
        >>> method, precision = METHODS["muon_polar"].bind(lr=0.5), Precision.uniform("bfloat16")
        >>> method.step(method.start(np.eye(2), precision), np.diag([4.0, 0.25]), precision)["w"].tolist()
        [[0.5, 0.0], [0.0, 0.5]]
        """
        if not isinstance(precision, Precision):
            raise TypeError(f"precision={precision!r}: a fpsim.Precision is needed")
        check_key(key)
        if not isinstance(step, (int, np.integer)) or isinstance(step, bool) or not 0 <= step < 1 << 48:
            raise ValueError(f"step={step!r}; admissible: an integer in 0..2^48-1")
        start, g, given = self._arrays(state, gradient, draws or {})
        ledger = self._ledger(*start["w"].shape)
        slots = precision.resolve(ledger)
        _check_grids(start, slots)
        random = [name for name in self.slots if isinstance(slots[name][1], Stochastic) and "scalar." not in name]
        if key is None and random:
            raise ValueError(f"key=None: slot {random[0]!r} rounds stochastically and needs a Key")
        self._warn(ledger, precision, int(step), stacklevel=3)
        values = scalar_values(ledger, precision, range(step, step + 1))
        scalars = {name: float(column.flat[0]) for name, column in values.items()}
        how = {} if accumulators is None else _accumulators(accumulators, self.products, self.name)
        ops = Arithmetic(slots, how, scalars, key, int(step), self.draws or ())
        with np.errstate(all="ignore"):  # infinities and NaN of the formats are results
            after = self.body(ops, start, ops.round("g", g), given)
            return {name: ops.round(name, after.get(name, start[name])) for name in self.state}

    def _arrays(
        self, state: Mapping[str, npt.ArrayLike], gradient: npt.ArrayLike, draws: Mapping[str, npt.ArrayLike]
    ) -> tuple[State, Array, State]:
        for what, arrays, known in (("state", state, self.state), ("draws", draws, self.draws or {})):
            if not isinstance(arrays, Mapping):
                raise TypeError(f"{what} is a {type(arrays).__name__}; a dict from array names to arrays is needed")
            for name in arrays:
                if name not in known:
                    raise ValueError(f"{what}: {name!r} is no array of {self.name!r}{hint(name, known)}")
        for name in self.state:
            if name not in state:
                raise ValueError(f"state: array {name!r} of {self.name!r} is missing")
        start = {name: _numbers(name, state[name]) for name in self.state}
        sizes = self._sizes(start["w"])
        axes = {**self.state, **(self.draws or {}), "g": MATRIX}
        given = {name: _numbers(name, x) for name, x in draws.items()}
        g = _numbers("g", gradient)
        for name, array in {**start, **given, "g": g}.items():
            if array.shape != tuple(sizes.of(axes[name])):
                shape = "x".join(map(str, start["w"].shape))
                raise ValueError(
                    f"{name} has shape {array.shape}; admissible: {tuple(sizes.of(axes[name]))}, for w of {shape}"
                )
        return start, g, given

    def _sizes(self, w: Array) -> Sizes:
        if w.ndim != 2 or 0 in w.shape:
            raise ValueError(
                f"w has shape {w.shape}; admissible: a matrix [rows, columns], both at least 1. Vectors and tensors of "
                f"a model are stepped by an elementwise optimizer, such as fpsim.optim.adam"
            )
        sizes = Sizes()
        sizes.meet("w", MATRIX, w.shape)
        return sizes

    def _ledger(self, rows: int, columns: int) -> Program:
        """What has slots and scalars, as a Program without operations: Precision and its scalars take that."""
        arrays, lengths = {**self.state, "g": MATRIX}, {"rows": rows, "columns": columns}
        return Program(
            name=self.name,
            inputs=tuple(arrays),
            outputs=tuple((name, name) for name in self.state),
            scalars=tuple(Scalar(f"scalar.{name}", x.substitute(lengths)) for name, x in self.scalars.items()),
            operations=(),
            hyperparameters=self.hyperparameters,
            shapes=arrays,
            part_of=self.slots,
        )

    def _warn(self, ledger: Program, precision: Precision, step: int, stacklevel: int) -> None:
        varying = {scalar.name for scalar in ledger.scalars if ledger.varies(scalar)}
        for report in scalar_report(ledger, precision, step):
            saturated = report.name in varying and report.effective == 1.0  # a bias correction of a late step
            if report.warning and not (saturated and step > 0):
                warnings.warn(f"{self.name}: {report.warning}", NarrowFormat, stacklevel=stacklevel)


def check_count(name: str, count: int) -> None:
    """Raise ``ValueError`` for an option that is no integer of at least 1."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name}={count!r}; admissible: an integer of at least 1")


_accumulators = accumulators  # a parameter of ``step`` has the same name


def _numbers(name: str, x: npt.ArrayLike) -> Array:
    array = np.asarray(x)
    if array.dtype.kind not in "iubf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {array.dtype}; admissible: real numbers")
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def _check_grids(state: Mapping[str, Array], slots: Mapping[str, Slot]) -> None:
    from fpsim.cpu import flat

    for name, array in state.items():
        fmt = slots[name][0]
        wrong = flat.off_grid(array, fmt)
        if wrong is not None:
            raise ValueError(
                f"state: {name!r} holds {wrong!r}, no number of its format {fmt.name}; admissible: what start() or a "
                f"step returned under the same precision, or the array rounded to {fmt.name}"
            )
