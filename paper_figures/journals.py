"""Widths and font sizes of journals and conferences, from their LaTeX classes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Journal:
    """column, page : widths in inches of a column and of the text;  points : size of the figures' letters."""

    name: str
    column: float
    page: float
    points: float

    def width(self, wide: bool) -> float:
        return self.page if wide else self.column


# One column: a figure that is not wide takes about half of the text, so that two stand side by side.
JOURNALS = {
    journal.name: journal
    for journal in (
        Journal("neurips", 2.7, 5.5, 8.0),
        Journal("iclr", 2.7, 5.5, 8.0),
        Journal("icml", 3.25, 6.75, 8.0),
        Journal("jmlr", 2.95, 6.0, 9.0),
        Journal("siam", 2.5, 5.125, 8.0),
        Journal("thesis", 2.85, 5.8, 9.0),
    )
}
