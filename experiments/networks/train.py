"""Train a network: measures on the way, checkpoints, and an end that says how it came."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from experiments.networks.measures import Measure, one_thread
from experiments.networks.origin import Origin, find
from experiments.networks.training import Run, Training
from experiments.trace import places

FINISHED, STOPPED, NOT_FINITE = "finished", "stopped", "not finite"
ANCHOR = 64  # steps between states that are kept in memory, from which a number that is not finite is traced


@dataclass
class History:
    """What a training left.

    Attributes
    ----------
    outcome : "finished"; "stopped", by the caller; "not finite": the loss or a weight is not a finite number
    steps : int, steps done
    measures : in the order of their steps
    origin : where the first number that is not finite appeared, if one did
    warnings : what formats did to scalars of the optimizer
    run : the state at the end
    """

    outcome: str
    steps: int
    measures: list[Measure]
    run: Run
    origin: Origin | None = None
    warnings: list[str] = field(default_factory=list)


class Watched:
    """A run that is looked after: where a number that is not finite appears, its origin is found.

    Attributes
    ----------
    run : Run
    origin : Origin or None, of the first such number among weights and states
    """

    def __init__(self, training: Training) -> None:
        self.run = Run(training)
        self.origin: Origin | None = None
        self._anchor = self.run.state()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.run.load(state)
        self._anchor = self.run.state()

    def advance(self) -> str:
        """One step; "" or ``NOT_FINITE``."""
        if self.run.step - self._anchor["step"] >= ANCHOR:
            self.look()
        self.run.advance()
        if self.run.finite():
            return ""
        self.origin = self.origin or find(Run(self.run.training), self._anchor)
        return NOT_FINITE

    def look(self) -> None:
        """Keep the present state to look back from, unless one of its numbers is not finite."""
        if self.origin is None and self.run.finite(states=True):
            self._anchor = self.run.state()
        else:
            self.origin = self.origin or find(Run(self.run.training), self._anchor)


def train(
    training: Training,
    *,
    measure_at: list[int] | None = None,
    progress: Callable[[int, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
    checkpoint: Path | str | None = None,
    every: int = 500,
) -> History:
    """Train from the start, or on from a checkpoint of the same training.

    Parameters
    ----------
    measure_at : steps after which loss, gradient norm and accuracy are measured; default
        ``experiments.trace.places(steps)``: 0 and eight in each decade
    progress : called after each step with the steps done and the loss of its batch
    stop : asked before each step; a true answer ends the training there
    checkpoint : file that is written every ``every`` steps and at the end, whole or not at all, and read if it is there

    Returns
    -------
    History

    Raises
    ------
    ValueError
        The checkpoint is that of another training, or damaged.
    KeyboardInterrupt
        Ctrl-C; the step under way is given up, and the last checkpoint goes on from where it was written.

    Notes
    -----
    The bits of weights and measures depend on the training alone: not on the number of threads, nor on where it was
    interrupted and resumed. PyTorch runs with one thread inside.

    Examples
    --------
    >>> from experiments.networks.optimizers import Optimizer
    >>> from fpsim.nn import NetworkPrecision
    >>> done = train(Training("logistic", "digits", Optimizer("sgd"), NetworkPrecision.storage("bfloat16"), steps=4))
    >>> done.outcome, [m.step for m in done.measures]
    ('finished', [0, 1, 2, 3, 4])
    """
    with one_thread():
        return _train(training, measure_at, progress, stop, None if checkpoint is None else Path(checkpoint), every)


def _train(
    training: Training,
    measure_at: list[int] | None,
    progress: Callable[[int, float], None] | None,
    stop: Callable[[], bool] | None,
    checkpoint: Path | None,
    every: int,
) -> History:
    wanted = set(places(training.steps) if measure_at is None else measure_at)
    watched, measures, outcome = Watched(training), [], FINISHED
    if checkpoint is not None and checkpoint.exists():
        measures = _resume(watched, checkpoint)
    run = watched.run
    while True:
        if run.step in wanted and (not measures or measures[-1].step < run.step):
            measures.append(run.measure())
        if run.step == training.steps:
            break
        if stop is not None and stop():
            outcome = STOPPED
            break
        if watched.advance() == NOT_FINITE:
            outcome = NOT_FINITE
            break
        if progress is not None:
            progress(run.step, run.loss)
        if checkpoint is not None and run.step % every == 0:
            _save(watched, measures, checkpoint)
    if checkpoint is not None and outcome != NOT_FINITE:
        _save(watched, measures, checkpoint)
    return History(outcome, run.step, measures, run, watched.origin, run.warnings())


def _save(watched: Watched, measures: list[Measure], path: Path) -> None:
    """Write the file whole or not at all."""
    watched.look()
    told = None if watched.origin is None else [watched.origin.step, watched.origin.slot]
    held = {
        "run": watched.run.state(),
        "measures": [[m.step, m.loss, m.gradient, m.accuracy] for m in measures],
        "origin": told,
    }
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", suffix=".tmp", delete=False) as file:
        try:
            torch.save(held, file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _resume(watched: Watched, path: Path) -> list[Measure]:
    try:
        held: dict[str, Any] = torch.load(path, weights_only=True)
        state, measures = held["run"], [Measure(*values) for values in held["measures"]]
        origin = None if held["origin"] is None else Origin(*held["origin"])
    except Exception as error:  # a damaged file raises whatever it likes
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"checkpoint {path} cannot be read ({reason[0] if reason else type(error).__name__})"
        ) from error
    watched.origin = origin
    watched.load(state)
    return measures
