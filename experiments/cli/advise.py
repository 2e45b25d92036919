"""Say before any training what a number format will do to an optimizer: whether the second moment freezes, which
weights stop moving, where the gradient's floor is, and the cheapest change that removes each problem. Every sentence
names its theorem, every prediction the command that simulates it. Without arguments: Adam with PyTorch's defaults in
bfloat16. Exit code 1 if --confirm contradicts a prediction."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import UsageError
from experiments.cli.record_file import check_file, write_file

if TYPE_CHECKING:
    from experiments.advise.finding import Checked, Finding
    from experiments.advise.setting import Setting
    from experiments.advise.target import Target

FLAGS = {
    "optimizer": ("NAME", "of fpsim.optim (default: adam)"),
    "lr": ("X", "learning rate (default, as for the next three: what the optimizer declares)"),
    "beta1": ("X", "decay of the first moment"),
    "beta2": ("X", "decay of the second moment"),
    "eps": ("X", "added to the denominator"),
    "format": ("FORMAT", "of everything without one of its own: bfloat16, float16, float8_e4m3fn, e8m10, .. (default: "
               "bfloat16)"),
    "rounding": ("MODE", "nearest_even, stochastic, .. (default: nearest_even)"),
    "w": ("CHOICE", "the weights' own format, rounding or both: float32, stochastic, 'e8m15 stochastic'"),
    "m": ("CHOICE", "likewise of the first moment"),
    "v": ("CHOICE", "likewise of the second moment"),
    "g": ("CHOICE", "likewise of the gradient"),
    "arithmetic": ("KIND", "eager (as PyTorch's kernels), fused (one kernel), rounded (every result) (default: eager)"),
    "weights": ("X", "typical size of a weight (default: 0.02)"),
    "gradients": ("X", "typical size of the gradient of one weight (default: 0.001)"),
    "noise": ("X", "standard deviation of that gradient (default: as --gradients)"),
    "curvature": ("X", "change of the gradient where its weight changes by 1 (default: gradients / weights)"),
    "steps": ("N", "of the training (default: 10000)"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", type=Path, help="a TOML file whose keys are these flags; flags win")
    for key, (metavar, text) in FLAGS.items():
        parser.add_argument(f"--{key}", metavar=metavar, help=text)
    parser.add_argument(
        "--set", dest="hyperparameters", metavar="NAME=X", action="append", help="any hyperparameter of an optimizer"
    )
    parser.add_argument(
        "--target-floor",
        metavar="X",
        help="also the least mantissa bits of w, m, v and g with which a theorem promises this gradient (root mean "
        "square, one weight)",
    )
    parser.add_argument("--confirm", action="store_true", help="simulate every prediction and print it beside")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write predictions, commands and simulations")


def run(args: argparse.Namespace) -> int:
    from experiments.advise.setting import SIZE, build, load
    from experiments.fields import StudyError, real

    from_file: dict[str, Any] = {}
    try:
        from_file = load(args.file) if args.file is not None else {}
        setting = build(from_file | _given(args, from_file))
        wanted = None if args.target_floor is None else float(real(SIZE)("target-floor", args.target_floor))
    except StudyError as error:
        raise UsageError(f"fpsim advise: error: {_origin(args, from_file, error)}") from error
    check_file("advise", args.json)
    return _advise(setting, wanted, args)


def _advise(setting: Setting, wanted: float | None, args: argparse.Namespace) -> int:
    from experiments.advise import printing
    from experiments.advise.advice import advise

    started, width = time.monotonic(), _width()
    print("\n".join([*printing.header(setting, width), ""]), flush=True)
    found = advise(setting)
    checked: list[Checked | None] = [None] * len(found)
    for place, x in enumerate(found):
        if args.confirm:
            checked[place] = _simulated(x, f"{place + 1} of {len(found)}")
        same = next((k + 1 for k, y in enumerate(found[:place]) if x.fixes and y.fixes == x.fixes), 0)
        print("\n".join([*printing.finding(place + 1, x, checked[place], width, same), ""]), flush=True)
    target = None
    if wanted is not None:
        target, seen = _target(setting, wanted, args.confirm, width)
        checked.append(seen)
    print("\n".join(printing.commands(found)))
    print("\n[T1] and the like are theorems: see fpsim verify --list; [R1] to [R7] are in theory/rounding_model.py")
    if args.json is not None:
        write_file(args.json, _record(setting, found, checked[: len(found)], target))
        print(f"record: {args.json}")
    wrong = sum(x is not None and x.ok is False for x in checked)
    if wrong:
        print(f"fpsim advise: {wrong} predictions were not confirmed: please report it", file=sys.stderr)
    if args.confirm or wanted is not None:
        from experiments.cli.progress import clock

        print(f"time: {clock(time.monotonic() - started)}")
    return 1 if wrong else 0


def _simulated(finding: Finding, place: str) -> Checked | None:
    from rich.console import Console

    from experiments.advise.advice import confirm

    with Console(stderr=True).status(f"fpsim advise: simulating {finding.topic} ({place})"):
        return next(confirm([finding]))


def _target(setting: Setting, wanted: float, confirm: bool, width: int) -> tuple[Target, Checked | None]:
    from experiments.advise import printing
    from experiments.advise.advice import reproduction
    from experiments.advise.target import prediction, solve

    found, seen = solve(setting, wanted), None
    print("\n".join(printing.target(found, width)), flush=True)
    if found.together is not None:
        kept = prediction(found)
        seen = _simulated(kept, "all widths together") if confirm else None
        print("\n".join([*printing.outcome(seen, width), f"   {reproduction(kept)}"]))
    print(flush=True)
    return found, seen


def _record(
    setting: Setting, found: Sequence[Finding], checked: Sequence[Checked | None], target: Target | None
) -> dict[str, Any]:
    from dataclasses import asdict

    from experiments.advise.advice import record
    from experiments.cell import package_version

    content = {"version": package_version(), "setting": asdict(setting), "findings": record(found, checked)}
    if target is not None:
        alone = [
            {"array": x.array, "rounding": x.rounding, "bits": x.bits, "theorem": x.floor.theorem} for x in target.alone
        ]
        together = None if target.together is None else dict(target.together[0].arrays)
        content["target"] = {"floor": target.floor, "alone": alone, "together": together, "lr": target.lr}
    return content


def _given(args: argparse.Namespace, from_file: dict[str, Any]) -> dict[str, Any]:
    from experiments.fields import StudyError

    given = {key: value for key in FLAGS if (value := getattr(args, key)) is not None}
    if args.hyperparameters is None:
        return given
    pairs: dict[str, Any] = {}
    for text in args.hyperparameters:
        if not re.match(r"[^\s=]+=", text):
            raise StudyError("set", f"{text!r} is not NAME=X")
        name, _, value = text.partition("=")
        if name in pairs:
            raise StudyError("set", f"{name} is given twice; give it once")
        pairs[name] = value
    table = from_file.get("hyperparameters", {})
    return given | {"hyperparameters": (table if isinstance(table, dict) else {}) | pairs}


def _origin(args: argparse.Namespace, from_file: dict[str, Any], error: Any) -> str:
    """The error with the place its value came from: a flag, or a key of the file."""
    key, _, name = error.key.partition(".")
    if key in from_file and getattr(args, key, None) is None:
        return f"{args.file}: {error}"
    return f"--set {name}: {error.message}" if key == "hyperparameters" else f"--{key}: {error.message}"


def _width() -> int:
    import shutil

    return min(max(shutil.get_terminal_size((100, 24)).columns, 40), 100)
