"""What the names in a cell stand for: fpsim's own, what installed packages add, and what a Python study brings."""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from experiments import networks
from experiments.cell import Cell
from experiments.fields import StudyError, one_line
from experiments.schedules import declared
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.program import Program

if TYPE_CHECKING:
    from experiments.problems.base import Problem

Factory: TypeAlias = "Callable[..., Problem]"


@dataclass(frozen=True)
class Own:
    """Programs and problems (or factories of problems) that a study in Python brings itself, by name."""

    programs: Mapping[str, Program] = field(default_factory=dict)
    problems: Mapping[str, Problem | Factory] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.programs or self.problems)

    def check_portable(self, engine: str) -> None:
        """Refuse what another process could not be sent.

        Raises
        ------
        StudyError
            Names the object and what to do.
        """
        for key, objects in (("optimizer", self.programs), ("problem", self.problems)):
            for name, value in objects.items():
                advice = f"define it in a module that can be imported, or use the engine 'threads' ({engine} sends it)"
                home = sys.modules.get(getattr(value, "__module__", type(value).__module__))
                if not isinstance(value, Program) and getattr(home, "__name__", "") == "__main__":
                    raise StudyError(key, f"{name!r} lives in __main__; {advice}")
                try:
                    pickle.dumps(value)
                except Exception as error:  # whatever the object's own code raises
                    reason = one_line(error)
                    raise StudyError(key, f"{name!r} cannot be sent to a process ({reason}); {advice}") from error


NOTHING = Own()
# Rooms whose source is in ``code_version``, and what no one writes for a study.
_COUNTED = ("experiments", "fpsim", "builtins", "abc", "numpy")


def step_of(name: str, own: Own = NOTHING) -> tuple[Program, str]:
    """The step of a name with the values its author declared, and the package it comes from ("": fpsim's own)."""
    if name in own.programs:
        return own.programs[name], "own"
    if name == "muon":
        return own_steps()[name], ""
    from fpsim.optim import find

    if name in networks.OPTIMIZERS:
        raise StudyError(
            "optimizer", f"{name!r} trains networks only; admissible: problems {', '.join(networks.PROBLEMS)}"
        )
    with _naming("optimizer", name):
        return find(name)


def own_steps() -> dict[str, Program]:
    """fpsim's own steps by name: those of ``fpsim.optim``, and those that only a study can run."""
    from experiments.muon import muon
    from fpsim.optim import STEPS

    return {**STEPS, "muon": muon}


def problem_source(name: str, own: Own = NOTHING) -> tuple[Problem | Factory, str]:
    """A problem, or the factory behind a name, and the package it comes from ("": fpsim's own)."""
    if name in own.problems:
        return own.problems[name], "own"
    from experiments.problems import find

    with _naming("problem", name):
        return find(name)


def problem_of(cell: Cell, own: Own = NOTHING) -> Problem:
    """The problem of a cell.

    Raises
    ------
    ValueError
        The problem refuses its dimension or an option.
    """
    return make_problem(cell.problem, cell.dimension, tuple(sorted(cell.options.items())), own)


def make_problem(name: str, dimension: int, options: tuple[tuple[str, Any], ...], own: Own = NOTHING) -> Problem:
    from experiments.problems.base import Problem

    source, package = problem_source(name, own)
    if isinstance(source, Problem):
        return source
    made = source(dimension=dimension, **dict(options))
    check_made(name, made, package)
    return made


def check_made(name: str, made: Any, package: str) -> None:
    """Refuse what a factory of somebody else made, unless it is a problem."""
    from experiments.problems.base import Problem

    if package and not isinstance(made, Problem):
        raise StudyError("problem", f"{name!r} of {package} makes a {type(made).__name__}; a Problem is needed")


def bound(step: Program, cell: Cell) -> Program:
    """The step with the hyperparameters of a cell."""
    return step.bind(**{name: declared(value, cell.steps) for name, value in cell.hyperparameters.items()})


def format_of(cell: Cell) -> Format:
    """The format of every slot that no override names."""
    return format_of_widths(cell.exponent_bits, cell.mantissa_bits)


def format_of_widths(exponent_bits: int, mantissa_bits: int) -> Format:
    """``eXmY``, and what continues that family to no mantissa bits.

    There IEEE 754 has no code left for NaN; it takes the place of -0, and infinities are the top codes as in all other
    formats of the grid: the values are those of ``eXm0`` with the same exponents.
    """
    if mantissa_bits:
        return named_format(f"e{exponent_bits}m{mantissa_bits}")
    bias = (1 << (exponent_bits - 1)) - 1
    return Format(exponent_bits, 0, bias=bias, specials="p3109_extended")


def check_step(name: str, program: Program) -> None:
    """Refuse a step that a study cannot run.

    It needs a state ``w``, a vector, reads ``g``, and everything else is state too, which starts at 0.
    """
    from fpsim.program import RUNNABLE
    from fpsim.shapes import text

    read = [x for x in program.inputs if x not in program.state]
    if "w" not in program.state or read != ["g"]:
        raise StudyError(
            "optimizer",
            f"{name!r} reads {', '.join(program.inputs)} and stores {', '.join(program.state) or 'nothing'}; "
            "a study needs a step that reads and stores w, reads g, and stores everything else that it reads",
        )
    for array in program.state:
        shape = program.shape(array)
        if (array == "w" and shape != ("d",)) or {d for d in shape if isinstance(d, str)} - {"d"}:
            raise StudyError(
                "optimizer",
                f"{name!r} stores {array}{text(shape)}; a study's weights are a vector w[d], of which every state has "
                "the length or a fixed one",
            )
    if program.opaque:
        _check_opaque(name, program)
    for operation in program.operations:
        if operation.kind not in RUNNABLE | {"opaque"}:
            known = ", ".join(sorted(RUNNABLE))
            raise StudyError(
                "optimizer", f"{name!r}: slot {operation.slot} is a {operation.kind!r}; admissible: {known}"
            )


def _check_opaque(name: str, program: Program) -> None:
    """Refuse an opaque operation that a study cannot run."""
    from experiments.split_machine import FUNCTIONS, Split

    try:
        function = Split.of(program).function
    except ValueError as error:
        raise StudyError("optimizer", f"{name!r}: {error}") from error
    if function not in FUNCTIONS:
        known = ", ".join(FUNCTIONS)
        raise StudyError("optimizer", f"{name!r}: opaque function {function!r} is unknown; admissible: {known}")


class _naming:
    """Turns what a registry raises into a ``StudyError``."""

    def __init__(self, key: str, name: str) -> None:
        self.key, self.name = key, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, KeyError):
            raise StudyError(self.key, f"{self.name!r} is unknown") from None
        if isinstance(error, ValueError) and not isinstance(error, StudyError):
            raise StudyError(self.key, str(error)) from error


def own_from(given: Any, kind: str, known: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Names and objects, as a list or comma-separated, taken apart: (names of all of them, objects by name).

    Raises
    ------
    StudyError
        Something that is no step or problem, one without a name, or a name that is taken.
    """
    from experiments.problems.base import Problem

    names: list[str] = []
    found: dict[str, Any] = {}
    several = given.split(",") if isinstance(given, str) else given
    for item in several if isinstance(several, (list, tuple)) else [several]:
        if isinstance(item, str):
            names.append(item.strip())
            continue
        good = isinstance(item, Program) if kind == "optimizer" else isinstance(item, Problem) or callable(item)
        if not good:
            needed = "a name or a Program" if kind == "optimizer" else "a name, a Problem or a factory(dimension=..)"
            raise StudyError(kind, f"{item!r} is not admissible; {needed} is needed")
        name = item.name if isinstance(item, (Program, Problem)) else getattr(item, "__name__", "")
        if not name or name == "<lambda>":
            raise StudyError(kind, f"{item!r} has no name")
        names.append(name)
        if known.get(name) is item or known.get(name) == item:
            continue  # fpsim's own, given as an object
        if name in known:
            also = kind == "optimizer" and replace(item, hyperparameters=known[name].hyperparameters) == known[name]
            advice = "give its hyperparameters to the study" if also else "give yours another one"
            raise StudyError(kind, f"{name!r} is the name of fpsim's own; {advice}")
        if name in found and found[name] is not item:
            raise StudyError(kind, f"two of the name {name!r}; give one of them another name")
        found[name] = item
    return names, found


def program_digest(name: str, own: Own = NOTHING) -> str:
    """ "" for fpsim's own, whose code is in ``code_version``; else a hash of the program."""
    if name in networks.OPTIMIZERS:
        return ""
    program, package = step_of(name, own)
    if not package:
        return ""
    return _hash(replace(program, hyperparameters=dict.fromkeys(program.hyperparameters, 0.0)), package)


def problem_digest(cell: Cell, own: Own = NOTHING) -> str:
    """ "" for fpsim's own; else a hash of the problem's class with its source, and of everything it holds; of a network
    PyTorch's version and a hash of its data."""
    if cell.problem in networks.PROBLEMS:
        from experiments.network_settings import content

        return content(cell)
    return _problem_digest(cell.problem, cell.dimension, tuple(sorted(cell.options.items())), own)


def check_same(cell: Cell, own: Own = NOTHING) -> None:
    """Refuse a cell whose names stand for something else here than where it was made: a package of another version.

    Raises
    ------
    RuntimeError
        Names the package that is here.
    """
    pairs = (
        (cell.optimizer, step_of(cell.optimizer, own)[1], program_digest(cell.optimizer, own), cell.program_digest),
        (cell.problem, problem_source(cell.problem, own)[1], problem_digest(cell, own), cell.problem_digest),
    )
    for name, package, here, meant in pairs:
        if package not in ("", "own") and here != meant:
            raise RuntimeError(f"{name!r} of {package} is not that of the driver: install the same package on both")


def _problem_digest(name: str, dimension: int, options: tuple[tuple[str, Any], ...], own: Own) -> str:
    _, package = problem_source(name, own)
    return _hash(make_problem(name, dimension, options, own), package) if package else ""


def _hash(value: Any, package: str) -> str:
    digest = hashlib.blake2b(package.encode(), digest_size=16)
    for part in _content(value, frozenset()):
        digest.update(part + b"\0")
    return digest.hexdigest()


def _content(value: Any, inside: frozenset[int]) -> list[bytes]:
    """Bytes that differ where values differ. What is not known by its content counts as new each time."""
    if id(value) in inside:
        return [b"circle"]
    inside |= {id(value)}
    kind = type(value).__qualname__.encode()
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "O":
            return [kind, *_content(value.tolist(), inside)]
        return [kind, repr((value.dtype.str, value.shape)).encode(), np.ascontiguousarray(value).tobytes()]
    if isinstance(value, (list, tuple)):
        return [kind, *(part for item in value for part in _content(item, inside)), b"end"]
    if isinstance(value, (set, frozenset)):
        return [kind, *sorted(b"".join(_content(item, inside)) for item in value), b"end"]
    if isinstance(value, Mapping):
        pairs = sorted(((repr(key), item) for key, item in value.items()), key=lambda pair: pair[0])
        return [kind, *(part for pair in pairs for part in (pair[0].encode(), *_content(pair[1], inside))), b"end"]
    if isinstance(value, type):
        bases = [base for base in value.__mro__ if base.__module__.split(".")[0] not in _COUNTED]
        return [part for base in bases for part in (base.__qualname__.encode(), *_source(base))]
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [kind, *_source(value), *_content([cells, value.__defaults__, value.__kwdefaults__], inside)]
    if isinstance(value, functools.partial):
        return [kind, *_content([value.func, value.args, value.keywords], inside)]
    if is_dataclass(value):
        return [
            kind,
            *_content(type(value), inside),
            *_content([getattr(value, f.name) for f in fields(value)], inside),
        ]
    if hasattr(value, "__dict__") and vars(value):
        return [kind, *_content(type(value), inside), *_content(vars(value), inside)]
    return [kind, repr(value).encode()]


def _source(value: Any) -> list[bytes]:
    try:
        return [inspect.getsource(value).encode()]
    except (OSError, TypeError):  # typed in at a prompt
        functions = [value] if isinstance(value, FunctionType) else [f for f in vars(value).values() if callable(f)]
        return [part for function in functions for part in _bytecode(getattr(function, "__code__", None))]


def _bytecode(code: CodeType | None) -> list[bytes]:
    if code is None:
        return []
    nested = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    plain = [repr(constant) for constant in code.co_consts if not isinstance(constant, CodeType)]
    own = [code.co_code, repr((plain, code.co_names)).encode()]
    return own + [part for inner in nested for part in _bytecode(inner)]
