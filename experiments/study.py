"""What is to be run: a ``Study``, a grid of ``Cell``s (one point of the grid, all its seeds).

A study is read from a TOML file whose keys are the flags of ``fpsim scan``; nearly every key may hold a list, and the
cells are all combinations::

    optimizer = ["sgd", "adam"]
    mantissa = "1..10,23"
    lr = [0.05, "0.5/sqrt(t)"]                  # a schedule: t is the step (from 1), T the number of steps
    overrides = [{}, {v = "e5m10"}]             # as it is; and with v alone in another format

What is not said keeps its default; ``lr``, ``steps``, ``noise`` and the like have one default for each optimizer and
problem (``experiments.defaults``).
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from experiments import network_settings, networks, schedules
from experiments.cell import Cell, code_version, kin, package_version
from experiments.fields import (
    StudyError,
    choice,
    did_you_mean,
    grid,
    integer,
    names,
    number,
    optional,
    real,
    widths,
)
from experiments.overrides import read_overrides, uses_study_bits
from experiments.registry import (
    Own,
    check_made,
    own_from,
    own_steps,
    problem_digest,
    problem_source,
    program_digest,
    step_of,
)
from fpsim.scalars import ScalarExpression

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Cell", "Study", "StudyError", "code_version", "kin", "load", "package_version"]

MAX_SEED = 2**63 - 1  # what an Int64 column holds
MANTISSA, EXPONENT = (0, 52), (2, 11)
INTERVALS = {"lr": "(0, inf)", "beta1": "[0, 1)", "beta2": "[0, 1)", "eps": "[0, inf)"}
ANY = "(-inf, inf)"  # of a hyperparameter that only its author knows


def roundings() -> list[str]:
    from fpsim.rounding import CODES

    return [*CODES, "stochastic"]


def _own_names(kind: str) -> Callable[[], list[str]]:
    def of_fpsim() -> list[str]:
        if kind == "optimizer":
            return [*own_steps(), *networks.OPTIMIZERS]
        from experiments.problems import PROBLEMS

        return [*PROBLEMS, *networks.PROBLEMS]

    return of_fpsim


def _available(kind: str) -> list[str]:
    if kind == "optimizer":
        from fpsim.optim import available

        return list(dict.fromkeys((*own_steps(), *networks.OPTIMIZERS, *available())))
    from experiments.problems import available

    return [*available(), *networks.PROBLEMS]


def _table(reader: Callable[[str, str, Any], Any]) -> Callable[[str, Any], dict[str, Any]]:
    """A table name -> grid of values."""

    def read(key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise StudyError(key, f"{value!r} is no table; write [{key}] and a line for each name")
        return {name: reader(f"{key}.{name}", name, given) for name, given in value.items()}

    return read


def _option(key: str, value: Any) -> float | int | str | bool:
    if isinstance(value, (bool, int, float, str)):
        return value
    raise StudyError(key, f"{value!r} is not admissible; a number, a text, true or false is needed")


READERS: dict[str, Callable[[str, Any], Any]] = {
    "optimizer": names(_own_names("optimizer"), lambda: _available("optimizer")),
    "problem": names(_own_names("problem"), lambda: _available("problem")),
    "options": _table(lambda key, name, value: grid(_option)(key, [value] if isinstance(value, str) else value)),
    "mantissa": widths(*MANTISSA),
    "exponent": widths(*EXPONENT),
    "overrides": read_overrides,
    "rounding": names(roundings),
    "random_bits": integer(1, 32),
    "seeds": integer(1, 65536),
    "seed": integer(0, MAX_SEED),
    "gradient": optional(grid(choice("exact", "rounded", "stored"))),
    "steps": optional(grid(integer(1, 10**9))),
    **{name: optional(grid(number(interval))) for name, interval in INTERVALS.items()},
    "hyperparameters": _table(lambda key, name, value: grid(number(INTERVALS.get(name, ANY)))(key, value)),
    "noise": optional(grid(choice("none", "gaussian", "minibatch"))),
    "sigma": optional(grid(real("[0, 1e100]"))),
    "batch": optional(grid(integer(1, 10**6))),
    "dimension": optional(grid(integer(1, 10**6))),
    "window": optional(grid(real("(0, 1]"))),
}
_NOISES = {"sigma": "gaussian", "batch": "minibatch"}


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A grid of cells: every combination of what its fields hold.

    Parameters
    ----------
    optimizer, problem : names, as a tuple or comma-separated; in Python also Programs, and Problems or their factories
    options : of the problems, name -> value or values; each problem takes those that it has
    mantissa, exponent : widths in 0..52 and 2..11, as a tuple or ``"1..4,8"``; or a function of the number of steps,
        ``"ceil(4 + log2(T))"``
    overrides : a list of tables, slot or pattern -> format, rounding or both: ``[{}, {"v": "e5m10"}]``
    rounding : names
    random_bits : int in 1..32, random bits of one stochastic rounding
    seeds : int in 1..65536, runs of each cell; a seed sets start point, noise and random bits
    seed : int in 0..2^63-1, the root of all random bits
    gradient : ``"rounded"`` (computed in the machine, every operation rounded), ``"exact"`` (in binary64, then stored);
        of networks also ``"stored"`` (by PyTorch, every tensor rounded)
    lr, beta1, beta2, eps : numbers, or schedules in the step ``t`` (from 1) and the number of steps ``T``
    hyperparameters : the same for any name that an optimizer declares
    steps, noise, sigma, batch, dimension, window : as their names say
        ``None`` (like a hyperparameter that is not given) keeps the default of each optimizer and problem.

    Raises
    ------
    StudyError
        Names the field, its value and what is admissible.

    Examples
    --------
    >>> Study(mantissa="1..4,8").mantissa
    (1, 2, 3, 4, 8)
    >>> [c.hyperparameters for c in Study(optimizer="sgd", problem="quadratic", rounding="up", mantissa=7,
    ...                                   lr=[0.5, "1/t"]).cells()]
    [{'lr': 0.5}, {'lr': '1 / t'}]
    """

    optimizer: Any = ("sgd", "rmsprop", "adam")
    problem: Any = ("quadratic", "rational", "logistic")
    options: Any = {}
    mantissa: Any = tuple(range(1, 24))
    exponent: Any = (8,)
    overrides: Any = ((),)
    rounding: Any = ("nearest_even", "stochastic")
    random_bits: int = 16
    seeds: int = 8
    seed: int = 0
    gradient: Any = None
    steps: Any = None
    lr: Any = None
    beta1: Any = None
    beta2: Any = None
    eps: Any = None
    hyperparameters: Any = {}
    noise: Any = None
    sigma: Any = None
    batch: Any = None
    dimension: Any = None
    window: Any = None

    def __post_init__(self) -> None:
        from experiments.problems import PROBLEMS

        brought = {}
        for kind, known in (("optimizer", own_steps()), ("problem", {**PROBLEMS, **networks.PROBLEMS})):
            listed, brought[kind] = own_from(getattr(self, kind), kind, known)
            named = [name for name in listed if name not in brought[kind]]
            if named or not listed:
                READERS[kind](kind, named)
            msgspec.structs.force_setattr(self, kind, tuple(dict.fromkeys(listed)))
        self.__dict__["brought"] = Own(brought["optimizer"], brought["problem"])
        for key, read in READERS.items():
            if key not in brought:
                msgspec.structs.force_setattr(self, key, read(key, getattr(self, key)))
        for name in INTERVALS:
            if getattr(self, name) is not None and name in self.hyperparameters:
                raise StudyError(f"hyperparameters.{name}", f"it is given as {name} too; give it once")

    @property
    def own(self) -> Own:
        """The Programs and problems that were given as objects; the fields hold their names."""
        own: Own = self.__dict__["brought"]
        return own

    @classmethod
    def build(cls, raw: Mapping[str, Any]) -> Study:
        """A study from keys and unread values (TOML values, texts of flags)."""
        for key in raw:
            if key not in READERS:
                hint = did_you_mean(key, READERS)
                raise StudyError(key, f"unknown key{hint}; admissible: {', '.join(READERS)}")
        return cls(**raw)

    def cells(self) -> list[Cell]:
        """Every cell, defaults filled in; mantissa widths vary fastest.

        Raises
        ------
        StudyError
            A value that no cell uses, or a schedule that leaves its interval.
        """
        found: dict[bytes, Cell] = {}  # by content: a width may be both given and computed
        used: dict[str, set[Any]] = {}
        for optimizer in self.optimizer:
            digest = program_digest(optimizer, self.own)
            for problem in self.problem:
                for setting in self._settings(optimizer, problem, used):
                    common = {"optimizer": optimizer, "problem": problem, "seeds": self.seeds, "seed": self.seed}
                    for cell in self._formats(common | setting | {"program_digest": digest}):
                        content = msgspec.json.encode(cell, order="deterministic")
                        found.setdefault(content, cell)
        cells = list(found.values())
        self._refuse_unused(used, cells)
        return cells

    def _formats(self, common: Mapping[str, Any]) -> Iterator[Cell]:
        digest = None
        for overrides, rounding, exponent, mantissa in itertools.product(
            self.overrides, self.rounding, self.exponent, self.mantissa
        ):
            own_bits = uses_study_bits(rounding, overrides)
            cell = msgspec.convert(
                {
                    **common,
                    "overrides": overrides,
                    "rounding": rounding,
                    "random_bits": self.random_bits if own_bits else 0,
                    "exponent_bits": schedules.width("exponent", exponent, common["steps"], *EXPONENT),
                    "mantissa_bits": schedules.width("mantissa", mantissa, common["steps"], *MANTISSA),
                },
                Cell,
            )
            digest = problem_digest(cell, self.own) if digest is None else digest
            yield msgspec.structs.replace(cell, problem_digest=digest)

    def _settings(self, optimizer: str, problem: str, used: dict[str, set[Any]]) -> Iterator[dict[str, Any]]:
        """Everything of a cell but its format; ``used`` collects the values of the study that a cell has."""
        from experiments.defaults import setting

        default = setting(optimizer, problem) | self._of_problem(problem)
        trained = problem in networks.PROBLEMS
        step = network_settings.source(optimizer) if trained else step_of(optimizer, self.own)[0]
        declared = {name: _plain(name, value) for name, value in step.hyperparameters.items()}
        declared |= {name: value for name, value in default["hyperparameters"].items() if name in declared}
        named = {name: value for name in INTERVALS if (value := getattr(self, name)) is not None}
        asked = named | self.hyperparameters
        hyperparameters = {name: asked.get(name, (value,)) for name, value in declared.items()}
        options = {name: (value,) for name, value in default.get("asks", {}).items()}
        options |= {name: values for name, values in self.options.items() if name in default["options"]}
        plain = {key: getattr(self, key) or (default[key],) for key in ("noise", "steps", "dimension", "window")}
        for noise, steps, dimension, window in itertools.product(*plain.values()):
            outside = not network_settings.learns(problem, noise) and noise == "minibatch"
            gradient = self.gradient or ("exact" if outside else default["gradient"],)
            # A cell does not carry the constant of a noise that it does not have.
            sigma = (self.sigma or (default["sigma"],)) if noise == "gaussian" else (0.0,)
            batch = (self.batch or (default["batch"],)) if noise == "minibatch" else (0,)
            for value in itertools.product(gradient, sigma, batch, _product(hyperparameters), _product(options)):
                found = dict(zip(("gradient", "sigma", "batch", "hyperparameters", "options"), value, strict=True))
                weights = dimension or network_settings.weights(problem, found["options"])
                found |= {"noise": noise, "steps": steps, "dimension": weights, "window": window}
                for name, number_or_text in found["hyperparameters"].items():
                    key = f"hyperparameters.{name}" if name in self.hyperparameters else name
                    schedules.check(key, number_or_text, steps, INTERVALS.get(name, ANY))
                    used.setdefault(name, set()).add(number_or_text)
                for name, option in found["options"].items():
                    used.setdefault(f"options.{name}", set()).add(option)
                for key in ("noise", "steps", "dimension", "window", "gradient", "sigma", "batch"):
                    used.setdefault(key, set()).add(found[key])
                yield found

    def _of_problem(self, name: str) -> dict[str, Any]:
        """The options of a problem; for one that is not fpsim's own its dimension and gradient too."""
        from experiments.problems import PROBLEMS, options_of
        from experiments.problems.base import Problem

        if name in networks.PROBLEMS:
            return {"options": network_settings.options(name) if self.options else {}}
        source, package = problem_source(name, self.own)
        if not package:
            return {"options": options_of(PROBLEMS[name])} if self.options else {"options": {}}
        if isinstance(source, Problem):
            made, options = source, {}
            if self.dimension not in (None, (made.dimension,)):
                raise StudyError(
                    "dimension", f"{self.dimension[0]} is not that of {name!r}; admissible: {made.dimension}"
                )
        else:
            options = options_of(source)
            made = source() if self.dimension is None else source(dimension=self.dimension[0])
            check_made(name, made, package)
        gradient = "rounded" if made.program is not None and made.program_default else "exact"
        return {"options": options, "dimension": made.dimension, "gradient": gradient}

    def _refuse_unused(self, used: Mapping[str, set[Any]], cells: Sequence[Cell]) -> None:
        """A value that changes nothing is a misunderstanding, not a wish."""
        asked = {key: getattr(self, key) for key in ("noise", "sigma", "batch", "steps", "dimension", "window")}
        asked |= {name: getattr(self, name) for name in INTERVALS} | {"gradient": self.gradient}
        for key, values in asked.items():
            self._refuse(key, values, used.get(key, set()))
        for name, values in self.hyperparameters.items():
            self._refuse(f"hyperparameters.{name}", values, used.get(name, set()))
        for name, values in self.options.items():
            self._refuse(f"options.{name}", values, used.get(f"options.{name}", set()))
        for key, noise in _NOISES.items():
            if any(cell.noise == noise and getattr(cell, key) == 0 for cell in cells):
                raise StudyError(key, f"0 is not enough for {noise} noise; give a value above 0")

    def _refuse(self, key: str, values: Sequence[Any] | None, used: set[Any]) -> None:
        for value in values or ():
            if value not in used:
                who = f"not a constant of {', '.join(self.optimizer)}"
                if key in _NOISES:
                    who = f"no cell has {_NOISES[key]} noise"
                if key.startswith("options."):
                    who = f"not an option of {', '.join(self.problem)}"
                raise StudyError(key, f"{value} is used by no cell ({who})")

    def check(self, cells: Sequence[Cell]) -> None:
        """Make every problem and resolve every slot once, so that what cannot run is refused before any work.

        Raises
        ------
        StudyError
            Names the field, its value and what is admissible.
        ValueError
            A problem refuses its dimension or an option; the message names it.
        """
        seen = set()
        for cell in cells:
            nothing = {"exponent_bits": 8, "mantissa_bits": 7, "rounding": "up", "seeds": 1}
            one = msgspec.structs.replace(cell, **nothing, hyperparameters={})
            content = msgspec.json.encode(one, order="deterministic")
            if content not in seen:
                seen.add(content)
                network_settings.check_cell(cell, self.own)

    def run(self, out: Path | str | None = None, **how: Any) -> pl.DataFrame:
        """Run the study and give its table, a row for each cell; see ``experiments.runs.run_study``.

        Examples
        --------
        >>> study = Study(optimizer="sgd", problem="quadratic", rounding="up", mantissa="4,9", seeds=2, steps=50)
        >>> study.run(engine="serial").select("mantissa_bits", "outcome").rows()
        [(4, 'moving'), (9, 'moving')]
        """
        from experiments.runs import run_study

        return run_study(self, out, **how)


def _plain(name: str, value: Any) -> float | str:
    """A declared value of a step as a cell holds it."""
    if isinstance(value, tuple):
        raise StudyError("optimizer", f"hyperparameter {name} has one value per run; a study gives a grid instead")
    if isinstance(value, ScalarExpression):
        return value.bare(value)
    return float(value) if isinstance(value, (int, float)) else str(value)  # a fraction is a text, "1/3"


def _product(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def load(path: Path) -> dict[str, Any]:
    """The unread values of a TOML study."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError("study", f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError("study", f"{path} is not a TOML file ({error})") from error
