"""One point of a study's grid, and the name of its result."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from experiments import networks


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One point of the grid: what a row of the result is about. Every seed of the cell is one lane of the machine.

    Attributes
    ----------
    optimizer, problem : names
    options : of the problem, where they are not its defaults
    gradient : ``"rounded"``: computed in the machine, every operation rounded; ``"exact"``: in binary64, then stored
    rounding, random_bits, exponent_bits, mantissa_bits : of every slot that no override names
    overrides : (pattern of slots, name of a format or "", rounding or ""); "" keeps the cell's own
    hyperparameters : numbers, or texts of schedules in the step ``t`` and the number of steps ``T``
    program_digest, problem_digest : of what is not fpsim's own: a hash of its content; of a network PyTorch's version
        and a hash of its data
    """

    optimizer: str
    problem: str
    options: dict[str, float | int | str | bool] = {}
    noise: str
    sigma: float
    batch: int
    gradient: str = "exact"
    rounding: str
    random_bits: int = 16
    exponent_bits: int
    mantissa_bits: int
    overrides: tuple[tuple[str, str, str], ...] = ()
    hyperparameters: dict[str, float | str] = {}
    dimension: int
    seeds: int
    seed: int
    steps: int
    window: float
    program_digest: str = ""
    problem_digest: str = ""

    @property
    def key(self) -> str:
        """Name of the cell's result: 32 hex digits of the configuration and the code that runs it."""
        return self.key_under(code_version())

    def key_under(self, code: str) -> str:
        """The key that another version of the code gives the cell."""
        config = msgspec.json.encode(self, order="deterministic")
        return hashlib.blake2b(config + code.encode(), digest_size=16).hexdigest()

    @property
    def cost(self) -> int:
        """Element-steps: the unit in which progress is counted."""
        return self.seeds * self.dimension * self.steps

    def __hash__(self) -> int:
        return hash(self.key)

    def columns(self) -> dict[str, Any]:
        """The cell as columns of a table, those of ``CELL_COLUMNS``: mappings and lists are JSON texts."""
        plain = msgspec.structs.asdict(self)
        for name in _NESTED:
            plain[name] = msgspec.json.encode(plain[name], order="deterministic").decode()
        shown = {name: self.hyperparameters.get(name) for name in COMMON_HYPERPARAMETERS}
        return plain | {name: value if isinstance(value, float) else None for name, value in shown.items()}


# Have a column of their own too, null where the optimizer lacks them or they follow a schedule.
COMMON_HYPERPARAMETERS = ("lr", "beta1", "beta2", "eps")
_NESTED = ("options", "overrides", "hyperparameters")

# name -> str, int or float
CELL_COLUMNS: dict[str, type] = {
    **{field.name: str if field.name in _NESTED else field.type for field in msgspec.structs.fields(Cell)},
    **dict.fromkeys(COMMON_HYPERPARAMETERS, float),
}


def kin(cell: Cell) -> bytes:
    """What the cells of one batch share: everything but the widths, formats of overrides and hyperparameters' values.

    Rounding modes stay: they are compiled in. The cells of networks share nothing: each is kept when it is finished.
    """
    if cell.problem in networks.PROBLEMS:
        return msgspec.json.encode(cell, order="deterministic")
    modes = tuple((slot, "", rounding) for slot, _, rounding in cell.overrides if rounding)
    names = dict.fromkeys(sorted(cell.hyperparameters), 0.0)
    shared = msgspec.structs.replace(cell, exponent_bits=0, mantissa_bits=0, overrides=modes, hyperparameters=names)
    return msgspec.json.encode(shared, order="deterministic")


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
