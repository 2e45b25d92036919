"""Drawings of matplotlib inside a page: without addresses, with names of their own, a title and a description."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from paper_figures.report.html import Html, text

# A point is 4/3 CSS pixels; screens are read from further away than paper.
MAGNIFIED = 4 / 3 * 1.25
_DROPPED = {"metadata", "style", "title", "desc"}
_LOCAL = re.compile(r"url\(#([^)]+)\)")


def inline(file: Path, name: str, title: str, description: str) -> Html:
    """The SVG element of a file, for a page.

    Parameters
    ----------
    name : prefix of every id, so that two drawings of a page do not share any

    Raises
    ------
    ValueError
        A reference leaves the drawing.
    """
    root = ET.fromstring(file.read_bytes())
    width, height = (float(root.attrib[side].removesuffix("pt")) for side in ("width", "height"))
    box = root.attrib["viewBox"]
    inner = "".join(_written(child, name) for child in root if _local(child.tag) not in _DROPPED)
    labels = f'<title id="{name}-title">{text(title)}</title><desc id="{name}-desc">{text(description)}</desc>'
    head = (
        f'<svg class="plot" role="img" aria-labelledby="{name}-title {name}-desc" viewBox="{text(box)}" '
        f'width="{MAGNIFIED * width:.0f}" height="{MAGNIFIED * height:.0f}">'
    )
    return Html(f"{head}{labels}{inner}</svg>")


def _written(node: ET.Element, name: str) -> str:
    tag = _local(node.tag)
    if tag in _DROPPED:
        return ""
    told = "".join(f' {_local(key)}="{text(_renamed(_local(key), x, name))}"' for key, x in node.attrib.items())
    inner = text((node.text or "").strip()) + "".join(_written(child, name) for child in node)
    return f"<{tag}{told}>{inner}</{tag}>" + ("\n" if tag == "g" else "")


def _renamed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        if not value.startswith("#"):
            raise ValueError(f"{value!r} is not in the drawing")
        return f"#{name}-{value[1:]}"
    return _LOCAL.sub(rf"url(#{name}-\1)", value)


def _local(tag: str) -> str:
    """A name without its namespace."""
    return tag.rpartition("}")[2]
