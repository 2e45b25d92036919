"""The cells of a study whose problem is a network: from widths and components to a training, and to a row.

A cell's format is that of its components (option ``components``): ``weights`` (stored, and read by layers),
``activations``, ``gradients`` (of activations and weights), ``m`` and ``v`` (the optimizer's moments), or ``all``: it
means these and every other state and operation of the optimizer. Everything else has binary32, or binary64 where the
cell's format has more than that. ``gradient`` says how forward and backward pass are computed: ``rounded``, every
operation rounded; ``stored``, by PyTorch, every tensor rounded; ``exact``, in binary64.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments import floors, networks
from experiments import network_settings as settings
from experiments.cell import Cell
from experiments.fields import StudyError
from experiments.networks.measures import Measure, one_thread
from experiments.networks.optimizers import Optimizer
from experiments.networks.origin import Origin
from experiments.networks.train import NOT_FINITE, Watched
from experiments.networks.training import Run, Training
from experiments.overrides import apply, rounding_of
from experiments.registry import format_of
from experiments.schema import SCHEMA
from experiments.simulate import Cancelled, random_offsets
from experiments.trace import places
from fpsim.accumulator import Accumulator
from fpsim.formats import format as named_format
from fpsim.nn import NetworkPrecision
from fpsim.nn.roles import Slot
from fpsim.precision import Precision, scalar_report
from fpsim.program import Program
from fpsim.random_bits import Key

Array = npt.NDArray[np.float64]

SAMPLES = 32  # measures of the window
_GRADIENT = {"rounded": "operation", "stored": "storage"}


def training_of(cell: Cell, run: int = 0) -> Training:
    """The training of one seed of a cell.

    Raises
    ------
    StudyError
        A component, accumulator or override that there is not.
    """
    of_network, of_data, common = settings.divided(cell.problem, cell.options)
    fmt, single = format_of(cell), named_format("binary32")
    narrow: Slot = (fmt, rounding_of(cell.rounding, cell.random_bits))
    wide: Slot = (single if single.holds(fmt) else named_format("binary64"), "nearest_even")
    carrier = "float32" if wide[0] == single and cell.gradient != "exact" else "float64"
    parts = _components(str(common["components"]))
    network = _network(cell, common, parts, narrow, wide)
    training = Training(
        *networks.PROBLEMS[cell.problem],
        Optimizer(cell.optimizer, dict(cell.hyperparameters)),
        network,
        steps=cell.steps,
        batch=cell.batch,
        evaluation=int(common["evaluation"]),
        carrier=carrier,
        key=Key(cell.seed),
        run=run,
        vectors=Optimizer("adam", {"lr": float(common["vector_lr"])}),
        network_options=of_network,
        dataset_options=of_data,
        passthrough=tuple(filter(None, str(common["passthrough"]).split("+"))),
    )
    made = {
        name: replace(spec, precision=_precision(training.precision_of(spec), spec, cell, parts, narrow, wide))
        for name, spec in (("optimizer", training.optimizer), ("vectors", training.vectors))
    }
    return replace(training, **made, precision=None if cell.gradient == "exact" else network)


def _components(text: str) -> set[str]:
    parts = set(text.split("+"))
    for part in parts:
        if part not in settings.COMPONENTS:
            raise StudyError("options.components", f"{part!r} is unknown; admissible: {', '.join(settings.COMPONENTS)}")
    return set(settings.COMPONENTS) if "all" in parts else parts


def _network(cell: Cell, common: dict[str, Any], parts: set[str], narrow: Slot, wide: Slot) -> NetworkPrecision:
    given = {"wide": wide, "same": narrow}
    if common["accumulator"] not in given:
        raise StudyError("options.accumulator", f"{common['accumulator']!r} is unknown; admissible: wide, same")
    fmt, mode = given[common["accumulator"]]
    block = {"block": int(common["block"])} if common["block"] else {}
    try:
        sums = Accumulator(fmt, fmt, common["order"], **block, product_rounding=mode, sum_rounding=mode)
    except (TypeError, ValueError) as error:
        raise StudyError("options", str(error)) from error
    slots = {name: narrow if name in parts else wide for name in ("weights", "activations", "gradients")}
    optimizer = {"master": slots["weights"], "state": wide, "update": narrow if "all" in parts else wide}
    return NetworkPrecision(
        **slots,
        weight_gradients=slots["gradients"],
        accumulator=sums,
        **optimizer,
        level=_GRADIENT.get(cell.gradient, "storage"),
    )


def _precision(given: Precision, spec: Optimizer, cell: Cell, parts: set[str], narrow: Slot, wide: Slot) -> Precision:
    """The precision of an optimizer: states by components, then the overrides of the cell."""
    states = [name for name in spec.source.state if name != "w"]
    slots = ((name, *(narrow if name in parts or "all" in parts else wide)) for name in states)
    precision = replace(given, families=(*given.families, *slots))
    if not cell.overrides or spec.name != cell.optimizer:
        return precision
    if not isinstance(spec.source, Program):
        raise StudyError("overrides", f"slots of {spec.name}, a method of matrices, have none; use components")
    return apply(precision, spec.source, cell.overrides, cell.random_bits)


def check(cell: Cell) -> None:
    """Refuse a cell that cannot run, before any does.

    Raises
    ------
    StudyError
        Names the field, its value and what is admissible.
    """
    if cell.dimension != settings.weights(cell.problem, cell.options):
        raise StudyError("dimension", f"{cell.dimension}: the options of {cell.problem} say how many weights it has")
    training = training_of(cell)
    if cell.gradient == "rounded":
        try:
            Run(replace(training, batch=1)).gradients()
        except NotImplementedError as error:
            reason = f"'rounded' with {cell.problem}: {error}; or gradient = stored, or the option passthrough"
            raise StudyError("gradient", reason) from error


def warnings_of(cell: Cell) -> list[str]:
    """What the cell's format does to scalars of its optimizer, as ``Precision`` reports it."""
    spec = training_of(cell).optimizer
    if not isinstance(spec.source, Program):
        return []
    program, precision = spec.source.bind(**spec.at(cell.steps, 0)), spec.precision
    assert precision is not None
    return [x.warning for x in scalar_report(program, precision, 0, cell.steps - 1) if x.warning]


@dataclass
class _Seed:
    """What was measured of one run."""

    trace: list[Measure] = field(default_factory=list)
    window: list[Measure] = field(default_factory=list)
    frozen: list[float] = field(default_factory=list)
    origin: Origin | None = None
    finite: bool = True


def run_cells(
    cells: Sequence[Cell], report: Callable[[int], None], cancelled: Callable[[], bool]
) -> list[dict[str, Any]]:
    """A row for each cell, as ``experiments.simulate.run_batch`` gives it: one seed after the other.

    Raises
    ------
    Cancelled
    """
    rows = []
    for cell in cells:
        if settings.content(cell) != cell.problem_digest:
            raise RuntimeError(f"the data of {cell.problem} are not those of the driver: use the same files and Python")
        began = time.perf_counter()
        seeds = [_run(cell, run, report, cancelled) for run in range(cell.seeds)]
        rows.append(_row(cell, seeds) | {"seconds": time.perf_counter() - began})
    return rows


def window_of(cell: Cell) -> tuple[int, int]:
    """(first step, steps between samples) of the measured window."""
    wanted = max(1, round(cell.steps * cell.window))
    stride = wanted // min(SAMPLES, wanted)
    return cell.steps - min(SAMPLES, wanted) * stride, stride


def _run(cell: Cell, run: int, report: Callable[[int], None], cancelled: Callable[[], bool]) -> _Seed:
    found, (first, stride) = _Seed(), window_of(cell)
    looked_at = set(places(cell.steps))
    # samples are taken at a random step of each stratum, and every seed has steps of its own, as in other cells
    count = (cell.steps - first) // stride
    sampled = {first + i * stride + int(random_offsets(cell, i, stride)[run]) for i in range(count)}
    with one_thread():
        watched = Watched(training_of(cell, run))
        now = watched.run
        while True:
            if cancelled():
                raise Cancelled
            sample = now.step in sampled
            if now.step in looked_at or sample:
                measure = now.measure()
                found.trace += [measure] if now.step in looked_at else []
                found.window += [measure] if sample else []
            if now.step == cell.steps:
                break
            before = {name: p.detach().clone() for name, p in now.parameters.items()} if sample else {}
            outcome = watched.advance()
            report(cell.dimension)
            if outcome == NOT_FINITE:
                found.finite, found.origin = False, watched.origin
                report(cell.dimension * (cell.steps - now.step))
                break
            if sample:
                found.frozen.append(_frozen(before, now.parameters))
        found.origin = watched.origin
    return found


def _frozen(before: dict[str, Any], now: dict[str, Any]) -> float:
    """The share of weights that stay although their gradient is not 0."""
    same = sum(int(((p.detach() == before[name]) & (p.grad != 0)).sum()) for name, p in now.items())
    return same / sum(p.numel() for p in now.values())


def _row(cell: Cell, seeds: Sequence[_Seed]) -> dict[str, Any]:
    first, stride = window_of(cell)
    count = (cell.steps - first) // stride

    def samples(of: Callable[[Measure], float | None]) -> Array:
        """[count, seeds], NaN where a run had ended."""
        table = np.full((count, len(seeds)), np.nan)
        for i, seed in enumerate(seeds):
            values = [of(m) for m in seed.window] if seed.finite else []
            table[: len(values), i] = [np.nan if x is None else x for x in values]
        return table

    loss, accuracy = samples(lambda m: m.loss), samples(lambda m: m.accuracy)
    frozen = np.full_like(loss, np.nan)
    for i, seed in enumerate(seeds):
        frozen[: len(seed.frozen), i] = seed.frozen[:count]
    start = np.array([seed.trace[0].loss for seed in seeds])
    with np.errstate(over="ignore", invalid="ignore"):
        squared = samples(lambda m: m.gradient) ** 2
        halted = np.zeros(len(seeds), dtype=np.bool_)  # batches differ from step to step: nothing is claimed
        floor = floors.measure(squared, loss, frozen, start, halted)
    origins = [seed.origin for seed in seeds if seed.origin is not None]
    origin = min(origins, key=lambda x: x.step) if origins else None
    row = dict.fromkeys(SCHEMA) | cell.columns() | {"key": cell.key}
    row |= {"outcome": floor.outcome, "stationary": floor.stationary, "frozen_share": _known(floor.frozen)}
    row |= dict(zip(("rms_gradient", "rms_gradient_low", "rms_gradient_high"), floor.gradient, strict=True))
    row |= {"rms_gradient_low999": floor.gradient999[1], "rms_gradient_high999": floor.gradient999[2]}
    row |= {"seed_rms_gradient": floor.seed_gradient.tolist(), "seed_frozen": floor.seed_frozen.tolist()}
    row |= dict(zip(("loss", "loss_low", "loss_high"), floor.loss, strict=True))
    row |= {"seed_loss": floor.seed_loss.tolist(), "seed_accuracy": accuracy.mean(axis=0).tolist()}
    row |= {"accuracy": _known(float(accuracy.mean())), "loss_floor": _data(cell).floor}
    reason = f"not finite: {origin}" if origin else "no theorem about networks"
    row |= {"window_steps": cell.steps - first, "verdict": "not applicable", "reason": reason}
    row |= _trace(cell, seeds)
    row |= {"not_finite_step": origin and origin.step, "not_finite_slot": origin and origin.slot}
    return row | {"warnings": "; ".join(dict.fromkeys(warnings_of(cell)))}


def _trace(cell: Cell, seeds: Sequence[_Seed]) -> dict[str, Any]:
    """The course of the means over seeds; None where not all of them are finite."""
    steps = places(cell.steps)

    def course(of: Callable[[list[Measure]], float | None]) -> list[float | None]:
        full = (([s.trace[i] for s in seeds if i < len(s.trace)]) for i in range(len(steps)))
        values = [of(measures) if len(measures) == len(seeds) else None for measures in full]
        return [x if x is not None and np.isfinite(x) else None for x in values]

    with np.errstate(over="ignore", invalid="ignore"):
        return {
            "trace_step": steps,
            "trace_rms_gradient": course(lambda ms: float(np.sqrt(np.mean([m.gradient**2 for m in ms])))),
            "trace_loss": course(lambda ms: float(np.mean([m.loss for m in ms]))),
            "trace_accuracy": course(
                lambda ms: None if ms[0].accuracy is None else float(np.mean([m.accuracy for m in ms]))
            ),
        }


def _data(cell: Cell) -> Any:
    from experiments import datasets

    return datasets.make(networks.PROBLEMS[cell.problem][1], **settings.divided(cell.problem, cell.options)[1])


def _known(x: float) -> float | None:
    return None if np.isnan(x) else x


def seconds_of(cell: Cell, budget: float) -> tuple[float, int]:
    """(CPU-seconds of an element-step, bytes of arrays) of a cell, from a few of its steps."""
    with one_thread():
        run = Watched(training_of(cell)).run
        run.advance()
        steps, began = 0, time.process_time()
        while steps == 0 or time.process_time() - began < budget:
            run.advance()
            steps += 1
        taken = time.process_time() - began
    arrays = 2 + len(run.training.optimizer.source.state)
    return taken / (steps * cell.dimension), cell.dimension * arrays * (4 if run.training.carrier == "float32" else 8)
