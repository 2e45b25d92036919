"""What is to be run: a ``Study`` (a grid) and its ``Cell``s (one point of the grid, all its seeds).

A study is read from a TOML file whose keys are the flags of ``fpsim scan``::

    optimizer = ["sgd", "adam"]
    mantissa = "1..10,23"
    lr = 0.05

What is not said keeps its default; ``lr``, ``steps``, ``noise`` and the like have one default for each optimizer and
problem (``experiments.defaults``).
"""

from __future__ import annotations

import functools
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from experiments.fields import StudyError, choice, did_you_mean, integer, names, optional, real, widths

MAX_SEED = 2**63 - 1  # what an Int64 column holds


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One point of the grid: what a row of the result is about. Every seed of the cell is one lane of the machine."""

    optimizer: str
    problem: str
    noise: str
    sigma: float
    batch: int
    rounding: str
    random_bits: int = 16
    exponent_bits: int
    mantissa_bits: int
    dimension: int
    seeds: int
    seed: int
    steps: int
    lr: float
    beta1: float
    beta2: float
    eps: float
    window: float

    @property
    def key(self) -> str:
        """Name of the cell's result: 32 hex digits of the configuration and the code that runs it."""
        config = msgspec.json.encode(self, order="deterministic")
        return hashlib.blake2b(config + code_version().encode(), digest_size=16).hexdigest()

    @property
    def cost(self) -> int:
        """Element-steps: the unit in which progress is counted."""
        return self.seeds * self.dimension * self.steps


def optimizers() -> list[str]:
    from fpsim.optim import STEPS

    return list(STEPS)


def problems() -> list[str]:
    from experiments.problems import PROBLEMS

    return list(PROBLEMS)


def roundings() -> list[str]:
    from fpsim.rounding import CODES

    return [*CODES, "stochastic"]


READERS = {
    "optimizer": names(optimizers),
    "problem": names(problems),
    "mantissa": widths(1, 52),
    "exponent": widths(2, 11),
    "rounding": names(roundings),
    "random_bits": integer(1, 32),
    "seeds": integer(1, 65536),
    "seed": integer(0, MAX_SEED),
    "steps": optional(integer(1, 10**9)),
    "lr": optional(real("(0, inf)")),
    "beta1": optional(real("[0, 1)")),
    "beta2": optional(real("[0, 1)")),
    "eps": optional(real("[0, inf)")),
    "noise": optional(choice("none", "gaussian", "minibatch")),
    "sigma": optional(real("[0, 1e100]")),
    "batch": optional(integer(1, 10**6)),
    "dimension": optional(integer(1, 10**6)),
    "window": optional(real("(0, 1]")),
}


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grid of cells: every optimizer x problem x rounding x exponent width x mantissa width.

    Parameters
    ----------
    optimizer, problem, rounding : names, as a tuple or comma-separated
    mantissa, exponent : widths in 1..52 and 2..11, as a tuple or ``"1..4,8"``
    random_bits : int in 1..32, random bits of one stochastic rounding
    seeds : int in 1..65536, runs of each cell; a seed sets start point, noise and random bits
    seed : int in 0..2^63-1, the root of all random bits
    steps, lr, beta1, beta2, eps, noise, sigma, batch, dimension, window : optional
        ``None`` keeps the default of each optimizer and problem.

    Raises
    ------
    StudyError
        Names the field, its value and the admissible interval.

    Examples
    --------
    >>> Study(mantissa="1..4,8").mantissa
    (1, 2, 3, 4, 8)
    """

    optimizer: tuple[str, ...] = ("sgd", "rmsprop", "adam")
    problem: tuple[str, ...] = ("quadratic", "rational", "logistic")
    mantissa: tuple[int, ...] = tuple(range(1, 24))
    exponent: tuple[int, ...] = (8,)
    rounding: tuple[str, ...] = ("nearest_even", "stochastic")
    random_bits: int = 16
    seeds: int = 8
    seed: int = 0
    steps: int | None = None
    lr: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    noise: str | None = None
    sigma: float | None = None
    batch: int | None = None
    dimension: int | None = None
    window: float | None = None

    def __post_init__(self) -> None:
        for key, read in READERS.items():
            msgspec.structs.force_setattr(self, key, read(key, getattr(self, key)))

    @classmethod
    def build(cls, raw: Mapping[str, Any]) -> Study:
        """A study from keys and unread values (TOML values, texts of flags)."""
        for key in raw:
            if key not in READERS:
                hint = did_you_mean(key, READERS)
                raise StudyError(key, f"unknown key{hint}; admissible: {', '.join(READERS)}")
        return cls(**raw)

    def cells(self) -> list[Cell]:
        """Every cell, defaults filled in; mantissa widths vary fastest."""
        from experiments.defaults import setting

        given = {key: value for key in _SETTINGS if (value := getattr(self, key)) is not None}
        cells = []
        for optimizer in self.optimizer:
            for problem in self.problem:
                used = {key: value for key, value in setting(optimizer, problem).items() if value is not None}
                # A hyperparameter that the optimizer does not have is absent from its setting, and 0 in the cell.
                common = dict.fromkeys(_SETTINGS, 0) | used | {k: v for k, v in given.items() if k in used}
                # Nor does a cell carry the constant of a noise that it does not have.
                common |= {key: 0 for key, noise in _NOISES.items() if common["noise"] != noise}
                common |= {"optimizer": optimizer, "problem": problem, "seeds": self.seeds, "seed": self.seed}
                for rounding in self.rounding:
                    common |= {"rounding": rounding, "random_bits": self.random_bits if rounding == "stochastic" else 0}
                    for exponent in self.exponent:
                        for mantissa in self.mantissa:
                            widths = {"exponent_bits": exponent, "mantissa_bits": mantissa}
                            cells.append(msgspec.convert(common | widths, Cell))
        self._refuse_unused(given, cells)
        return cells

    def _refuse_unused(self, given: dict[str, Any], cells: list[Cell]) -> None:
        """A value that changes nothing is a misunderstanding, not a wish."""
        for key, value in given.items():
            if all(getattr(cell, key) != value for cell in cells):
                who = (
                    f"no cell has {_NOISES[key]} noise"
                    if key in _NOISES
                    else f"not a constant of {', '.join(self.optimizer)}"
                )
                raise StudyError(key, f"{value} is used by no cell ({who})")
        for key, noise in _NOISES.items():
            if any(cell.noise == noise and getattr(cell, key) == 0 for cell in cells):
                raise StudyError(key, f"0 is not enough for {noise} noise; give a value above 0")


_NOISES = {"sigma": "gaussian", "batch": "minibatch"}
_SETTINGS = ("noise", "sigma", "batch", "dimension", "steps", "lr", "beta1", "beta2", "eps", "window")


def load(path: Path) -> dict[str, Any]:
    """The unread values of a TOML study."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError("study", f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError("study", f"{path} is not a TOML file ({error})") from error


@functools.cache
def code_version() -> str:
    """Version of the code that makes results: the package's, and a digest of every source file behind a row.

    With it in a cell's key, a changed theorem or kernel never resumes from results that the old one made.
    """
    root = Path(__file__).parent.parent
    return f"{package_version()}+{_digest(root, _sources(root))}"


def package_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fpsim")
    except PackageNotFoundError:
        return "0+uninstalled"


def _sources(root: Path) -> Iterable[Path]:
    for room in ("fpsim", "theory", "experiments"):
        yield from (p for p in sorted((root / room).rglob("*.py")) if "cli" not in p.relative_to(root).parts)


def _digest(root: Path, files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
