"""BibTeX for the formats, rounding modes, optimizers and theorems of a study."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paper_figures.bibliography import sources
from paper_figures.bibliography.entries import ENTRIES, Entry

_LATEX = re.compile(r"([#$%&_{}])")


@dataclass(frozen=True)
class Used:
    """What a study used: names, as they stand in cells and rows.

    Attributes
    ----------
    versions : of the code that made the results; empty where there are none
    """

    formats: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    theorems: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


def used_by(cells: Iterable[Any], theorems: Iterable[str | None] = (), versions: Iterable[str] = ()) -> Used:
    """What cells (``experiments.cell.Cell``) used, each name once, in the order met."""
    formats: dict[str, None] = {}
    modes: dict[str, None] = {}
    optimizers: dict[str, None] = {}
    for cell in cells:
        optimizers[cell.optimizer] = None
        formats[f"e{cell.exponent_bits}m{cell.mantissa_bits}"] = None
        modes[cell.rounding] = None
        for _, name, mode in cell.overrides:
            formats |= {name: None} if name else {}
            modes |= {mode: None} if mode else {}
    told = dict.fromkeys(x for x in theorems if x)
    return Used(tuple(formats), tuple(modes), tuple(optimizers), tuple(told), tuple(dict.fromkeys(versions)))


def reasons(used: Used) -> tuple[dict[str, list[str]], list[str]]:
    """Key of an entry -> what it is cited for, fpsim first; and what has nothing to cite.

    Raises
    ------
    ValueError
        A format or mode that fpsim does not know.
    """
    found: dict[str, list[str]] = {sources.FPSIM: ["the simulation"]}
    without: list[str] = []
    groups = (
        ("format", used.formats, sources.of_format),
        ("rounding", used.modes, sources.of_mode),
        ("optimizer", used.optimizers, lambda name: sources.OPTIMIZERS.get(name, sources.NONE)),
        ("theorem", used.theorems, lambda name: sources.THEOREMS.get(name, sources.NONE)),
    )
    for kind, names, keys_of in groups:
        for name in names:
            keys = keys_of(name)
            for key in keys:
                found.setdefault(key, []).append(f"{kind} {name}")
            if not keys:
                without.append(f"{kind} {name}")
    return found, without


def bibtex(used: Used) -> str:
    """The entries, each below a comment that says what it is cited for; the same bytes for the same names."""
    found, without = reasons(used)
    blocks = [f"% {'; '.join(_grouped(why))}\n{_printed(key, _entry(key, used))}" for key, why in found.items()]
    if without:
        blocks.append(f"% without an entry (your own, or defined in no publication): {'; '.join(_grouped(without))}")
    return "\n\n".join(blocks) + "\n"


def _grouped(why: Iterable[str]) -> Iterator[str]:
    """Such as ``format e8m1, e8m2; rounding up``."""
    kinds: dict[str, list[str]] = {}
    for text in why:
        kind, _, name = text.partition(" ")
        kinds.setdefault(kind, []).append(name)
    return (f"{kind} {', '.join(names)}" for kind, names in kinds.items())


def _entry(key: str, used: Used) -> Entry:
    return _fpsim(used) if key == sources.FPSIM else ENTRIES[key]


def _fpsim(used: Used) -> Entry:
    from experiments.cell import package_version

    version = _LATEX.sub(r"\\\1", ", ".join(used.versions) or package_version())
    fields = {
        "author": "{The fpsim developers}",
        "title": "{fpsim}: what low-precision arithmetic does to an optimizer",
        "howpublished": "Software",
        "note": f"version {version}",
    }
    return Entry("misc", fields)


def _printed(key: str, entry: Entry) -> str:
    fields: Mapping[str, str] = entry.fields
    width = max(map(len, fields))
    lines = [f"  {name:<{width}} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{entry.kind}{{{key},", *lines, "}"])
