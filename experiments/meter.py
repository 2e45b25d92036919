"""How much of a study is done and how long the rest takes, from the speeds seen so far.

Cells cost what they cost: an element-step of one optimizer, problem or rounding takes ten times that of another. So
seconds for each element-step are fitted, in logarithms, as a sum of one term for every word in a cell (its optimizer,
its problem, ...) and one for all its words together, drawn towards 0: what was not seen yet is estimated from what it
shares with what was. ``in_order`` lets the first batches show every word once.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np

from experiments.study import Cell

PULL = 0.05  # of a term towards 0: the variance of a measured log speed over that of a term
REFIT_SECONDS = 0.5


class Work(Protocol):
    """A batch, as the engine makes it."""

    @property
    def cells(self) -> Sequence[Cell]: ...

    @property
    def cost(self) -> int: ...


Words = tuple[str, ...]


def words(cell: Cell) -> Words:
    """What the speed of a cell may depend on: its fields that are words."""
    return tuple(value for value in msgspec.structs.astuple(cell) if isinstance(value, str))


def in_order(work: Iterable[Any]) -> list[Any]:
    """The most expensive first, so that workers end together; but before them, one batch for words not seen yet."""
    left = sorted(work, key=lambda batch: -batch.cost)
    chosen: list[int] = []
    seen: set[tuple[int, str]] = set()
    first = {kind: i for i, kind in reversed([(i, words(batch.cells[0])) for i, batch in enumerate(left)])}
    while first:
        best = max(first, key=lambda kind: (len(set(enumerate(kind)) - seen), -first[kind]))
        if set(enumerate(best)) <= seen:
            break
        seen |= set(enumerate(best))
        chosen.append(first[best])
    early = set(chosen)
    return [left[i] for i in chosen] + [batch for i, batch in enumerate(left) if i not in early]


@dataclass
class _Running:
    cost: int
    began: float  # when it was handed over, or, once it reports, of its first report
    first: int = 0  # element-steps of that first report
    done: int = 0


class Meter:
    """Counts cells and element-steps, and estimates the time left. Safe to call from any thread.

    Parameters
    ----------
    workers : int, batches that run at a time
    clock : seconds, for tests
    """

    def __init__(self, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.workers, self.clock = workers, clock
        self.lock = threading.Lock()
        self.began = clock()
        self.waiting: dict[Words, list[int]] = defaultdict(lambda: [0, 0])  # element-steps, batches
        self.running: dict[int, tuple[Words, _Running]] = {}
        self.seen: dict[Words, list[float]] = defaultdict(lambda: [0.0, 0.0])  # element-steps, seconds
        self.largest: dict[Words, int] = defaultdict(int)
        self.cells = self.cells_done = self.failed = 0
        self.fitted: tuple[float, dict[Words, float]] = (-math.inf, {})

    def add(self, work: Iterable[Work], *, count: bool = True) -> None:
        """Work that is to be done. ``count=False``: parts of a batch whose cells were counted."""
        with self.lock:
            for batch in work:
                kind = words(batch.cells[0])
                self.waiting[kind][0] += batch.cost
                self.waiting[kind][1] += 1
                self.largest[kind] = max(self.largest[kind], batch.cost)
                self.cells += len(batch.cells) if count else 0

    def begin(self, number: int, batch: Work) -> None:
        """A batch was handed to a worker; ``number`` names it until ``end``."""
        with self.lock:
            kind = words(batch.cells[0])
            self.waiting[kind][0] -= batch.cost
            self.waiting[kind][1] -= 1
            self.running[number] = (kind, _Running(batch.cost, self.clock()))

    def advance(self, number: int, amount: int) -> None:
        """Element-steps that a running batch has done since it last said so."""
        with self.lock:
            if number in self.running and amount:
                running = self.running[number][1]
                if not running.done:  # what came before, a worker's start and compilation, says nothing about speed
                    running.began, running.first = self.clock(), amount
                running.done = min(running.done + amount, running.cost)

    def end(self, number: int, seconds: float | None, cells: int = 0, failed: int = 0) -> None:
        """A batch came back: after ``seconds`` of work, or ``None`` if it was not done and teaches nothing."""
        with self.lock:
            kind, running = self.running.pop(number)
            if seconds is not None:
                self.seen[kind][0] += running.cost
                self.seen[kind][1] += seconds
            self.cells_done += cells
            self.failed += failed

    def left(self) -> float | None:
        """Seconds that the rest takes; ``None`` while nothing was seen."""
        with self.lock:
            now = self.clock()
            speeds = self._speeds(now)
            if not speeds:
                return None
            seconds = longest = 0.0
            for kind, (cost, count) in self.waiting.items():
                if count > 0:
                    seconds += cost * speeds[kind]
                    longest = max(longest, min(self.largest[kind], cost) * speeds[kind])
            # A cluster is handed more batches than it runs at a time: the later ones still wait.
            in_hand = sorted(self.running.values(), key=lambda pair: pair[1].began)
            for place, (kind, running) in enumerate(in_hand):
                waits = place >= self.workers and not running.done
                rest = running.cost * speeds[kind] if waits else _rest(running, speeds[kind], now)
                seconds += rest
                longest = max(longest, rest)
            return max(seconds / self.workers, longest)

    def state(self) -> dict[str, Any]:
        """For ``fpsim status``."""
        left = self.left()
        elapsed = self.clock() - self.began
        done = {"cells": self.cells, "done": self.cells_done, "failed": self.failed}
        return done | {"seconds": round(elapsed, 1), "seconds_left": None if left is None else round(left, 1)}

    def _speeds(self, now: float) -> dict[Words, float]:
        """Seconds an element-step, of every kind of work there is."""
        when, speeds = self.fitted
        known = speeds.keys() >= self.waiting.keys()
        if now - when < REFIT_SECONDS and known and speeds:
            return speeds
        seen = {kind: tuple(sums) for kind, sums in self.seen.items()}
        for kind, running in self.running.values():
            if running.done > running.first and now > running.began:
                cost, seconds = seen.get(kind, (0.0, 0.0))
                seen[kind] = (cost + running.done - running.first, seconds + now - running.began)
        logs = {kind: math.log(seconds / cost) for kind, (cost, seconds) in seen.items() if seconds > 0 and cost > 0}
        speeds = fit(logs, [*self.waiting, *(kind for kind, _ in self.running.values())]) if logs else {}
        self.fitted = (now, speeds)
        return speeds


def fit(logs: dict[Words, float], wanted: Iterable[Words]) -> dict[Words, float]:
    """Speeds of ``wanted`` kinds of work from the logarithms of those that were measured."""
    mean = sum(logs.values()) / len(logs)
    terms: dict[Any, int] = {}
    for kind in logs:
        for term in _terms(kind):
            terms.setdefault(term, len(terms))
    design = np.zeros((len(logs), len(terms)))
    for i, kind in enumerate(logs):
        design[i, [terms[term] for term in _terms(kind)]] = 1.0
    target = np.array(list(logs.values())) - mean
    found = np.linalg.solve(design.T @ design + PULL * np.eye(len(terms)), design.T @ target)
    return {
        kind: math.exp(mean + sum(float(found[terms[term]]) for term in _terms(kind) if term in terms))
        for kind in wanted
    }


def _terms(kind: Words) -> list[Any]:
    return [*enumerate(kind), kind]


def _rest(running: _Running, speed: float, now: float) -> float:
    """Seconds that a running batch still needs: at its own speed where it tells, at that of its kind before."""
    if running.done > running.first:
        return (now - running.began) / (running.done - running.first) * (running.cost - running.done)
    return max(running.cost * speed - (now - running.began), 0.0)
