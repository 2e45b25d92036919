"""How far the study in a folder is: cells finished, failed and missing, who is at work on it, and the time left. Every
byte of every cell file is checked. Ends with 0 if the study is complete or somebody is at work on it, with 1 if cells
are missing or failed and nobody is, with 2 if no study was started there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from experiments.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        type=Path,
        default=Path("fpsim-results/scan"),
        help="what --out of fpsim scan was (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the same as one JSON object")


def run(args: argparse.Namespace) -> int:
    from experiments.whole_files import StoreError

    try:
        found = status(args.folder)
    except StoreError as error:
        raise UsageError(f"fpsim status: error: {error}") from error
    if found is None:
        raise UsageError(f"fpsim status: error: no study was started in {args.folder}; DIR is what --out of a scan was")
    print(json.dumps(found, indent=1) if args.json else "\n".join(lines(found)))
    return 0 if at_work(found) or found["finished"] == found["cells"] else 1


def status(folder: Path) -> dict[str, Any] | None:
    """What ``--json`` prints; ``None`` where no study was started."""
    from experiments import drivers, store

    plan = drivers.read_plan(folder)
    if plan is None:
        return None
    kept = store.look(folder, plan.keys)
    counts = {"cells": len(plan.keys), "finished": len(kept.finished), "failed": len(kept.failed)}
    counts |= {"damaged": len(kept.damaged), "missing": len(plan.keys) - len(kept.finished) - len(kept.failed)}
    there = [
        {**driver.facts, "alive": driver.alive, "silent": round(driver.silent, 1), "same": same}
        for driver in drivers.drivers(folder)
        for same in [driver.facts.get("plan") == plan.digest]
    ]
    return {"folder": str(folder), **counts, "damage": kept.damaged, "study": plan.study, "drivers": there}


def at_work(found: dict[str, Any]) -> bool:
    return any(driver["alive"] and driver["same"] for driver in found["drivers"])


def lines(found: dict[str, Any]) -> list[str]:
    """Such as ``12 of 414 cells are finished (3 %), 402 missing``, and a line for each driver."""
    from experiments.cli.progress import clock

    share = 100 * found["finished"] / max(found["cells"], 1)
    rest = [f"{found[name]} {name}" for name in ("failed", "missing") if found[name]]
    told = [
        f"{found['folder']}: {found['finished']} of {found['cells']} cells are finished ({share:.0f} %)"
        + "".join(f", {part}" for part in rest)
    ]
    for driver in found["drivers"]:
        who = f"process {driver.get('pid')} on {driver.get('host')}"
        how = f"{driver.get('engine')}, {driver.get('workers')} workers"
        how += f", device {device}" if (device := driver.get("device")) else ""
        if not driver["alive"]:
            told.append(f"gone: {who} ({how}) ended without a word, {clock(driver['silent'])} ago or later")
            continue
        done = f"{driver.get('done')} of its {driver.get('cells')} cells in {clock(driver.get('seconds') or 0)}"
        left = driver.get("seconds_left")
        left = "" if left is None else f", about {clock(left)} left"
        other = "" if driver["same"] else " on another study"
        told.append(f"at work{other}: {who} ({how}): {done}{left}")
    if found["finished"] < found["cells"] and not at_work(found):
        told.append("nobody is at work on it; the same fpsim scan command resumes")
    told += found["damage"][:10]
    return told
