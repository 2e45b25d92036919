"""How much of a study is done and how long the rest takes, from the speeds seen so far.

Cells cost what they cost: an element-step of one optimizer, problem or rounding takes ten times that of another. So
seconds for each element-step are fitted, in logarithms, as a sum of one term for every word in a cell (its optimizer,
its problem, ...) and one for all its words together, drawn towards 0: what was not seen yet is estimated from what it
shares with what was. The engine begins with cells that show every word (``telling``).
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import msgspec
import numpy as np

from experiments.study import Cell

# How strongly terms are drawn towards 0: the variance of a measured logarithm over that of a term. What a word does
# alone is trusted to be larger than what it does only together with others.
PULL, PULL_TOGETHER = 0.02, 0.2
# A batch of so many lanes takes twice as long for each element-step as one of very many: more, where gradients are
# computed outside the machine, and less where all is done in long strips.
NARROW = 64
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


def effort(batch: Work) -> float:
    """Element-steps of very wide batches that take as long."""
    return batch.cost * (1 + NARROW / sum(cell.seeds for cell in batch.cells))


def telling(cells: Sequence[Cell]) -> list[Cell]:
    """A few cells that have, together, every word that any cell has: the speeds of all others follow from theirs."""
    kinds: dict[Words, Cell] = {}
    for cell in cells:
        kinds.setdefault(words(cell), cell)
    chosen: list[Cell] = []
    seen: set[tuple[int, str]] = set()
    while kinds:
        best = max(kinds, key=lambda kind: len(set(enumerate(kind)) - seen))  # the first, of equals
        if set(enumerate(best)) <= seen:
            break
        seen |= set(enumerate(best))
        chosen.append(kinds.pop(best))
    return chosen


@dataclass
class _Running:
    cost: int
    effort: float
    began: float  # when it was handed over, or, once it reports, when it first did
    first: int = 0  # element-steps of that first report
    done: int = 0
    last: float = 0.0  # when it last reported

    @property
    def speed(self) -> float | None:
        """Seconds an element-step between its first report and its last."""
        steps, seconds = self.done - self.first, self.last - self.began
        return seconds / steps if steps > 0 and seconds > 0 else None

    def rest(self, speed: float, now: float) -> float:
        """Seconds that it still needs: at its own speed if it shows one, at that of its kind before."""
        if self.speed is not None:
            return max((self.cost - self.done) * self.speed - (now - self.last), 0.0)
        elapsed = now - self.began
        return max(self.effort * speed - elapsed, elapsed / 4)  # one that should have ended is not over for that


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
        self.waiting: dict[Words, list[float]] = defaultdict(lambda: [0.0, 0])  # effort, batches
        self.running: dict[int, tuple[Words, _Running]] = {}
        self.seen: dict[Words, list[float]] = defaultdict(lambda: [0.0, 0.0])  # effort, seconds
        self.largest: dict[Words, float] = defaultdict(float)  # effort
        self.cells = self.cells_done = self.failed = 0
        self.fitted: tuple[float, dict[Words, float]] = (-math.inf, {})

    def add(self, work: Iterable[Work], *, count: bool = True) -> None:
        """Work that is to be done. ``count=False``: parts of a batch whose cells were counted."""
        with self.lock:
            for batch in work:
                kind = words(batch.cells[0])
                self.waiting[kind][0] += effort(batch)
                self.waiting[kind][1] += 1
                self.largest[kind] = max(self.largest[kind], effort(batch))
                self.cells += len(batch.cells) if count else 0

    def begin(self, number: int, batch: Work) -> None:
        """A batch was handed to a worker; ``number`` names it until ``end``."""
        with self.lock:
            kind = words(batch.cells[0])
            self.waiting[kind][0] -= effort(batch)
            self.waiting[kind][1] -= 1
            self.running[number] = (kind, _Running(batch.cost, effort(batch), self.clock()))

    def advance(self, number: int, amount: int) -> None:
        """Element-steps that a running batch has done since it last said so."""
        with self.lock:
            if number in self.running and amount:
                running = self.running[number][1]
                if not running.done:  # what came before, a worker's start and compilation, says nothing about speed
                    running.began, running.first = self.clock(), amount
                running.done = min(running.done + amount, running.cost)
                running.last = self.clock()

    def end(self, number: int, seconds: float | None, cells: int = 0, failed: int = 0) -> None:
        """A batch came back: after ``seconds`` of work, or ``None`` if it was not done and teaches nothing."""
        with self.lock:
            kind, running = self.running.pop(number)
            if seconds is not None:
                self.seen[kind][0] += running.effort
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
                rest = running.effort * speeds[kind] if waits else running.rest(speeds[kind], now)
                seconds += rest
                longest = max(longest, rest)
            return max(seconds / self.workers, longest)

    def order(self, queue: Iterable[Any]) -> list[Any] | None:
        """Batches that wait, those first that take longest; ``None`` while words are among them that were not seen.

        Two words that were not seen together may surprise, so such a batch counts twice: better early than late.
        """
        batches = [(words(batch.cells[0]), batch) for batch in queue]
        with self.lock:
            speeds = self._speeds(self.clock())
            known = {pair for kind in self.seen for pair in enumerate(kind)}
            if not all(known.issuperset(enumerate(kind)) for kind in {kind for kind, _ in batches}):
                return None
            begun = [*self.seen, *(kind for kind, _ in self.running.values())]
        together = {pair for kind in begun for pair in combinations(enumerate(kind), 2)}
        weights = {
            kind: speeds[kind] * (1 if together.issuperset(combinations(enumerate(kind), 2)) else 2)
            for kind in {kind for kind, _ in batches}
        }
        return [batch for _, batch in sorted(batches, key=lambda pair: -weights[pair[0]] * effort(pair[1]))]

    def state(self) -> dict[str, Any]:
        """For ``fpsim status``."""
        left = self.left()
        elapsed = self.clock() - self.began
        done = {"cells": self.cells, "done": self.cells_done, "failed": self.failed}
        return done | {"seconds": round(elapsed, 1), "seconds_left": None if left is None else round(left, 1)}

    def _speeds(self, now: float) -> dict[Words, float]:
        """Seconds for one of effort, of every kind of work there is."""
        when, speeds = self.fitted
        known = speeds.keys() >= self.waiting.keys()
        if now - when < REFIT_SECONDS and known and speeds:
            return speeds
        seen = {kind: tuple(sums) for kind, sums in self.seen.items()}
        for kind, running in self.running.values():
            if running.speed is not None:
                cost, seconds = seen.get(kind, (0.0, 0.0))
                part = (running.done - running.first) / running.cost
                seen[kind] = (cost + part * running.effort, seconds + running.last - running.began)
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
    pull = np.diag([PULL_TOGETHER if term in logs else PULL for term in terms])
    found = np.linalg.solve(design.T @ design + pull, design.T @ target)
    return {
        kind: math.exp(mean + sum(float(found[terms[term]]) for term in _terms(kind) if term in terms))
        for kind in wanted
    }


def _terms(kind: Words) -> list[Any]:
    return [*enumerate(kind), kind]
