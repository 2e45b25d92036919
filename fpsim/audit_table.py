"""An audit's latest measurements as a table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from fpsim.audit_log import AuditLog

WIDTH = 132  # of text: what a row with eight numbers needs
COLUMNS = {
    "w frozen": "weights with a nonzero update that did not change",
    "v stuck": "second moments that no gradient can lower: fl(beta2 v) >= v",
    "v swamped": "gradients whose square v did not take in",
    "beta2": "median of fl(beta2 v)/v, in brackets as declared",
    "lr": "what w moved by against what it should have, in brackets as declared",
    "g^2 lost": "nonzero gradients whose square underflows in v",
    "eps": "as it is stored",
    "headroom": "binades to overflow and to underflow, the least of all arrays (negative: subnormal)",
}


def table(log: AuditLog) -> Table:
    """One row a tensor."""
    from rich.table import Table

    samples = log.record["samples"]
    title = f"{log.record['optimizer']}, {log.steps} steps"
    title += f", measured in step {samples[-1]['step']}" if samples else ""
    found = Table(title=title, title_justify="left", caption=_caption(log), caption_justify="left")
    for column in ("tensor", "dtype"):
        found.add_column(column, overflow="fold")
    for column in COLUMNS:
        found.add_column(column, justify="right", no_wrap=True)
    for name in log.names if samples else ():
        found.add_row(*row(log, name))
    return found


def row(log: AuditLog, name: str) -> list[str]:
    """The cells of one tensor."""
    about = log.record["tensors"][name]
    try:
        x = log.last(name)
    except KeyError:
        return [name, about["dtype"], *["" for _ in COLUMNS]]
    group = next(s for s in reversed(log.record["samples"]) if name in s["tensors"])["groups"][about["group"]]
    others = {role: dtype for role, dtype in about["moments"].items() if dtype != about["dtype"]}
    dtypes = [about["dtype"], *(f"{role} {dtype}" for role, dtype in others.items())]
    ends = list(x["headroom"].values())
    return [
        name,
        ", ".join(dtypes),
        percent(x.get("w_frozen") or x.get("w_unmoved")),
        percent(x.get("v_stuck")),
        percent(x.get("v_swamped")),
        _beside(x.get("beta2_effective"), group.get("beta2"), 4),
        _beside(x.get("lr_effective"), group.get("lr"), 3),
        percent(x.get("g2_underflow")),
        f"{x['eps_stored']:.3g}" if "eps_stored" in x else "",
        f"{min(e[0] for e in ends)} / {min(e[1] for e in ends)}" if ends else "",
    ]


def percent(share: list[int] | None) -> str:
    """[k, n] in percent; 0 and 100 only where they are exact.

    Examples
    --------
    >>> percent([1, 3]), percent([0, 3]), percent([99999, 100000]), percent([0, 0])
    ('33.3 %', '0 %', '>99.9 %', '')
    """
    if not share or not share[1]:
        return ""
    k, n = share
    if k in (0, n):
        return f"{100 * k // n} %"
    of = 100 * k / n
    return "<0.1 %" if of < 0.1 else ">99.9 %" if of > 99.9 else f"{of:.3g} %"


def text(log: AuditLog) -> str:
    """The table as plain text."""
    from rich.console import Console

    console = Console(width=max(WIDTH, shutil.get_terminal_size().columns), no_color=True)
    with console.capture() as captured:
        console.print(table(log))
    return captured.get().rstrip("\n")


def _beside(effective: float | None, declared: float | None, digits: int) -> str:
    if effective is None:
        return ""
    return f"{effective:.{digits}g}" + (f" ({declared:.{digits}g})" if declared is not None else "")


def _caption(log: AuditLog) -> str:
    lines = [f"stopped: {error}" for error in log.errors]
    if not log.record["samples"]:
        lines.append(f"No step was measured yet: every {log.every} steps, of which {log.steps} were made.")
    elif not log.understood:
        unknown = log.record["optimizer"]
        lines.append(f"{unknown} is not understood: w frozen are weights with g != 0 that did not change.")
    lines += [f"Not finite: {found}." for found in _nonfinite(log.record)]
    cut = _cut(log.record)
    if cut:
        lines.append(f"Of {', '.join(cut)}, {log.record['elements']} entries each are looked at.")
    return "\n".join(lines)


def _cut(record: Mapping[str, Any]) -> list[str]:
    samples = record["samples"]
    latest = samples[-1]["tensors"] if samples else {}
    sizes = {name: x["entries"] for name, x in latest.items()}
    return [name for name, n in sizes.items() if n < _product(record["tensors"][name]["shape"])]


def _nonfinite(record: Mapping[str, Any]) -> list[str]:
    samples = record["samples"]
    latest = samples[-1]["tensors"] if samples else {}
    return [
        f"{count} of {x['entries']} entries of {array} in {name}"
        for name, x in latest.items()
        for array, count in x["nonfinite"].items()
        if count
    ]


def _product(shape: list[int]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
