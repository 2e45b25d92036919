"""What advice is made of: a finding with its theorem and its simulation, and changes that would remove it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from experiments.advise.setting import Setting
from theory.window import Window

Level: TypeAlias = Literal["problem", "note", "fine", "unknown"]


@dataclass(frozen=True)
class Checked:
    """What a simulation showed of a prediction: whether they agree, and the measured side in words.

    ``ok`` is None where the run was not what the prediction is about.
    """

    ok: bool | None
    measured: str


@dataclass(frozen=True)
class Fix:
    """A change that removes a problem.

    Attributes
    ----------
    text : what to do
    cost : further bytes for each weight
    flags : what to add to the command line of ``fpsim advise``; empty where it is no flag
    effect : what then holds, with its theorem
    """

    text: str
    cost: int
    flags: str
    effect: str


@dataclass(frozen=True)
class Finding:
    """A prediction.

    Attributes
    ----------
    topic : ``"second moment"``, ``"weights"``, ..
    level : ``problem``, ``note`` (worth knowing), ``fine``, ``unknown`` (no theorem applies, and the text says why)
    text : sentences, each with its theorem in brackets
    theorems : their identifiers
    numbers : what was predicted, by name
    study : keys of the study that shows it; None where there is nothing to simulate
    check : holds the prediction against the window of that study
    fixes : the cheapest first
    """

    topic: str
    level: Level
    text: str
    theorems: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    study: Mapping[str, Any] | None = None
    check: Callable[[Window], Checked] | None = None
    fixes: tuple[Fix, ...] = ()


# text, further bytes a weight, flags, changes of the setting
Candidate: TypeAlias = tuple[str, int, str, Mapping[str, Any]]


def cheapest(
    setting: Setting,
    candidates: Sequence[Candidate],
    effect: Callable[[Setting], str | None],
    most: int = 3,
) -> tuple[Fix, ...]:
    """The candidates after which ``effect`` says what then holds (None: the problem is still there), cheapest first."""
    fixes: list[Fix] = []
    for text, cost, flags, changes in sorted(candidates, key=lambda x: x[1]):
        said = effect(setting.changed(**changes)) if len(fixes) < most else None
        if said is not None:
            fixes.append(Fix(text, cost, flags, said))
    return tuple(fixes)


def number(x: float) -> str:
    """Three digits, as a person would write them: 0.000122, 1.5e-08, 12."""
    return f"{x:.3g}"


def exactly(value: float) -> str:
    """The shortest text of a number as it was declared.

    Examples
    --------
    >>> exactly(0.99999999), exactly(1e-8), exactly(1.0)
    ('0.99999999', '1e-08', '1')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
