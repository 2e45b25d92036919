"""An optimizer step as data: a frozen, validated list of named operations."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim import shapes as symbolic
from fpsim.scalars import STEP, ScalarExpression, evaluate
from fpsim.schedule_text import parse_schedule
from fpsim.shapes import Shape, Sizes

# kind -> (number of operands, result is rounded). Readers say which kinds they take.
KINDS: dict[str, tuple[int, bool]] = {
    **dict.fromkeys(("add", "sub", "mul", "div"), (2, True)),
    **dict.fromkeys(("round", "sqrt"), (1, True)),
    "fma": (3, True),
    "sum": (1, True),
    **dict.fromkeys(
        ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tanh", "sigmoid", "erf"), (1, True)
    ),
    **dict.fromkeys(("pow", "rem", "matmul", "dot"), (2, True)),
    **dict.fromkeys(("neg", "abs", "sign", "expand"), (1, False)),
    **dict.fromkeys(("max", "min", "less", "gather"), (2, False)),
    "where": (3, False),
    "draw": (0, False),
    "opaque": (1, True),
}
ELEMENTARY = ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "pow")
REDUCTIONS = ("sum", "dot")  # of many rounded operations
# What the exact reader and the CPU machine run.
RUNNABLE = frozenset({"add", "sub", "mul", "div", "sqrt", "fma", "round", "sum", "neg", "abs", "sign", "max", "min",
                      "rem", "dot", "less", "where", "gather", "expand", *ELEMENTARY})  # fmt: skip
_UNIFORM = frozenset({"add", "sub", "mul", "div", "sqrt", "fma", "round", "sum", "neg", "abs", "sign", "max", "min"})


@dataclass(frozen=True)
class Scalar:
    """A scalar operand: its name (``scalar.lr``) and its expression in the declared hyperparameters."""

    name: str
    expression: ScalarExpression

    @property
    def per_step(self) -> bool:
        """Whether the step number itself occurs; ``Program.varies`` knows of schedules too."""
        return STEP in self.expression.symbols()


@dataclass(frozen=True)
class Operation:
    """One operation. ``slot`` names it and its result; ``operands`` name arrays, scalars or earlier results."""

    kind: str
    slot: str
    operands: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...] = ()

    @property
    def rounded(self) -> bool:
        return KINDS[self.kind][1]


@dataclass(frozen=True)
class Program:
    """A validated step: what is computed, from what, in which order.

    Attributes
    ----------
    name : str
    inputs : names of the arrays read
    outputs : pairs (array name, name of the value stored there at the end of the step)
    scalars, operations : in order of first use
    hyperparameters : declared values by name; a sequence or 1-D array (kept as a tuple) holds one value per run, an
        expression in the step number ``t`` (or its text, ``"0.1/sqrt(t)"``) is a schedule
    variant : which published algorithm this is, and where others differ
    shapes : input -> its shape (``fpsim.shapes``), where that is not ``("d",)``
    shared : inputs that all runs have in common; the others, and all that is computed, are per run
    part_of : the slots of the longer program that this one is a part of, which number its random bits; else empty
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    scalars: tuple[Scalar, ...]
    operations: tuple[Operation, ...]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    variant: str = field(default="", compare=False)
    shapes: Mapping[str, Shape] = field(default_factory=dict, hash=False)
    shared: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        declared = {name: _declared(name, value) for name, value in self.hyperparameters.items()}
        object.__setattr__(self, "hyperparameters", declared)
        defined = [*self.inputs, *(scalar.name for scalar in self.scalars)]
        for operation in self.operations:
            if operation.kind not in KINDS:
                raise ValueError(f"{operation.slot}: kind {operation.kind!r}; admissible: {', '.join(KINDS)}")
            arity = KINDS[operation.kind][0]
            if len(operation.operands) != arity:
                raise ValueError(
                    f"{operation.slot}: {operation.kind} takes {arity} operands, {len(operation.operands)} given"
                )
            for operand in operation.operands:
                if operand not in defined:
                    raise ValueError(f"{operation.slot}: operand {operand!r} is not defined before it is used")
            defined.append(operation.slot)
        for array, value in self.outputs:
            if value not in defined:
                raise ValueError(f"output {array!r}: value {value!r} is not defined")
        doubled = sorted({name for name in defined if defined.count(name) > 1})
        if doubled:
            raise ValueError(f"names used twice in program {self.name!r}: {', '.join(doubled)}")
        for scalar in self.scalars:
            missing = scalar.expression.symbols() - set(self.hyperparameters) - {STEP}
            if missing:
                raise ValueError(
                    f"{scalar.name}: hyperparameters without a declared value: {', '.join(sorted(missing))}"
                )
        unnumbered = {o.slot for o in self.operations if o.rounded}.union(self.inputs).difference(self.slots)
        if unnumbered:
            raise ValueError(f"part_of lacks {', '.join(sorted(unnumbered))} of program {self.name!r}")
        self._check_inputs()
        object.__setattr__(self, "_shapes", self._inferred())

    def _check_inputs(self) -> None:
        for what, names in (("shapes", self.shapes), ("shared", self.shared)):
            for name in names:
                if name not in self.inputs:
                    raise ValueError(f"{what}: {name!r} is no input of program {self.name!r}{hint(name, self.inputs)}")
        declared = {name: symbolic.checked(name, shape) for name, shape in self.shapes.items()}
        given = {name: shape for name, shape in declared.items() if shape != symbolic.DEFAULT}
        object.__setattr__(self, "shapes", given)
        object.__setattr__(self, "shared", tuple(name for name in self.inputs if name in self.shared))
        written = {array for array, _ in self.outputs}
        for name in self.shared:
            if name in written:
                raise ValueError(f"array {name!r} is shared by all runs, and the step writes it; admissible: per run")
        for operation in self.operations:
            index = operation.operands[1] if operation.kind == "gather" else None
            if index is not None and (index not in self.inputs or index in written):
                raise ValueError(f"{operation.slot}: index {index!r}; admissible: an input that the step only reads")

    def _inferred(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {name: self.shapes.get(name, symbolic.DEFAULT) for name in self.inputs}
        shapes |= {scalar.name: () for scalar in self.scalars}
        for operation in self.operations:
            operands = {name: shapes[name] for name in operation.operands}
            attributes = dict(operation.attributes)
            shapes[operation.slot] = symbolic.of_operation(operation.kind, operation.slot, operands, attributes)
        for array, value in self.outputs:
            if array in self.inputs and shapes[value] != shapes[array]:
                raise ValueError(
                    f"output {array!r}: {value} has shape {symbolic.text(shapes[value])}; "
                    f"admissible: {symbolic.text(shapes[array])}, that of the array"
                )
            shapes[array] = shapes[value]
        return shapes

    def shape(self, name: str) -> Shape:
        """The symbolic shape of an array, a scalar, or the result of an operation; per run, or shared.

        Examples
        --------
        >>> product = Operation("mul", "product", ("A", "w"))
        >>> Program("p", ("w", "A"), (("y", "product"),), (), (product,), shapes={"A": ("n", "d")}).shape("y")
        ('n', 'd')
        """
        return self._shapes[name]  # type: ignore[attr-defined, no-any-return]

    def lengths(self, arrays: Mapping[str, npt.ArrayLike]) -> dict[str, int]:
        """The lengths of the dimensions, from arrays of their declared shapes, without axes for steps and runs.

        Raises
        ------
        ValueError
            An array that is no input, or lengths that contradict each other.

        Examples
        --------
        >>> product = Operation("mul", "product", ("A", "w"))
        >>> program = Program("p", ("w", "A"), (("y", "product"),), (), (product,), shapes={"A": ("n", "d")})
        >>> program.lengths({"A": np.ones((3, 5))})
        {'n': 3, 'd': 5}
        """
        sizes = Sizes()
        for name, array in arrays.items():
            if name not in self.inputs:
                raise ValueError(f"array {name!r} is no input of program {self.name!r}{hint(name, self.inputs)}")
            sizes.meet(name, self.shape(name), np.shape(array))
        return sizes.lengths()

    @property
    def uniform(self) -> bool:
        """Whether every value is elementwise of shape ``[d]`` per run, or a plain sum of that."""
        return not self.shared and all(
            self.shape(operation.slot) == symbolic.DEFAULT
            and operation.kind in _UNIFORM
            and not operation.attributes
            and all(name.startswith("scalar.") or self.shape(name) == symbolic.DEFAULT for name in operation.operands)
            for operation in self.operations
        ) and not self.shapes  # fmt: skip

    @property
    def opaque(self) -> bool:
        """Whether an operation is a named function that its caller supplies."""
        return any(operation.kind == "opaque" for operation in self.operations)

    @property
    def indices(self) -> tuple[str, ...]:
        """Inputs that a gather reads as its index: whole numbers, which keep binary64 whatever the precision says."""
        read = {operation.operands[1] for operation in self.operations if operation.kind == "gather"}
        return tuple(name for name in self.inputs if name in read)

    @property
    def state(self) -> tuple[str, ...]:
        """Arrays that the step both reads and writes."""
        written = {array for array, _ in self.outputs}
        return tuple(name for name in self.inputs if name in written)

    @property
    def slots(self) -> tuple[str, ...]:
        """Everything that has a format: rounded operations in order, then arrays, then scalars.

        The position of a slot numbers its random bits. A part of a program has the slots of the whole.
        """
        rounded = tuple(operation.slot for operation in self.operations if operation.rounded)
        return self.part_of or rounded + self.inputs + tuple(scalar.name for scalar in self.scalars)

    @property
    def schedules(self) -> dict[str, ScalarExpression]:
        """The hyperparameters that change from step to step."""
        return {name: value for name, value in self.hyperparameters.items() if isinstance(value, ScalarExpression)}

    def varies(self, scalar: Scalar) -> bool:
        """Whether a scalar changes from step to step: by its own expression or by the schedule of a hyperparameter."""
        return scalar.per_step or not self.schedules.keys().isdisjoint(scalar.expression.symbols())

    def operation(self, slot: str) -> Operation:
        for operation in self.operations:
            if operation.slot == slot:
                return operation
        raise KeyError(slot)

    def bind(self, **values: Any) -> Program:
        """The same program with other declared values; unknown names raise ``ValueError``.

        Examples
        --------
        >>> from fpsim.optim.sgd import sgd
        >>> print(sgd.bind(lr="0.5/sqrt(t)").hyperparameters["lr"])
        (0.5 / sqrt(t))
        """
        for name in values:
            if name not in self.hyperparameters:
                raise ValueError(f"hyperparameter {name!r} is unknown{hint(name, self.hyperparameters)}")
        return replace(self, hyperparameters={**self.hyperparameters, **values})

    def __rshift__(self, following: Program) -> Program:
        """Join: this program's outputs feed the following one's inputs of the same name.

        This program's slots get the prefix ``gradient.``. What it hands over is stored once, in a slot of the array's
        own name; a state of the following program that it reads is read through a slot ``gradient.NAME``. Where the
        format of such a slot is that of the value, storing is the identity. An array that this program both reads and
        hands over, as a clipped gradient, keeps its name as an input, and what it hands over is stored in
        ``gradient.NAME``.
        """
        handed = {array: value for array, value in self.outputs if array in following.inputs}
        if not handed:
            raise ValueError(f"{self.name!r} >> {following.name!r}: no output of the first is an input of the second")
        lost = [name for name in self.state if name not in handed]
        if lost:
            raise ValueError(f"{self.name!r} >> {following.name!r}: state {', '.join(lost)} of the first would be lost")
        reads = [name for name in self.inputs if name in following.inputs]
        names = {name: f"gradient.{name}" for name in reads}
        for operation in self.operations:
            prefixed = operation.slot.startswith("gradient.")
            names[operation.slot] = operation.slot if prefixed else f"gradient.{operation.slot}"
        for scalar in self.scalars:
            for other in following.scalars:
                if other.name == scalar.name and other != scalar:
                    raise ValueError(
                        f"{scalar.name} stands for two expressions: {scalar.expression}, {other.expression}"
                    )
        shared = {k for k in self.hyperparameters if k in following.hyperparameters}
        for name in shared:
            if self.hyperparameters[name] != following.hyperparameters[name]:
                raise ValueError(f"hyperparameter {name!r} has two declared values")
        self._check_handed(following, [*reads, *(x for x in handed if x in following.inputs)])
        first = [Operation("round", names[name], (name,)) for name in reads if name in following.state]
        for name in reads:
            if name not in following.state:
                names[name] = name
        first += [
            replace(o, slot=names[o.slot], operands=tuple(names.get(x, x) for x in o.operands)) for o in self.operations
        ]
        passed = {name: f"gradient.{name}" for name in handed if name in self.inputs and name not in following.state}
        first += [
            Operation("round", passed.get(array, array), (names.get(value, value),)) for array, value in handed.items()
        ]
        second = [replace(o, operands=tuple(passed.get(x, x) for x in o.operands)) for o in following.operations]
        inputs = [name for name in following.inputs if name not in handed or name in passed]
        inputs += [name for name in self.inputs if name not in inputs]
        return Program(
            name=f"{self.name} >> {following.name}",
            inputs=tuple(inputs),
            outputs=tuple((array, passed.get(value, value)) for array, value in following.outputs),
            scalars=tuple(dict.fromkeys((*self.scalars, *following.scalars))),
            operations=(*first, *second),
            hyperparameters={**self.hyperparameters, **following.hyperparameters},
            variant=following.variant,
            shapes={name: (following if name in following.inputs else self).shape(name) for name in inputs},
            shared=tuple(dict.fromkeys((*self.shared, *(x for x in following.shared if x in inputs)))),
        )

    def _check_handed(self, following: Program, names: Iterable[str]) -> None:
        """Arrays that both programs know have one shape, and are per run or shared in both."""
        for name in names:
            mine, theirs = self.shape(name), following.shape(name)
            if mine != theirs:
                raise ValueError(
                    f"array {name!r} has shape {symbolic.text(mine)} in {self.name!r} and {symbolic.text(theirs)} in "
                    f"{following.name!r}; admissible: one shape"
                )
            if (name in self.shared) != (name in following.shared):
                raise ValueError(f"array {name!r} is shared by all runs in one of {self.name!r} and {following.name!r}")

    def __str__(self) -> str:
        lines = [f"program {self.name}: {', '.join(map(self._with_shape, self.inputs))}"]
        lines += [f"  {s.name} = {s.expression}" for s in self.scalars]
        lines += [f"  {o.slot} = {o.kind}({', '.join((*o.operands, *_named(o)))})" for o in self.operations]
        lines += [f"  {array} <- {value}" for array, value in self.outputs]
        return "\n".join(lines)

    def _with_shape(self, name: str) -> str:
        shape = "" if self.shape(name) == symbolic.DEFAULT else symbolic.text(self.shape(name))
        return f"{name}{shape}{' shared' if name in self.shared else ''}"


def _named(operation: Operation) -> list[str]:
    return [f"{name}={value}" for name, value in operation.attributes if value is not None]


def _declared(name: str, value: Any) -> Any:
    """A declared value with an exact meaning: a number, a tuple of floats with one per run, or a schedule in ``t``."""
    if isinstance(value, str):
        schedule = parse_schedule(value)
        value = schedule if schedule.symbols() else value
    if isinstance(value, ScalarExpression):
        unknown = value.symbols() - {STEP}
        if unknown:
            raise ValueError(f"hyperparameter {name}={value}: {', '.join(sorted(unknown))}; admissible: {STEP}")
        return value if value.symbols() else evaluate(value, {})
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1 and len(value) > 0:
        return tuple(float(_declared(name, x)) for x in value)
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, (int, float, Fraction)) or not math.isfinite(number):
        raise ValueError(f"hyperparameter {name}={value!r}: a finite number is needed, or one per run")
    return number


def hint(name: str, known: Iterable[str]) -> str:
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=2)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(choices)}"
