"""What ``fpsim scan`` prints before it runs: the grid, every constant, and scalars that the formats change."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from experiments import networks
from experiments.cell import COMMON_HYPERPARAMETERS, Cell
from experiments.cli.formats import align
from experiments.overrides import label
from experiments.registry import Own, bound, problem_of, step_of
from experiments.study import Study

MOST_VALUES = 4  # of one constant that are printed
MOST_CHANGES = 20  # lines


def header(study: Study, cells: Sequence[Cell]) -> list[str]:
    """Lines of the header. ``lr*L`` is the learning rate times the smoothness constant: gradient descent needs < 2.

    Raises
    ------
    StudyError
        A noise that a problem cannot have, a minibatch larger than its data, an override that names no slot.
    """
    study.check(cells)
    modes = (f"stochastic ({study.random_bits} bits)" if mode == "stochastic" else mode for mode in study.rounding)
    formats = f"{_widths(study.exponent)} exponent bits, {_widths(study.mantissa)} mantissa bits"
    every = "" if any(cell.gradient == "stored" for cell in cells) else "; every operation is rounded"
    lines = [
        f"fpsim scan: {len(cells)} cells of {study.seeds} seeds (root seed {study.seed}){every}",
        f"optimizers: {', '.join(study.optimizer)}; problems: {', '.join(study.problem)}",
        f"formats: {formats}",
        f"rounding: {', '.join(modes)}",
    ]
    if study.options:
        lines.append(f"options: {'; '.join(f'{name} = {_values(x)}' for name, x in study.options.items())}")
    if study.overrides != ((),):
        lines.append(f"overrides: {'; '.join(label(x) or 'none' for x in study.overrides)}")
    lines += [*_gradients(cells), "", *_constants(cells, study.own)]
    changed = scalar_changes(cells, study.own)
    if changed:
        lines += ["", "what formats do to scalars (declared, and effective), and components that an optimizer lacks:"]
        lines += [f"  {line}" for line in changed[:MOST_CHANGES]]
        lines += [f"  .. and {len(changed) - MOST_CHANGES} more"] * (len(changed) > MOST_CHANGES)
    return [*lines, ""]


def _gradients(cells: Sequence[Cell]) -> list[str]:
    """Where gradients are computed, in the order of the problems."""
    kinds = {"rounded": "rounded, operation by operation", "exact": "in binary64, then stored"}
    kinds["stored"] = "by PyTorch, every tensor rounded"
    where = {kind: dict.fromkeys(cell.problem for cell in cells if cell.gradient == kind) for kind in kinds}
    parts = [f"{kinds[kind]} ({', '.join(problems)})" for kind, problems in where.items() if problems]
    return [f"gradients: {'; '.join(parts)}"]


def _constants(cells: Sequence[Cell], own: Own) -> list[str]:
    pairs: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        pairs[cell.optimizer, cell.problem].append(cell)
    every = dict.fromkeys((*COMMON_HYPERPARAMETERS, *(name for cell in cells for name in cell.hyperparameters)))
    names = [name for name in every if name != "lr"]
    head = ("optimizer", "problem", "weights", "steps", "measured", "noise", "lr", "lr*L", *names)
    rows = []
    for pair, group in pairs.items():
        rates = [cell.hyperparameters.get("lr") for cell in group]
        products = []
        if group[0].problem not in networks.PROBLEMS:
            smoothness = problem_of(group[0], own).smoothness
            products = [rate * smoothness for rate in rates if isinstance(rate, float)]
        shown = (
            _values(cell.dimension for cell in group),
            _values(cell.steps for cell in group),
            _values(f"{100 * cell.window:g} %" for cell in group),
            _values(map(_noise, group)),
            _values(rates),
            _values(f"{x:.3g}" for x in products),
            *(_values(cell.hyperparameters.get(name) for cell in group) for name in names),
        )
        rows.append((*pair, *shown))
    return _without_empty_columns([head, *rows])


def _noise(cell: Cell) -> str:
    return {"gaussian": f"normal {cell.sigma:g}", "minibatch": f"batch {cell.batch}"}.get(cell.noise, cell.noise)


def _values(values: Iterable[Any]) -> str:
    """Different values, in the order met: ``0.1, 0.2``; the first few and how many there are, if there are many."""
    texts = [f"{x:g}" if isinstance(x, float) else str(x) for x in dict.fromkeys(values) if x is not None]
    more = [f".. ({len(texts)})"] if len(texts) > MOST_VALUES else []
    return ", ".join(texts[:MOST_VALUES] + more) or "-"


def _widths(widths: Sequence[int | str]) -> str:
    return ",".join(
        filter(None, (spans(x for x in widths if isinstance(x, int)), *(x for x in widths if isinstance(x, str))))
    )


def _without_empty_columns(rows: list[tuple[str, ...]]) -> list[str]:
    kept = [i for i in range(len(rows[0])) if any(row[i] != "-" for row in rows[1:])]
    return align([[row[i] for i in kept] for row in rows], left=2)


def scalar_changes(cells: Iterable[Cell], own: Own) -> list[str]:
    """Such as ``rmsprop, adam e8m1..8: beta2 = 0.999 becomes 1``: a line for each change, over all its formats."""
    where: dict[tuple[str, int, str], set[int]] = defaultdict(set)
    known: dict[bytes, str] = {}
    for cell in cells:
        for text in warnings_of(cell, own, known):
            where[cell.optimizer, cell.exponent_bits, text].add(cell.mantissa_bits)
    who: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (optimizer, exponent, text), widths in where.items():
        who[f"e{exponent}m{spans(widths)}", text].append(optimizer)
    return [f"{', '.join(optimizers)} {formats}: {text}" for (formats, text), optimizers in who.items()]


def warnings_of(cell: Cell, own: Own, known: dict[bytes, str]) -> list[str]:
    """What the cell's format does to the scalars of its step.

    ``known`` collects the answers: a scalar's depends on few of the hyperparameters, and grids have many cells.
    """
    from experiments.trajectory import precision_of
    from fpsim.precision import scalar_report

    if cell.problem in networks.PROBLEMS:
        from experiments.networks.cells import warnings_of as of_network

        return of_network(cell)
    step = step_of(cell.optimizer, own)[0]
    shared = [cell.optimizer, cell.steps, cell.rounding, cell.overrides, cell.exponent_bits, cell.mantissa_bits]
    keys = {}
    for scalar in step.scalars:
        values = [cell.hyperparameters.get(name) for name in sorted(scalar.expression.symbols())]
        keys[scalar.name] = msgspec.json.encode([*shared, scalar.name, values])
    if not known.keys() >= set(keys.values()):
        # the slots of the gradient have no scalars
        overrides = tuple(x for x in cell.overrides if fnmatch.filter(step.slots, x[0]))
        bare = msgspec.structs.replace(cell, overrides=overrides)
        for report in scalar_report(bound(step, cell), precision_of(bare, step), 0, cell.steps - 1):
            known[keys[report.name]] = report.warning
    return [known[key] for key in keys.values() if known[key]]


def spans(widths: Iterable[int]) -> str:
    """Whole numbers as ranges: ``1..4,8``."""
    ordered = sorted(set(widths))
    starts = [w for w in ordered if w - 1 not in ordered]
    ends = [w for w in ordered if w + 1 not in ordered]
    return ",".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(starts, ends, strict=True))
