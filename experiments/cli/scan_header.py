"""What ``fpsim scan`` prints before it runs: the grid, every constant, and scalars that the formats change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from experiments.cli.formats import align
from experiments.fields import StudyError
from experiments.study import Cell, Study

if TYPE_CHECKING:
    from experiments.problems.base import Problem


def header(study: Study, cells: Sequence[Cell]) -> list[str]:
    """Lines of the header. ``lr*L`` is the learning rate times the smoothness constant: gradient descent needs < 2.

    Raises
    ------
    StudyError
        A noise that a problem cannot have, or a minibatch larger than its data.
    """
    modes = (f"stochastic ({study.random_bits} bits)" if mode == "stochastic" else mode for mode in study.rounding)
    lines = [
        f"fpsim scan: {len(cells)} cells of {study.seeds} seeds (root seed {study.seed}); every operation is rounded",
        f"optimizers: {', '.join(study.optimizer)}; problems: {', '.join(study.problem)}",
        f"formats: {spans(study.exponent)} exponent bits, {spans(study.mantissa)} mantissa bits",
        f"rounding: {', '.join(modes)}",
        "",
        *_constants(cells),
    ]
    changed = scalar_changes(cells)
    if changed:
        lines += ["", "scalars that a format turns into something else (declared, and effective):"]
        lines += [f"  {line}" for line in changed]
    return [*lines, ""]


def _constants(cells: Sequence[Cell]) -> list[str]:
    head = ("optimizer", "problem", "weights", "steps", "measured", "noise", "lr", "lr*L", "beta1", "beta2", "eps")
    rows = {}
    for cell in cells:
        pair = (cell.optimizer, cell.problem)
        if pair not in rows:
            smoothness = _problem(cell).smoothness
            noises = {"gaussian": f"normal {cell.sigma:g}", "minibatch": f"batch {cell.batch}"}
            noise = noises.get(cell.noise, cell.noise)
            numbers = (cell.lr * smoothness, cell.beta1, cell.beta2, cell.eps)
            shown = tuple(f"{x:.3g}" if x else "-" for x in numbers)
            sizes = (str(cell.dimension), str(cell.steps), f"{100 * cell.window:g} %")
            rows[pair] = (*pair, *sizes, noise, f"{cell.lr:g}", *shown)
    return _without_empty_columns([head, *rows.values()])


def _without_empty_columns(rows: list[tuple[str, ...]]) -> list[str]:
    kept = [i for i in range(len(rows[0])) if any(row[i] != "-" for row in rows[1:])]
    return align([[row[i] for i in kept] for row in rows], left=2)


def _problem(cell: Cell) -> Problem:
    from experiments.problems import PROBLEMS
    from experiments.problems.base import Problem

    problem: Problem = PROBLEMS[cell.problem](dimension=cell.dimension)
    if cell.noise == "minibatch" and type(problem).minibatch_gradient is Problem.minibatch_gradient:
        reason = f"'minibatch' needs a problem with data, which {cell.problem} has not; admissible: none, gaussian"
        raise StudyError("noise", reason)
    samples = len(getattr(problem, "rows", ()))
    if cell.noise == "minibatch" and cell.batch > samples:
        raise StudyError("batch", f"{cell.batch} is outside 1..{samples}, the samples of {cell.problem}")
    return problem


def scalar_changes(cells: Iterable[Cell]) -> list[str]:
    """Such as ``rmsprop, adam e8m1..8: beta2 = 0.999 becomes 1``: a line for each change, over all its formats."""
    where: dict[tuple[str, int, str], set[int]] = defaultdict(set)
    for cell in cells:
        for text in warnings_of(cell):
            where[cell.optimizer, cell.exponent_bits, text].add(cell.mantissa_bits)
    who: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (optimizer, exponent, text), widths in where.items():
        who[f"e{exponent}m{spans(widths)}", text].append(optimizer)
    return [f"{', '.join(optimizers)} {formats}: {text}" for (formats, text), optimizers in who.items()]


def warnings_of(cell: Cell) -> list[str]:
    """What the cell's format does to the scalars of its step."""
    from experiments.trajectory import precision_of
    from fpsim.optim import STEPS
    from fpsim.precision import scalar_report

    step = STEPS[cell.optimizer]
    step = step.bind(**{name: getattr(cell, name) for name in step.hyperparameters})
    return [report.warning for report in scalar_report(step, precision_of(cell, step)) if report.warning]


def spans(widths: Iterable[int]) -> str:
    """Whole numbers as ranges: ``1..4,8``."""
    ordered = sorted(set(widths))
    starts = [w for w in ordered if w - 1 not in ordered]
    ends = [w for w in ordered if w + 1 not in ordered]
    return ",".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(starts, ends, strict=True))
