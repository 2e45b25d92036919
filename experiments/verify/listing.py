"""The theorems as a list: identifier, class, title, what is bounded for which optimizers, and where it comes from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from theory.theorem import Theorem

CLASSES = {
    "law": "the measured value lies on both sides",
    "exact": "attained",
    "sharp": "attained up to a small factor",
    "upper": "an upper bound",
}
_INDENT = " " * 11


def listed(theorems: Sequence[Theorem], width: int) -> Iterator[str]:
    """Title, and below it what is bounded, each in lines of at most ``width`` columns; then the classes."""
    for x in theorems:
        head = f"{x.identifier:<4} {x.tightness:<5} "
        yield from textwrap.wrap(x.title, width, initial_indent=head, subsequent_indent=_INDENT)
        told = f"bounds: {x.quantity}; of: {', '.join(x.optimizers)}; {x.source}"
        yield from textwrap.wrap(told, width, initial_indent=_INDENT, subsequent_indent=f"{_INDENT}  ")
    yield ""
    told = "; ".join(f"{name}: {meaning}" for name, meaning in CLASSES.items())
    yield from textwrap.wrap(told, width)
