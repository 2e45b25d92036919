"""All that is said of one setting, and what simulations show of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.advise import first_step, floor, scalars, second_moment, underflow, weights
from experiments.advise.finding import Checked, Finding
from experiments.advise.machine import Machine, command
from experiments.advise.setting import Setting

ORDER = {"problem": 0, "note": 1, "unknown": 2, "fine": 3}


def advise(setting: Setting) -> list[Finding]:
    """Every prediction, what needs a change first.

    Examples
    --------
    >>> from experiments.advise.setting import build
    >>> [(x.topic, x.level, x.theorems) for x in advise(build({"format": "float16"}))][:2]
    [('eps', 'problem', ('T15', 'R3')), ('second moment', 'problem', ('T15',))]
    """
    machine = Machine(setting)
    found = [
        x for part in (scalars, underflow, first_step, second_moment, weights, floor) for x in part.findings(machine)
    ]
    return sorted(found, key=lambda x: ORDER[x.level])


def confirm(findings: Sequence[Finding]) -> Iterator[Checked | None]:
    """Simulate every prediction; None where there is nothing to simulate. Any cell that fails is not confirmed."""
    from experiments.simulate import windows
    from experiments.study import Study

    for finding in findings:
        if finding.study is None or finding.check is None:
            yield None
            continue
        yield finding.check(windows(Study.build(finding.study).cells())[0])


def reproduction(finding: Finding) -> str:
    """The command that shows a prediction; empty where there is nothing to run."""
    if finding.study is None:
        return ""
    theorems = [x for x in finding.theorems if x.startswith("T")]
    return command(finding.study, finding.topic.replace(" ", "-"), theorems)


def record(findings: Sequence[Finding], checked: Sequence[Checked | None]) -> list[dict[str, Any]]:
    """The findings as plain values, for JSON."""
    rows = []
    for finding, seen in zip(findings, checked, strict=True):
        row: dict[str, Any] = {"topic": finding.topic, "level": finding.level, "text": finding.text}
        row |= {"theorems": list(finding.theorems), "command": reproduction(finding)}
        row["numbers"] = {name: _plain(value) for name, value in finding.numbers.items()}
        row["fixes"] = [{"text": x.text, "bytes": x.cost, "flags": x.flags, "effect": x.effect} for x in finding.fixes]
        row["simulated"] = None if seen is None else {"confirmed": seen.ok, "measured": seen.measured}
        rows.append(row)
    return rows


def _plain(value: Any) -> float | str:
    """JSON has no infinity and no NaN."""
    number = float(value)
    return number if abs(number) < float("inf") else str(number)
