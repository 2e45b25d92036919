"""What a figure of the gallery is: data, drawing, caption and the claim that the data support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from paper_figures.journals import Journal

Data: TypeAlias = Mapping[str, Any]
# called with the share done, 0..1
Report: TypeAlias = Callable[[float], None]

PROFILES = ("quick", "full")


@dataclass(frozen=True)
class PaperFigure:
    """One figure.

    Attributes
    ----------
    name : of its file, of what is written, and on the command line
    title : what it shows, in a few words
    wide : whether it takes the width of the text rather than of a column
    parameters : profile -> what ``compute`` gets; a change of it makes stored results stale
    compute : (parameters, folder for studies, report) -> data that JSON can hold
    draw : (data, journal) -> figure of the journal's width
    caption : data -> the message, with numbers from the data; TeX for mathematics, no other markup
    claims : data -> (what the caption says, whether the data bear it out)
    full_cost : what the full profile takes, as it was measured, or where its figure comes from
    """

    name: str
    title: str
    wide: bool
    parameters: Mapping[str, Mapping[str, Any]]
    compute: Callable[[Mapping[str, Any], Path, Report], dict[str, Any]]
    draw: Callable[[Data, Journal], Figure]
    caption: Callable[[Data], str]
    claims: Callable[[Data], Sequence[tuple[str, bool]]]
    full_cost: str


class Source(Protocol):
    """What figures and tables share: data, and claims that they bear out."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def compute(self) -> Callable[[Mapping[str, Any], Path, Report], dict[str, Any]]: ...
    @property
    def claims(self) -> Callable[[Data], Sequence[tuple[str, bool]]]: ...


class ClaimError(AssertionError):
    """Data that do not bear out what a caption says."""


def check(figure: Source, data: Data) -> None:
    """Raise ``ClaimError`` naming what the data do not bear out."""
    wrong = [text for text, true in figure.claims(data) if not true]
    if wrong:
        raise ClaimError(f"{figure.name}: not borne out: {'; '.join(wrong)}")
