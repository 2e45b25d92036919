"""All batches of a self-test, in this process or in several, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.pool import workers
from experiments.selftest.batches import Choice, check
from experiments.selftest.outcome import Outcome

GROUP = 8  # batches that are sent to a process together
SHOWN = 5  # mismatches that are described in the end


@dataclass
class Report:
    """What was checked so far, by operation."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    batches: int = 0

    def add(self, operation: str, outcome: Outcome) -> None:
        found = self.outcomes.setdefault(operation, Outcome())
        found.add(outcome)
        del found.mismatches[SHOWN:]
        self.batches += 1

    @property
    def cases(self) -> int:
        return sum(outcome.cases for outcome in self.outcomes.values())

    @property
    def wrong(self) -> int:
        return sum(outcome.wrong for outcome in self.outcomes.values())


Plan = Sequence[tuple[int, str]]


def execute(choice: Choice, plan: Plan, processes: int, report: Report, finished: Callable[[Outcome], None]) -> None:
    """Check all batches and add them to ``report``; ``finished`` is called for each.

    With one process all is done in this one.
    """

    def add(task: tuple[Any, ...], outcomes: list[Outcome]) -> None:
        for (_, operation), outcome in zip(task[1], outcomes, strict=True):
            report.add(operation, outcome)
            finished(outcome)

    size = GROUP if processes > 1 else 1
    with workers(processes) as run:
        run(((choice, plan[i : i + size]) for i in range(0, len(plan), size)), _check_all, add)


def _check_all(choice: Choice, group: Plan) -> list[Outcome]:
    return [check(choice, number, operation) for number, operation in group]
