"""A study run from Python: the same cells, store and engines as ``fpsim scan``, and a table at the end."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from experiments import engine as engines
from experiments import store
from experiments.backends import check_engine
from experiments.cell import Cell
from experiments.devices import check_device
from experiments.fields import integer
from experiments.registry import NOTHING, Own
from experiments.schema import frame_of
from experiments.worker import Runner

if TYPE_CHECKING:
    from experiments.study import Study


def run_study(
    study: Study,
    out: Path | str | None = None,
    *,
    engine: str = "threads",
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "cpu",
) -> pl.DataFrame:
    """Run every cell of a study and give the table, a row for each cell in the order of ``study.cells()``.

    Parameters
    ----------
    study : Study
    out : folder for the results; finished cells that it holds are not run again. None keeps nothing.
    engine, workers, scheduler, device : as for ``fpsim scan``

    Raises
    ------
    StudyError
        The study cannot run, or brings what another process could not be sent; before any work.
    experiments.store.StoreError
        The folder cannot be written.

    Notes
    -----
    A cell that fails is a row whose ``outcome`` is ``"failed"`` and whose ``reason`` says why.
    """
    check_engine(engine, scheduler)
    check_device(device, engine)
    if engine in ("processes", "dask"):
        study.own.check_portable(engine)
    number = engines.available_workers() if workers is None else integer(1, 4096)("workers", workers)
    cells = study.cells()
    study.check(cells)
    keys = [cell.key for cell in cells]
    rows: dict[str, store.Row] = {}
    missing = cells
    if out is not None:
        out = Path(out)
        store.prepare(out)
        kept = store.look(out, keys)
        missing = [cell for cell in cells if cell.key not in kept.finished]

    def finished(done: Sequence[Cell], made: list[store.Row] | None, error: BaseException | None) -> None:
        reason = engines.describe(error)[0] if error is not None else ""
        rows.update((row["key"], row) for row in made or [store.failed_row(cell, reason) for cell in done])

    where: dict[str, Any] = {"engine": engine, "workers": number, "scheduler": scheduler, "out": out}
    engines.execute(engines.batches(missing, number), finished, **where, runner=runner_of(study.own, device))
    if out is None:
        return frame_of([rows[key] for key in keys if key in rows])
    kept = store.look(out, keys)
    table = store.read_cells(out, [key for key in keys if key in kept.finished or key in kept.failed])
    store.write_scan(out, study, table, len(cells))
    return table


def runner_of(own: Own = NOTHING, device: str = "cpu") -> Runner | None:
    """What runs a batch of a study: None, the usual one, unless the study brings something itself or has a device."""
    if not own and device == "cpu":
        return None
    from experiments.simulate import run_batch

    return functools.partial(run_batch, own=own, device=device)
