"""Live progress on a terminal, an occasional line elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_EVERY_SECONDS = 10.0
BAR_EVERY_SECONDS = 0.2


class Progress:
    """Cells done and the time left. Safe to advance from any thread.

    Parameters
    ----------
    cells, cost : how many there are, and element-steps in all
    label : what stands before every line;  unit : what the cells are called
    left : the seconds that the rest takes, where somebody knows better than the mean speed so far
    """

    def __init__(
        self,
        cells: int,
        cost: int,
        label: str = "fpsim scan",
        unit: str = "cells",
        left: Callable[[], float | None] | None = None,
    ) -> None:
        self.cells, self.cost, self.label, self.unit = cells, max(cost, 1), label, unit
        self.left = left or self._at_mean_speed
        self.cells_done = self.done = 0
        self.share = 0.0
        self.started = self.printed = time.monotonic()
        self.lock = threading.Lock()
        self.live = self._bar() if sys.stderr.isatty() else None

    def _bar(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar  # rich is imported only where there is a terminal

        columns = (TextColumn(self.label), BarColumn(bar_width=30), TextColumn("{task.fields[state]}"))
        bar = Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
        self.task = bar.add_task("", total=1.0, state=self.state())
        return bar

    def state(self) -> str:
        """Such as ``12/414 cells, 3 %, 1:05 elapsed, about 12:10 left``."""
        elapsed = time.monotonic() - self.started
        left = self.left()
        if left is None:
            return f"{self.cells_done}/{self.cells} {self.unit}, {clock(elapsed)} elapsed"
        self.share = elapsed / max(elapsed + left, 1e-9)
        return (
            f"{self.cells_done}/{self.cells} {self.unit}, {100 * self.share:.0f} %, {clock(elapsed)} elapsed, "
            f"about {clock(left)} left"
        )

    def _at_mean_speed(self) -> float | None:
        share = min(self.done / self.cost, 1.0)
        return (time.monotonic() - self.started) * (1 / share - 1) if share > 0.005 else None

    def advance(self, amount: int = 0, cells: int = 0) -> None:
        with self.lock:
            self.done += amount
            self.cells_done += cells
            now = time.monotonic()
            if self.live is not None:
                if now - self.printed < BAR_EVERY_SECONDS:
                    return
                self.printed = now
                state = self.state()
                self.live.update(self.task, completed=self.share, state=state)
            elif now - self.printed >= LINE_EVERY_SECONDS:
                self.printed = now
                print(f"{self.label}: {self.state()}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line of its own beside the bar."""
        if self.live is not None:
            self.live.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()


def clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
