"""What a question is: studies, the table made of them, and the finding, whose every number comes from the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Rows: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Question:
    """A question of the literature and how it is answered.

    Attributes
    ----------
    name : of the file
    question : in one sentence
    run : quick -> rows of the table; ``quick`` runs fewer points of the same study, for tests
    finding : rows -> a paragraph with the numbers of the rows
    claims : rows -> (what the paragraph says, whether the rows bear it out)
    """

    name: str
    question: str
    run: Callable[[bool], list[dict[str, Any]]]
    finding: Callable[[Rows], str]
    claims: Callable[[Rows], list[tuple[str, bool]]]


def where(rows: Rows, **wanted: Any) -> list[Mapping[str, Any]]:
    """The rows whose columns have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]
