"""HTML as text that is escaped unless it was made here: elements, and tables whose columns a reader can sort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias


class Html(str):
    """Text that is markup already."""


Content: TypeAlias = "str | Html"


@dataclass(frozen=True)
class Number:
    """A number as it is printed, and the value it is sorted by."""

    text: str
    value: float | None


Cell: TypeAlias = "str | Html | Number"


def text(content: Content) -> Html:
    """Markup as it is, any other text escaped, quotation marks too.

    Examples
    --------
    >>> text('<script> & "so"')
    '&lt;script&gt; &amp; &quot;so&quot;'
    """
    return content if isinstance(content, Html) else Html(escape(content))


def element(name: str, *children: Content, **attributes: str) -> Html:
    """An element. Attributes lose a trailing underscore, others become hyphens: ``class_``, ``aria_label``.

    Examples
    --------
    >>> element("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{told}>{''.join(map(text, children))}</{name}>")


def joined(parts: Sequence[Content], between: str = "\n") -> Html:
    return Html(between.join(map(text, parts)))


def table(identifier: str, caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Html:
    """A table with a caption and column headers; the script of the page makes the headers buttons that sort.

    Columns of numbers are those in which every cell that is not empty is a ``Number``.
    """
    numeric = [any(isinstance(x, Number) for x in column) for column in zip(*rows, strict=True)] or [False] * len(head)
    titles = [
        element("th", title, scope="col", **({"class_": "number"} if right else {}))
        for title, right in zip(head, numeric, strict=True)
    ]
    body = [element("tr", *map(_cell, row)) for row in rows]
    parts = (
        element("caption", caption),
        element("thead", element("tr", *titles)),
        element("tbody", joined(["", *body, ""])),
    )
    inner = element("table", joined(parts), class_="sortable", id=identifier)
    return element("div", inner, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _cell(content: Cell) -> Html:
    if not isinstance(content, Number):
        return element("td", content)
    value = content.value
    key = "" if value is None or math.isnan(value) else repr(float(value))
    return element("td", content.text, class_="number", data_key=key)
