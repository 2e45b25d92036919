"""Which format and rounding mode every slot of a program has, and what the scalars become in them."""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fpsim import exact
from fpsim.formats import BINARY64
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.program import Program, Scalar, hint
from fpsim.rounding import Rounding, Stochastic, parse, random_bits
from fpsim.scalars import STEP, ScalarExpression, evaluate, evaluate_odd, evaluate_python

Slot = tuple[Format, Rounding]
ScalarPolicy = Literal["rounded", "wide", "stored", "python", "torch"]
_WIDE: Slot = (BINARY64, "nearest_even")
_SINGLE = named_format("binary32")
TORCH_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """An assignment of (format, rounding mode) to slots: a default, and rules that override it by name.

    Parameters
    ----------
    default : (Format, rounding)
    rules : triples (pattern, Format, rounding); the last matching one wins. ``*`` matches any text.
    scalars : how a scalar operand gets its value from the declared hyperparameters
        ``"rounded"``: evaluated with 256 bits, rounded once to the format of its slot. ``"wide"``: rounded to binary64.
        ``"stored"``: as ``rounded``, but from hyperparameters that were themselves rounded to the format of their slot.
        ``"python"``: evaluated in binary64, operation by operation, as Python does.
        ``"torch"``: as ``python``, then cast to the format of its slot, by way of binary32 where that is narrower.
    families : triples as in ``rules``, looked at before these, that need not match anything

    Examples
    --------
    >>> p = Precision.uniform("bfloat16").replace({"w.sub": ("bfloat16", "stochastic")})
    >>> p.rules[-1][0]
    'w.sub'
    """

    default: Slot
    rules: tuple[tuple[str, Format, Rounding], ...] = ()
    scalars: ScalarPolicy = "rounded"
    families: tuple[tuple[str, Format, Rounding], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", _slot(self.default))
        for field in ("rules", "families"):
            rules = tuple((pattern, *_slot((fmt, rounding))) for pattern, fmt, rounding in getattr(self, field))
            object.__setattr__(self, field, rules)
        if self.scalars not in get_args(ScalarPolicy):
            raise ValueError(f"scalars={self.scalars!r}; admissible: {', '.join(get_args(ScalarPolicy))}")

    @classmethod
    def uniform(
        cls, fmt: Format | str, rounding: Rounding = "nearest_even", *, scalars: ScalarPolicy = "rounded"
    ) -> Precision:
        """Every operation and every array in one format."""
        return cls((named_format(fmt), parse(rounding)), scalars=scalars)

    @classmethod
    def storage(
        cls,
        *,
        w: Format | str | None = None,
        m: Format | str | None = None,
        v: Format | str | None = None,
        g: Format | str | None = None,
        rounding: Rounding = "nearest_even",
    ) -> Precision:
        """Binary64 arithmetic; the named arrays are rounded where they are stored."""
        return cls(_WIDE, _rules({"w": w, "m": m, "v": v, "g": g}, rounding), scalars="wide")

    @classmethod
    def published(
        cls,
        *,
        w: Format | str | None = None,
        m: Format | str | None = None,
        v: Format | str | None = None,
        g: Format | str | None = None,
        rounding: Rounding = "nearest_even",
    ) -> Precision:
        """The literature's tensor-level model: binary64 master weights, gradients at Q(w), states stored rounded.

        ``w`` is the format of the weights that the gradient reads (the slot ``gradient.w`` of a joined program).
        """
        return cls(_WIDE, _rules({"gradient.w": w, "m": m, "v": v, "g": g}, rounding), scalars="wide")

    @classmethod
    def torch(cls, dtype: Any) -> Precision:
        """What PyTorch's optimizers compute with on a CPU, for the programs of ``fpsim.optim.pytorch``.

        Whatever is stored (parameter, gradient, states, the result of each ATen kernel) is rounded to ``dtype``, to
        nearest even. Intermediates inside a kernel (slots ``*.wide``) are binary32, numbers that PyTorch computes in
        Python (slots ``*.python``) binary64, and ``mu_product`` of NAdam is binary32 whatever the parameter is.
        A program without such slots is rounded to ``dtype`` operation by operation.

        Parameters
        ----------
        dtype : ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``, or the name ``"float32"``, ...

        Raises
        ------
        ValueError
            Another dtype. ``torch.float64`` is none: its square root is MKL's, one bit off in 1.3 % of cases.

        Examples
        --------
        >>> from fpsim.optim.pytorch import adam
        >>> slots = Precision.torch("bfloat16").resolve(adam())
        >>> slots["w.addcdiv"][0].mantissa_bits, slots["w.addcdiv.quotient.wide"][0].mantissa_bits
        (7, 23)
        """
        name = str(dtype).removeprefix("torch.")
        if name not in TORCH_DTYPES:
            raise ValueError(f"dtype={dtype!r}; admissible: {', '.join(TORCH_DTYPES)}, as torch.dtype or by name")
        families = (("*.wide", _SINGLE, "nearest_even"), ("*.python", *_WIDE), ("mu_product", _SINGLE, "nearest_even"))
        return cls((named_format(name), "nearest_even"), scalars="torch", families=families)

    def replace(self, overrides: Mapping[str, tuple[Format | str, Rounding] | Format | str]) -> Precision:
        """The same precision with other slots; names that match nothing raise when a program is resolved."""
        rules = []
        for pattern, choice in overrides.items():
            if not isinstance(pattern, str):
                raise TypeError(f"slot {pattern!r}: the name of a slot or a pattern is needed")
            rules.append((pattern, *_slot(choice if isinstance(choice, tuple) else (choice, self.default[1]))))
        return replace(self, rules=self.rules + tuple(rules))

    def resolve(self, program: Program) -> dict[str, Slot]:
        """Format and rounding mode of every slot of ``program``; the index of a gather keeps binary64.

        Raises
        ------
        ValueError
            A rule's name matches no slot of the program.
        """
        slots = dict.fromkeys(program.slots, self.default)
        for pattern, fmt, rounding in self.families:
            slots.update(dict.fromkeys(fnmatch.filter(program.slots, pattern), (fmt, rounding)))
        for pattern, fmt, rounding in self.rules:
            matched = fnmatch.filter(program.slots, pattern)
            if not matched:
                raise ValueError(f"slot {pattern!r} is not in program {program.name!r}{hint(pattern, program.slots)}")
            slots.update(dict.fromkeys(matched, (fmt, rounding)))
        if self.scalars in ("wide", "python"):
            slots.update({scalar.name: _WIDE for scalar in program.scalars})
        slots.update(dict.fromkeys(program.indices, _WIDE))
        return slots


def drawn_bits(program: Program, slots: Mapping[str, Slot]) -> int:
    """What every draw of a program is the top of: a word (32), a half (16), or nothing (0) where no mode is stochastic.

    Where any slot has more than 16 random bits, every draw is the top of a whole word: slots that share a word would
    otherwise share bits (see ``random_bits.program_draw``). Scalars are set up outside the steps and draw nothing.
    """
    drawing = [slots[name] for name in program.slots if not name.startswith("scalar.")]
    most = max((random_bits(mode) for _, mode in drawing), default=0)
    return 0 if most == 0 else 16 if most <= 16 else 32


def scalar_values(program: Program, precision: Precision, steps: range) -> dict[str, npt.NDArray[np.float64]]:
    """Effective values of the scalar operands.

    Parameters
    ----------
    steps : range of step numbers, counted from 0 (the expression's ``t`` is the step number plus 1)

    Returns
    -------
    dict : scalar name -> float64 ``[1]`` (constant) or ``[len(steps)]``; with a per-run hyperparameter
        ``[1 or len(steps), runs]``. A scalar of a stochastic slot is rounded to nearest even: it is set up outside the
        step and is not an operation of it.
    """
    slots = precision.resolve(program)
    values = {}
    for scalar in program.scalars:
        fmt, mode = slots[scalar.name]
        mode = "nearest_even" if isinstance(mode, Stochastic) else mode
        when = steps if program.varies(scalar) else range(1)
        stored = {
            name: slots.get(f"scalar.{name}", precision.default)[0]
            for name in scalar.expression.symbols() - {STEP}
            if precision.scalars == "stored"
        }
        columns = []
        for given, schedules in _per_run(program, scalar):
            if stored and schedules:  # each step's value is stored before it is used
                parts = []
                for k in when:
                    now = given | {name: evaluate(x, {STEP: k + 1}) for name, x in schedules.items()}
                    parts.append(_column(scalar.expression, now, stored, range(k, k + 1), fmt, mode))
                column = np.concatenate(parts) if parts else np.empty(0)
            elif precision.scalars in ("python", "torch"):
                column = _python_column(scalar.expression.substitute(schedules), tuple(sorted(given.items())), when)
                column = _cast(column, fmt, mode) if precision.scalars == "torch" else column
            else:
                column = _column(scalar.expression.substitute(schedules), given, stored, when, fmt, mode)
            columns.append(column)
        values[scalar.name] = columns[0].copy() if len(columns) == 1 else np.stack(columns, axis=1)
    return values


def _column(
    expression: ScalarExpression,
    given: Mapping[str, Any],
    stored: Mapping[str, Format],
    when: range,
    fmt: Format,
    mode: Rounding,
) -> npt.NDArray[np.float64]:
    """Values rounded once, of hyperparameters that were themselves rounded to their format in ``stored``, if any."""
    given = {name: _round(Fraction(x), stored[name], mode) if name in stored else x for name, x in given.items()}
    items = tuple(sorted(given.items()))
    if all(map(math.isfinite, given.values())):
        return _rounded_column(expression, items, when, fmt, mode)
    wide = _python_column(expression, items, when)  # a stored hyperparameter that its format cannot hold
    return np.array([exact.operation("round", (float(x),), fmt, mode) for x in wide])


@dataclass(frozen=True)
class ScalarReport:
    """Declared and effective value of one scalar (of the first run, in the first step), and a warning or ''."""

    name: str
    declared: float
    effective: float
    warning: str


def scalar_report(
    program: Program, precision: Precision, first_step: int = 0, last_step: int | None = None
) -> list[ScalarReport]:
    """What the format makes of each scalar, with a named warning where it changes the algorithm.

    Scalars that change from step to step are looked at in ``last_step`` too, if one is given. There only those that
    multiply something may not become 1: a bias correction, which divides, tends to it.
    """
    values = _declared_and_effective(program, precision, first_step)
    at_the_end = {}
    if last_step is not None and last_step > first_step and any(map(program.varies, program.scalars)):
        at_the_end = _declared_and_effective(program, precision, last_step)
    factors = {x for operation in program.operations if operation.kind in ("mul", "fma") for x in operation.operands}
    reports = []
    for scalar in program.scalars:
        wide, stored = values[scalar.name]
        warning = _warning(scalar.name, wide, stored)
        if not warning and program.varies(scalar) and at_the_end:
            last = at_the_end[scalar.name]
            if last[1] != 1.0 or scalar.name in factors:
                warning = _warning(scalar.name, *last)
                warning += f" in step {(last_step or 0) + 1}" * bool(warning)
        reports.append(ScalarReport(scalar.name, wide, stored, warning))
    return reports


def _declared_and_effective(program: Program, precision: Precision, step: int) -> dict[str, tuple[float, float]]:
    """Of the first run, in one step."""
    when = range(step, step + 1)
    effective = scalar_values(program, precision, when)
    declared = scalar_values(program, replace(precision, scalars="wide"), when)
    return {s.name: (float(declared[s.name].flat[0]), float(effective[s.name].flat[0])) for s in program.scalars}


def _warning(name: str, wide: float, stored: float) -> str:
    if math.isnan(stored) or math.isinf(stored):
        return f"{name} = {wide:.6g} is not finite in its format"
    if stored == wide or stored not in (0.0, 1.0):
        return ""
    told = f"{wide:.6g}"
    return f"{name} = {told if told != f'{stored:g}' else repr(float(wide))} becomes {stored:g}"


def _per_run(program: Program, scalar: Scalar) -> list[tuple[dict[str, Any], dict[str, ScalarExpression]]]:
    """The declared numbers and schedules a scalar depends on, one pair per run (a single one if none varies)."""
    names = sorted(scalar.expression.symbols() - {STEP})
    schedules = {name: x for name, x in program.schedules.items() if name in names}
    given = {name: program.hyperparameters[name] for name in names if name not in schedules}
    lengths = {len(x) for x in given.values() if np.ndim(x) == 1}
    if not lengths:
        return [(given, schedules)]
    if len(lengths) > 1:
        raise ValueError(f"{scalar.name}: per-run hyperparameters of different lengths {sorted(lengths)}")
    runs = range(lengths.pop())
    return [({k: float(x[i]) if np.ndim(x) == 1 else x for k, x in given.items()}, schedules) for i in runs]


@functools.lru_cache(maxsize=64)
def _exact_column(expression: ScalarExpression, given: tuple[tuple[str, Any], ...], steps: range) -> list[Fraction]:
    values = dict(given)
    if _saturated(expression, values, steps):
        return [Fraction(1)] * len(steps)
    return [evaluate(expression, {**values, STEP: step + 1}) for step in steps]


def _saturated(expression: ScalarExpression, values: Mapping[str, Any], steps: range) -> bool:
    """Whether the expression is a bias correction, 1 - x^t, whose power is below 2^-300 from the first step on.

    In 256 bits it is then 1. Long runs spend nearly all of their steps there.
    """
    power = expression.right
    if expression.kind != "-" or power is None or power.kind != "**" or expression.left != ScalarExpression.of(1):
        return False
    assert power.left is not None
    x = values.get(power.left.name, -1.0)
    if power.right != ScalarExpression.symbol(STEP) or not 0 <= x < 1:
        return False
    return x == 0 or (steps.start + 1) * math.log2(x) < -300


@functools.lru_cache(maxsize=1024)
def _odd_column(
    expression: ScalarExpression, given: tuple[tuple[str, Any], ...], steps: range
) -> npt.NDArray[np.float64]:
    values = dict(given)
    if _saturated(expression, values, steps):
        return np.ones(len(steps))
    return np.array([evaluate_odd(expression, {**values, STEP: step + 1}) for step in steps])


def _python_column(
    expression: ScalarExpression, given: tuple[tuple[str, Any], ...], steps: range
) -> npt.NDArray[np.float64]:
    values = dict(given)
    return np.array([evaluate_python(expression, {**values, STEP: step + 1}) for step in steps])


def _cast(column: npt.NDArray[np.float64], fmt: Format, mode: Rounding) -> npt.NDArray[np.float64]:
    """Numbers of Python as a C++ kernel gets them: a binary64 is cast to binary32, and from there to what is narrower.

    Two casts round twice: 1 + 2^-8 + 2^-40 is 1 in bfloat16, by way of 1 + 2^-8, a tie.
    """
    if fmt == BINARY64:
        return column
    with np.errstate(over="ignore"):
        single = column.astype(np.float32).astype(np.float64)
    return single if fmt == _SINGLE else np.array([exact.operation("round", (float(x),), fmt, mode) for x in single])


# The modes that round a multiple of the quantum, as NumPy names them.
_INTEGRAL: dict[Rounding, Any] = {
    "nearest_even": np.rint, "toward_zero": np.trunc, "up": np.ceil, "down": np.floor,
}  # fmt: skip


@functools.lru_cache(maxsize=8192)
def _rounded_column(
    expression: ScalarExpression, given: tuple[tuple[str, Any], ...], steps: range, fmt: Format, mode: Rounding
) -> npt.NDArray[np.float64]:
    """The exact values rounded to ``fmt``, all at once where that is a ``rint`` or a ``trunc`` in binary64.

    Rounding to odd at 53 bits and then to p <= 51 is one rounding (Boldo and Melquiond 2008).
    """
    integral = _INTEGRAL.get(mode)
    if integral is not None and fmt.precision <= 51 and fmt.ordinary and fmt.emin > -900:
        odd = _odd_column(expression, given, steps)
        exponent = np.maximum(np.frexp(odd)[1] - 1, fmt.emin) - fmt.mantissa_bits
        with np.errstate(over="ignore"):  # what rounds up to 2^1024 is too large for the format and goes on below
            rounded: npt.NDArray[np.float64] = np.ldexp(integral(np.ldexp(odd, -exponent)), exponent)
        normal = np.abs(odd) >= 2.0**-900  # below, binary64 itself may have lost bits
        if np.all(normal) and np.all(np.abs(rounded) <= fmt.max):
            return rounded if fmt.has_negative_zero else rounded + 0.0
    return np.array([_round(x, fmt, mode) for x in _exact_column(expression, given, steps)])


def _round(x: Fraction, fmt: Format, mode: Rounding) -> float:
    return exact.round_value(exact.Exact("finite", abs(x), x < 0), fmt, mode)


def _rules(arrays: Mapping[str, Format | str | None], rounding: Rounding) -> tuple[tuple[str, Format, Rounding], ...]:
    return tuple((name, named_format(fmt), parse(rounding)) for name, fmt in arrays.items() if fmt is not None)


def _slot(choice: Any) -> Slot:
    if not isinstance(choice, tuple) or len(choice) != 2:
        raise TypeError(f"{choice!r}: a pair (format, rounding) is needed")
    fmt, rounding = choice
    return named_format(fmt), parse(rounding)
