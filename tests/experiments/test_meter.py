"""The time left is known within a factor of two once a tenth of the work is done, whatever it is that takes long."""

import heapq
import math
import random

import pytest

from experiments import engine
from experiments.meter import NARROW, Meter, effort, fit
from experiments.study import Study

# What an element-step takes, relative to the others, for words in a cell.
SPEEDS = {
    "all alike": {},
    "as measured for 0.1.0": {"logistic": 4.0, "adam": 1.1, "stochastic": 1.2, "sgd": 1.3},
    "a slow problem": {"logistic": 8.0},
    "a quick problem": {"quadratic": 0.1},
    "slow optimizers": {"adam": 6.0, "rmsprop": 4.0},
    "slow rounding": {"stochastic": 5.0, "rational": 2.0},
    "everything": {"logistic": 3.0, "rational": 0.5, "adam": 0.5, "sgd": 2.0, "stochastic": 2.0},
}
REPORTS = 20


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def simulate(study, speeds, workers, *, reports=True, start=0.0, narrow=NARROW):
    """[(seconds, seconds left)] of a study whose batches take what ``speeds`` says, within a factor 1.3.

    narrow : a batch of so many lanes takes twice as long for each element-step as one of very many
    """
    clock, luck = Clock(), random.Random(1)
    meter = Meter(workers, clock)
    queue = engine.batches(study.cells(), workers)
    meter.add(queue)
    log, events = [], [(0.0, -1 - worker, 0) for worker in range(workers)]  # (when, batch, element-steps)
    count, begun = 0, {}
    while events:
        clock.now, number, amount = heapq.heappop(events)
        if amount:
            meter.advance(number, amount)
        elif number >= 0:
            meter.end(number, clock.now - begun[number])
        if not amount and queue:
            queue = meter.order(queue) or queue
            batch = queue.pop(0)
            cell = batch.cells[0]
            speed = math.prod(speeds.get(word, 1.0) for word in (cell.optimizer, cell.problem, cell.rounding))
            lanes = sum(cell.seeds for cell in batch.cells)
            seconds = 1e-6 * batch.cost * speed * (1 + narrow / lanes) * 1.3 ** luck.uniform(-1, 1)
            begun[count] = clock.now + (start if count < workers else 0.0)
            meter.begin(count, batch)
            for i in range(1, REPORTS + 1) if reports else ():
                heapq.heappush(events, (begun[count] + seconds * i / REPORTS, count, batch.cost // REPORTS))
            heapq.heappush(events, (begun[count] + seconds * 1.0001, count, 0))
            count += 1
        log.append((clock.now, meter.left()))
    return log


@pytest.mark.parametrize("speeds", SPEEDS.values(), ids=SPEEDS)
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("narrow", [40, 100])
def test_the_time_left_is_within_a_factor_of_two_after_a_tenth(fakes, speeds, workers, narrow):
    log = simulate(Study(), speeds, workers, start=3.0, narrow=narrow)
    total = log[-1][0]
    for now, left in log:
        if 0.1 * total <= now <= 0.95 * total:
            assert (total - now) / 2 <= left <= (total - now) * 2, (now / total, left, total - now)


@pytest.mark.parametrize("name", ["all alike", "as measured for 0.1.0", "slow optimizers", "slow rounding"])
@pytest.mark.parametrize("workers", [1, 4])
def test_likewise_where_only_whole_batches_are_reported(fakes, name, workers):
    log = simulate(Study(exponent="5..8", optimizer="sgd,adam"), SPEEDS[name], workers, reports=False)
    total = log[-1][0]
    known = [(now, left) for now, left in log if 0.1 * total <= now <= 0.9 * total]
    assert known
    for now, left in known:
        assert (total - now) / 2 <= left <= (total - now) * 2, (now / total, left, total - now)


def test_what_was_not_seen_is_estimated_from_what_it_shares():
    logs = {("a", "x"): 0.0, ("b", "x"): math.log(4), ("a", "y"): math.log(3)}
    found = fit(logs, [("b", "y"), ("b", "x"), ("c", "z")])
    assert found["b", "y"] == pytest.approx(12, rel=0.3)
    assert found["b", "x"] == pytest.approx(4, rel=0.1)
    assert 1 < found["c", "z"] < 4


def test_a_meter_counts(small):
    (first, *rest) = engine.batches(small.cells(), 1)
    meter = Meter(1, Clock())
    meter.add([first, *rest])
    assert meter.left() is None
    assert meter.state() == {"cells": 12, "done": 0, "failed": 0, "seconds": 0.0, "seconds_left": None}
    meter.begin(0, first)
    meter.clock.now = 2.0
    meter.end(0, 2.0, len(first.cells), 1)
    assert meter.left() == pytest.approx(2.0 * sum(map(effort, rest)) / effort(first))
    parts = [engine.Batch((cell,)) for cell in rest[0].cells]
    meter.begin(1, rest[0])
    meter.end(1, None)
    meter.add(parts, count=False)  # a batch that was split
    assert meter.left() == pytest.approx(2.0 * sum(map(effort, [*parts, *rest[1:]])) / effort(first))
    assert (meter.cells, meter.cells_done, meter.failed) == (12, len(first.cells), 1)
    meter.advance(7, 100)  # of a batch that has ended
