"""Run optimizers at many mantissa widths, with every operation rounded, and hold the measured floors against
proven bounds. Without arguments: SGD, RMSprop and Adam on three problems, 1..23 mantissa bits, round to nearest
and stochastic rounding. Finished cells are kept; the same command resumes with the missing ones."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.cli import UsageError

FLAGS = {
    "optimizer": ("NAMES", "optimizers, comma-separated (default: sgd,rmsprop,adam)"),
    "problem": ("NAMES", "problems, comma-separated (default: quadratic,rational,logistic); networks: mlp-digits, .."),
    "mantissa": ("WIDTHS", "stored mantissa bits: 7, 2,7, 1..4,8 or 'ceil(4+log2(T))' (default: 1..23)"),
    "exponent": ("WIDTHS", "exponent bits, written likewise (default: 8)"),
    "rounding": ("NAMES", "rounding modes, comma-separated (default: nearest_even,stochastic)"),
    "random_bits": ("N", "random bits of one stochastic rounding (default: 16)"),
    "seeds": ("N", "runs of each cell; a seed sets start point, noise and random bits (default: 8)"),
    "seed": ("N", "the root of all random bits (default: 0)"),
}
# These have one default for each optimizer and problem; the header of a run prints them. Each may be a list.
CONSTANTS = {
    "steps": ("N", "optimizer steps, T"),
    "lr": ("X", "learning rate: a number, or a schedule in the step t and T: '0.1/sqrt(t)'"),
    "beta1": ("X", "decay of the first moment"),
    "beta2": ("X", "decay of the second moment: '1 - 1/T'"),
    "eps": ("X", "added to the denominator"),
    "noise": ("KIND", "gradient noise: none, gaussian or minibatch"),
    "sigma": ("X", "standard deviation of gaussian noise, each coordinate"),
    "batch": ("N", "samples of a minibatch"),
    "gradient": ("KIND", "rounded (every operation), exact (in binary64, then stored), stored (networks, by PyTorch)"),
    "dimension": ("N", "number of weights, where the problem leaves it open"),
    "window": ("SHARE", "share of the steps, at the end, that is measured"),
}

MOST_FIGURES = 8  # of a grid over more than formats and roundings

# Tables of a study, and the flags that give one line of them each.
_PAIRS = {"hyperparameters": "set", "options": "option", "overrides": "override"}
# How and where, which a study file does not say: results do not depend on it.
_HOW = ("engine", "workers", "scheduler", "cluster", "device", "out", "dry_run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    grid = parser.add_argument_group("what to run")
    grid.add_argument(
        "--study", metavar="FILE", type=Path, help="a TOML file whose keys are these flags, and more; flags win"
    )
    for key, (metavar, text) in FLAGS.items():
        grid.add_argument(_flag(key), dest=key, metavar=metavar, help=text)
    constants = parser.add_argument_group("constants (default: one for each optimizer and problem, see --dry-run)")
    for key, (metavar, text) in CONSTANTS.items():
        constants.add_argument(_flag(key), dest=key, metavar=metavar, help=text)
    constants.add_argument(
        "--set", dest="hyperparameters", metavar="NAME=X", action="append", help="any hyperparameter of an optimizer"
    )
    constants.add_argument(
        "--option", dest="options", metavar="NAME=X", action="append", help="an option of a problem, such as condition"
    )
    constants.add_argument(
        "--override",
        dest="overrides",
        metavar="SLOTS=CHOICE",
        action="append",
        help="format, rounding or both of some slots: v=e5m10, w,w.sub=stochastic, 'update.*=bfloat16 stochastic'",
    )
    how = parser.add_argument_group("how and where")
    how.add_argument(
        "--engine", metavar="ENGINE", default="threads", help="serial, threads, processes or dask (default: threads)"
    )
    how.add_argument("--workers", metavar="N", help="batches at a time (default: the processors this process may use)")
    how.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, such as tcp://host:8786")
    how.add_argument(
        "--cluster", metavar="KIND", help="start Dask workers by a batch system: slurm, pbs, sge, lsf, ..."
    )
    how.add_argument(
        "--device", metavar="DEVICE", default="cpu",
        help="cpu, cuda (one process owns the card), or torch, its portable twin: the same rows (default: cpu)",
    )  # fmt: skip
    how.add_argument(
        "--out", metavar="DIR", type=_folder, default=Path("fpsim-results/scan"), help="default: %(default)s"
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="print constants, cells, batches, expected time and memory; write nothing",
    )


def run(args: argparse.Namespace) -> int:
    from experiments import backends, engine, store
    from experiments.devices import check_device
    from experiments.fields import StudyError, integer

    try:
        study = _study(args)
        backends.check_engine(args.engine, args.scheduler, args.cluster)
        check_device(args.device, args.engine)
        workers = engine.available_workers() if args.workers is None else integer(1, 4096)("workers", args.workers)
        cells = study.cells()
        header = _header(study, cells)
    except StudyError as error:
        raise UsageError(f"fpsim scan: error: {_origin(args, error)}") from error
    except ValueError as error:  # a value that only the problem itself can refuse
        raise UsageError(f"fpsim scan: error: {' '.join(str(error).split())}") from error
    if args.dry_run:
        return _dry_run(args, header, cells, workers)
    try:
        store.prepare(args.out)
    except store.StoreError as error:
        raise UsageError(f"fpsim scan: error: --out: {error}") from error
    try:
        return _scan(args, study, cells, workers, header)
    except StudyError as error:  # a scheduler that does not answer shows only now
        raise UsageError(f"fpsim scan: error: {_origin(args, error)}") from error
    except store.StoreError as error:  # the disk is full, say
        print(f"fpsim scan: stopped: {error}; finished cells are kept, the same command resumes", file=sys.stderr)
        return 1


def _scan(args: argparse.Namespace, study: Any, cells: Sequence[Any], workers: int, header: list[str]) -> int:
    import msgspec

    from experiments import drivers, engine, store
    from experiments.cli.progress import Progress, clock
    from experiments.meter import Meter

    started = time.monotonic()
    keys = [cell.key for cell in cells]
    kept = store.look(args.out, keys)
    missing = [cell for cell in cells if cell.key not in kept.finished]
    work = engine.batches(missing, workers)
    print("\n".join(header))
    print(f"engine: {args.engine}, {workers} workers, {len(work)} batches; results: {args.out}")
    _print_device(args.device, work)
    if kept.finished:
        there = f"{len(kept.finished)} of {len(cells)} cells are finished in {args.out}"
        print(f"resuming: {there}, {len(missing)} to run")
    print(flush=True)
    for line in kept.damaged:
        print(f"fpsim scan: {line}", file=sys.stderr)

    reasons: set[str] = set()

    def finished(done: Sequence[Any], made: list[dict[str, Any]] | None, error: BaseException | None) -> None:
        said = engine.describe(error)[0] if error is not None else ""
        for i, cell in enumerate(done):
            reason = said if made is None else made[i]["reason"] if made[i]["outcome"] == store.FAILED else ""
            if reason and reason not in reasons:  # the table lists every failed cell
                reasons.add(reason)
                which = f"{cell.optimizer} {cell.problem} {cell.rounding} m={cell.mantissa_bits}"
                progress.say(f"fpsim scan: {which} failed: {reason}")
        progress.advance(cells=len(done))

    stop, meter = engine.Stop(), Meter(workers)
    plan = drivers.Plan(msgspec.to_builtins(study), keys)
    how = {"engine": args.engine, "workers": workers}
    told_of = how if args.device == "cpu" else how | {"device": args.device}
    with (
        engine.stop_on_signals(stop),
        drivers.Heartbeat(args.out, plan, told_of, meter.state) as heart,
        Progress(len(missing), sum(cell.cost for cell in missing), left=meter.left) as progress,
    ):
        stop.noticed = lambda: progress.say("fpsim scan: stopping; finished cells are kept (once more: at once)")
        if work:
            where = how | {"scheduler": args.scheduler, "cluster": args.cluster, "out": args.out}
            told = {"advance": progress.advance, "meter": meter, "stop": stop, "others": heart.others}
            if args.device != "cpu":
                from experiments.runs import runner_of

                told["runner"] = runner_of(device=args.device)
            engine.execute(work, finished, **where, **told)
    kept = store.look(args.out, keys)
    rows = store.read_cells(args.out, [key for key in keys if key in kept.finished or key in kept.failed])
    if len(rows):
        _publish(args.out, study, rows, len(cells))
    print(f"time: {clock(time.monotonic() - started)}")
    return _end(args.out, rows.select("outcome", "verdict").to_dicts(), len(cells), stop.signal)


def _publish(out: Path, study: Any, frame: Any, cells: int) -> None:
    """Write the merged file, print the table, draw the figure: of all that is there."""
    from experiments import store
    from experiments.cli.scan_table import print_table, variants

    merged = store.write_scan(out, study, frame, cells)
    rows = frame.to_dicts()
    print_table(rows)
    from paper_figures import floors

    labels = variants(rows)
    several = list(dict.fromkeys(labels))
    figures: list[Path] = []
    for number, variant in enumerate(several[:MOST_FIGURES], start=1):
        chosen = [row for row, label in zip(rows, labels, strict=True) if label == variant]
        named = {"name": f"floors_{number}", "note": variant} if len(several) > 1 else {}
        figures += floors.build(chosen, out, **named)
    print(f"\ntable: {merged} ({len(rows)} of {cells} cells, one row each)")
    if figures:
        print(f"figure: {', '.join(str(path) for path in figures)}")
    if len(several) > MOST_FIGURES:
        print(f"figure: of the first {MOST_FIGURES} of {len(several)} variants; the table has them all")


def _end(out: Path, rows: Sequence[dict[str, Any]], cells: int, signal: int | None) -> int:
    """Say what went wrong, if anything, and turn it into an exit code."""
    from experiments.store import FAILED

    failed = sum(row["outcome"] == FAILED for row in rows)
    violated = sum(row["verdict"] == "violated" for row in rows)
    if violated:
        print(f"fpsim scan: {violated} cells violate a proven bound, which is a bug: please report it", file=sys.stderr)
    if failed:
        print(f"fpsim scan: {failed} cells failed; the same command tries only them again", file=sys.stderr)
    if signal is not None and len(rows) < cells:
        there = (
            f"{len(rows) - failed} of {cells} cells are finished and kept in {out}" if rows else "no cell was finished"
        )
        print(f"fpsim scan: interrupted; {there}; the same command resumes with the rest", file=sys.stderr)
        return 128 + signal
    return 1 if failed or violated else 0


def _dry_run(args: argparse.Namespace, header: list[str], cells: Sequence[Any], workers: int) -> int:
    from experiments import engine, store
    from experiments.cli.progress import clock
    from experiments.cli.scan_header import spans
    from experiments.estimate import estimate

    finished = store.look(args.out, [cell.key for cell in cells]).finished
    missing = [cell for cell in cells if cell.key not in finished]
    work = engine.batches(missing, workers)
    print("\n".join(header))
    print(f"to run: {len(missing)} of {len(cells)} cells ({len(finished)} are finished in {args.out})")
    cost = sum(batch.cost for batch in work)
    print(f"batches: {len(work)} on {workers} {args.engine} workers; {cost:.3g} element-steps")
    for line in _listed([_batch_line(batch, spans) for batch in work]):
        print(f"  {line}")
    _print_device(args.device, work)
    if work:
        at_a_time = 1 if args.engine == "serial" else workers
        where = {} if args.device == "cpu" else {"device": args.device}
        expected = estimate([batch.cells for batch in work], at_a_time, **where)
        at_a_time = at_a_time if args.device == "cpu" else 1
        unit = "CPU-seconds" if args.device == "cpu" else "seconds"
        print(
            f"expected: {expected.seconds:.3g} {unit}, {clock(expected.wall)} with {at_a_time} at a time "
            f"(some steps and a short cell of each optimizer were run); {_size(expected.bytes)} of arrays at a time"
        )
    return 0


def _print_device(device: str, work: Sequence[Any]) -> None:
    """How many batches a device takes, where one was asked for."""
    if device == "cpu":
        return
    from experiments.trajectory import goes_to_device

    there = sum(goes_to_device(batch.cells[0]) for batch in work)
    rest = "" if there == len(work) else "; the others, such as functions and networks, run on the CPU"
    print(f"device: {device} runs the steps of {there} of {len(work)} batches{rest}")


MOST_BATCHES = 40  # lines of a dry run


def _batch_line(batch: Any, spans: Any) -> str:
    first = batch.cells[0]
    widths: dict[int, list[int]] = {}
    for cell in batch.cells:
        widths.setdefault(cell.exponent_bits, []).append(cell.mantissa_bits)
    formats = " ".join(f"e{exponent}m{spans(mantissas)}" for exponent, mantissas in widths.items())
    cells = f"{len(batch.cells)} cell{'s' * (len(batch.cells) > 1)}"
    return f"{first.optimizer} {first.problem} {first.rounding}: {formats} ({cells}, {batch.cost:.3g})"


def _listed(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST_BATCHES else [*lines[:MOST_BATCHES], f".. {len(lines) - MOST_BATCHES} more"]


def _size(count: int) -> str:
    """Such as ``12.3 MiB``."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.3g} {unit}"


def _header(study: Any, cells: Sequence[Any]) -> list[str]:
    from experiments.cli.scan_header import header

    return header(study, cells)


def _study(args: argparse.Namespace) -> Any:
    from experiments.fields import StudyError
    from experiments.study import Study, load

    given = {key: value for key in (*FLAGS, *CONSTANTS) if (value := getattr(args, key)) is not None}
    from_file = load(args.study) if args.study is not None else {}
    for key, flag in _PAIRS.items():
        if getattr(args, key) is not None:
            table = from_file.get(key, {})
            given[key] = (table if isinstance(table, dict) else {}) | _pairs(flag, getattr(args, key))
    for key in _HOW:
        if key in from_file:
            raise StudyError("study", f"{args.study}: {key!r} is no part of a study; give the flag {_flag(key)}")
    return Study.build(from_file | given)


def _pairs(flag: str, texts: Sequence[str]) -> dict[str, Any]:
    """A table of the texts NAME=X of a flag; of --override one choice stands for several slots."""
    from experiments.fields import StudyError

    pairs: dict[str, Any] = {}
    for text in texts:
        if not re.match(r"[^\s=]+=", text):
            raise StudyError(flag, f"{text!r} is not NAME=X")
        names, _, value = text.partition("=")
        for name in names.split(",") if flag == "override" else [names]:
            if name in pairs:
                count = sum(other.partition("=")[0] == name for other in texts)
                advice = "give it once" if flag == "override" else f"give it once, as {name}=X,Y"
                raise StudyError(flag, f"{name} is given {max(count, 2)} times; {advice}")
            pairs[name] = _plain(value) if flag == "option" else value
    return pairs


def _plain(text: str) -> float | int | str | bool:
    """The value of an option as TOML would read it: a number, true or false, else a text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _origin(args: argparse.Namespace, error: Any) -> str:
    """The error with the place its value came from: a flag, or a key of the study file."""
    key, _, name = error.key.partition(".")
    if args.study is not None and key not in ("study", *_PAIRS.values(), *_HOW) and getattr(args, key, None) is None:
        return f"{args.study}: {error.key}: {error.message}"
    if key in _PAIRS and name:
        return f"--{_PAIRS[key]} {name}: {error.message}"
    return f"{_flag(error.key)}: {error.message}"


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder; name one, or . for this one")
    return Path(text)


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
