"""The table of a scan: where each optimizer stops improving, how low it gets, and how close the bound is."""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.cli.formats import align
from experiments.cli.scan_header import spans
from experiments.floors import OUTCOMES
from experiments.overrides import label

Row = dict[str, Any]

SHOWN_WIDTHS = (3, 7, 10, 23)
FACTOR = 2.0  # a floor within this factor of the widest format's floor counts as no worse
VERDICTS = ("holds", "undecided", "violated", "not applicable")

NOTES = (
    "stops: from this width on, every floor is within a factor 2 of the widest format's (>m: not by m).",
    "m=...: floor: root-mean-square gradient norm over measured steps and seeds; *: not stationary.",
    "ratio, worst: median and largest proven bound / measured value of what it bounds, where it applies.",
    "verdicts: widths where the bound holds / is undecided / is violated / does not apply.",
)
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def print_table(rows: Sequence[Row]) -> None:
    """Print the table and, below it, every bound that does not apply with its reason. Lines fit 100 columns."""
    head, body = summarize(rows)
    title, *lines = align([head, *body], left=4 if "variant" in head else 3)
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"{bold}{title}{plain}")
    for line, cells in zip(lines, body, strict=True):
        violated = cells[-1].split("/")[2] != "0"
        print(f"{bold}{line}{plain}" if violated else line)
    print("\n".join(["", *NOTES, *lists(rows)]))


def summarize(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table: one line for each optimizer, problem, rounding, exponent width and variant."""
    shown = shown_widths({row["mantissa_bits"] for row in rows})
    exponents = {row["exponent_bits"] for row in rows}
    groups = _grouped(rows)
    several = any(variant for *_, variant in groups)
    head = [
        "optimizer",
        "problem",
        "rounding",
        *(["variant"] * several),
        "stops",
        *(f"m={m}" for m in shown),
        "ratio",
        "worst",
        "verdicts",
    ]
    body = []
    for (optimizer, problem, rounding, exponent, variant), group in groups.items():
        at = {row["mantissa_bits"]: row for row in group}
        ratios = [row["ratio"] for row in group if row["ratio"] is not None and math.isfinite(row["ratio"])]
        counts = Counter(row["verdict"] for row in group)
        body.append(
            [
                optimizer if len(exponents) == 1 else f"{optimizer} e{exponent}",
                problem,
                _mode(rounding, group[0]["random_bits"]),
                *([variant or "-"] * several),
                stops_at(group),
                *(_floor(at.get(m)) for m in shown),
                short(statistics.median(ratios), 3) if ratios else "-",
                short(max(ratios), 3) if ratios else "-",
                "/".join(str(counts[verdict]) for verdict in VERDICTS),
            ]
        )
    return head, body


def stops_at(group: Iterable[Row]) -> str:
    """The smallest width from which on every floor is at most ``FACTOR`` times the widest format's floor."""
    ordered = sorted(group, key=lambda row: -row["mantissa_bits"])
    best = ordered[0]["rms_gradient"]
    if best is None or not math.isfinite(best):
        return "-"
    last = ordered[0]["mantissa_bits"]
    for row in ordered:
        floor = row["rms_gradient"]
        if floor is None or not floor <= FACTOR * best:
            break
        last = row["mantissa_bits"]
    return f">{last}" if last == ordered[0]["mantissa_bits"] and len(ordered) > 1 else str(last)


def lists(rows: Sequence[Row]) -> list[str]:
    """What is bounded, outcomes, then what is not settled: violated, failed, undecided, inapplicable, each with why."""
    outcomes = Counter(row["outcome"] for row in rows).most_common()
    lines = [
        *bounded(rows),
        *learned(rows),
        "",
        "outcomes:",
        *(f"  {count:4} {OUTCOMES.get(name, name)}" for name, count in outcomes),
    ]
    for title, column, value in (
        ("VIOLATED bounds", "verdict", "violated"),
        ("failed cells", "outcome", "failed"),
        ("undecided bounds", "verdict", "undecided"),
        ("bounds that do not apply", "verdict", "not applicable"),
    ):
        chosen = [row for row in rows if row[column] == value]
        if chosen:
            lines += ["", f"{title} ({len(chosen)} cells):", *(f"  {line}" for line in by_reason(chosen))]
    return lines


def learned(rows: Sequence[Row]) -> list[str]:
    """Of networks, such as ``adam mlp-digits nearest_even: m=7 loss 0.12, accuracy 97.1 %``: up to four widths."""
    several = len({row["exponent_bits"] for row in rows}) > 1
    groups: dict[str, list[Row]] = defaultdict(list)
    for row, variant in zip(rows, variants(rows), strict=True):
        if row.get("loss") is not None and math.isfinite(row["loss"]):
            where = f"{row['optimizer']} {row['problem']} {row['rounding']}"
            where += (f" e{row['exponent_bits']}" if several else "") + f" {variant}" * bool(variant)
            groups[where].append(row)
    lines = []
    for where, group in groups.items():
        widths = shown_widths({row["mantissa_bits"] for row in group})
        told = "; ".join(_learned(row) for row in group if row["mantissa_bits"] in widths)
        # on the samples that are measured a loss may be a little below the law of the data
        floor = group[0]["loss_floor"]
        lines.append(f"  {where}: {told}" + ("" if floor is None else f" (law of the data: {short(floor, 3)})"))
    return ["", "networks, means over the window (all widths are in the results):", *lines] if lines else []


def _learned(row: Row) -> str:
    right = "" if row["accuracy"] is None else f", accuracy {100 * row['accuracy']:.1f} %"
    return f"m={row['mantissa_bits']} loss {short(row['loss'], 3)}{right}"


def bounded(rows: Sequence[Row]) -> list[str]:
    """Such as ``T6 (sgd) bounds: gradient norm where the run halted``."""
    users: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for row in rows:
        if row["theorem"] and row["quantity"]:
            users[row["theorem"], row["quantity"]][row["optimizer"]] = None
    return [f"{theorem} ({', '.join(who)}) bounds: {quantity}." for (theorem, quantity), who in users.items()]


def by_reason(rows: Sequence[Row]) -> list[str]:
    """Such as ``sgd quadratic nearest_even m=1..2 T6: reason``. Reasons that differ in numbers only share a line."""
    several = len({row["exponent_bits"] for row in rows}) > 1
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row, variant in zip(rows, variants(rows), strict=True):
        where = f"{row['optimizer']} {row['problem']} {row['rounding']}"
        where += (f" e{row['exponent_bits']}" if several else "") + f" {variant}" * bool(variant)
        groups[where, NUMBER.sub("#", f"{row['theorem']} {_reason(row)}")].append(row)
    lines = []
    for (where, _), group in groups.items():
        first = min(group, key=lambda row: row["mantissa_bits"])
        theorem = f" {first['theorem']}" if first["theorem"] else ""
        differ = f" (at m={first['mantissa_bits']})" if len({_reason(row) for row in group}) > 1 else ""
        widths = spans(row["mantissa_bits"] for row in group)
        lines.append(f"{where} m={widths}{theorem}: {_reason(first)}{differ}")
    return lines


def _reason(row: Row) -> str:
    needed = f"{row['seeds_needed']} seeds would decide" if row["seeds_needed"] else ""
    return "; ".join(filter(None, (row["reason"], needed))) or "no reason given"


def shown_widths(widths: set[int]) -> list[int]:
    """Up to four widths for the table's columns: the customary ones, or evenly spaced ones if those are too few."""
    customary = [m for m in SHOWN_WIDTHS if m in widths]
    if len(customary) >= min(len(widths), len(SHOWN_WIDTHS) - 1):
        return customary
    ordered = sorted(widths)
    count = min(len(ordered), len(SHOWN_WIDTHS))
    return sorted({ordered[round(i * (len(ordered) - 1) / max(count - 1, 1))] for i in range(count)})


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, str, str, int, str], list[Row]]:
    groups: dict[tuple[str, str, str, int, str], list[Row]] = defaultdict(list)
    for row, variant in zip(rows, variants(rows), strict=True):
        groups[row["optimizer"], row["problem"], row["rounding"], row["exponent_bits"], variant].append(row)
    return groups


def variants(rows: Sequence[Row]) -> list[str]:
    """For each row what sets it apart from the others of its optimizer and problem, formats and roundings left out.

    Such as ``lr=0.1 steps=1000 v=e5m10``; "" where nothing varies.
    """
    settings = [_settings(row) for row in rows]
    values: dict[tuple[str, str, str], set[Any]] = defaultdict(set)
    for row, setting in zip(rows, settings, strict=True):
        for name, value in setting.items():
            values[row["optimizer"], row["problem"], name].add(value)
    found = []
    for row, setting in zip(rows, settings, strict=True):
        varying = [(n, x) for n, x in setting.items() if len(values[row["optimizer"], row["problem"], n]) > 1]
        found.append(" ".join(_setting(name, value) for name, value in varying))
    return found


def _settings(row: Row) -> dict[str, Any]:
    nested = {**json.loads(row.get("hyperparameters") or "{}"), **json.loads(row.get("options") or "{}")}
    plain = {name: row.get(name) for name in ("steps", "noise", "sigma", "batch", "gradient", "dimension", "window")}
    return nested | plain | {"overrides": label(json.loads(row.get("overrides") or "[]"))}


def _setting(name: str, value: Any) -> str:
    if name == "overrides":
        return value or "no overrides"
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def _floor(row: Row | None) -> str:
    if row is None:
        return ""
    if row["rms_gradient"] is None or not math.isfinite(row["rms_gradient"]):
        return str(row["outcome"]).split()[0][:8]
    return short(row["rms_gradient"], 2) + ("*" if row["stationary"] is False else "")


def _mode(rounding: str, bits: int) -> str:
    return f"stoch-{bits}" if rounding == "stochastic" else rounding.removesuffix("_even")


def short(value: float, digits: int) -> str:
    """As ``1.23``, or with an exponent without zeros: ``5.4e-3``, ``1.2e4``."""
    if value == 0:
        return "0"
    if 0.1 <= value < 999.5:
        return f"{value:.{digits}g}" if value < 100 else f"{value:.0f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
