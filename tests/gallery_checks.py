"""The text that a figure really draws: too small, outside of the page, or one over the other."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

SMALLEST = 5.5  # points
SLACK = 1.0  # pixels


def texts(figure: Figure) -> list[Text]:
    """What is drawn and not empty; ticks outside of an axis, say, are artists that are never drawn."""
    from matplotlib.text import Text

    found: list[Text] = []
    original = Text.draw

    def draw(self: Text, renderer: Any) -> Any:
        if self.get_visible() and self.get_text().strip():
            found.append(self)
        return original(self, renderer)

    figure.canvas.draw()  # constrained layout settles
    with mock.patch.object(Text, "draw", draw):
        figure.canvas.draw()
    return list(dict.fromkeys(found))


def too_small(found: list[Text]) -> list[str]:
    return [text.get_text() for text in found if text.get_fontsize() < SMALLEST]


def clipped(figure: Figure, found: list[Text]) -> list[str]:
    """Texts that leave the page, or the axes that they are clipped to."""
    wrong = []
    for text in found:
        box, page = text.get_window_extent(), figure.bbox
        areas = [page] + ([text.get_clip_box()] if text.get_clip_on() and text.get_clip_box() is not None else [])
        for area in areas:
            if (
                box.x0 < area.x0 - SLACK
                or box.y0 < area.y0 - SLACK
                or box.x1 > area.x1 + SLACK
                or box.y1 > area.y1 + SLACK
            ):
                wrong.append(text.get_text())
                break
    return wrong


def covered(found: list[Text]) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a seam; a box is taller than most of its letters."""
    wrong = []
    boxes = [(text.get_text(), text.get_window_extent()) for text in found]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > 2 * SLACK and high > 0.25 * min(a.height, b.height):
            wrong.append((one, other))
    return wrong
