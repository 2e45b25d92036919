"""The CUDA machine on a card: everything is checked against the CPU machine bit for bit, then timed.

    python -m experiments.cuda_bench [--quick] [--json FILE]

It runs unattended, from a checkout, with nothing installed but numpy, numba, torch and triton. A job that fails is
recorded and the next one follows, in a new process where the old one is lost; the record is written after every row.
The exit status is 1 where a job failed or the card cannot be used.

Checks are shared out to several processes; times are taken by one process alone, as medians of device events, of calls
that take turns with the copy, on fresh random numbers and with outputs that are NaN before. A share is what the copy
takes for the same bytes, read and written, over what the kernel takes. First calls compile, into an empty cache.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_LIMIT = 240.0  # seconds of one job
_PROCESSES = 12  # for checks, at most: each compiles on one core, and holds a context of the card
_NEEDED = {
    "numpy": "numpy", "numba": "numba", "torch": "'torch>=2.11,<=2.13.0'", "mpmath": "mpmath", "triton": "triton",
}  # fmt: skip


def missing(device: str) -> str:
    """What this machine lacks, in one line, or an empty text."""
    lacks = []
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            lacks.append(f"{name} ({error})")
    if lacks:
        packages = " ".join(text for name, text in _NEEDED.items() if any(lack.startswith(name) for lack in lacks))
        return f"cannot import {', '.join(lacks)}: pip install {packages} (torch's CUDA builds bring triton)"
    if device == "cpu":
        return ""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA: nothing was timed"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA card or driver: nothing was timed"
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}; needed: at least 8.0"
    return ""


def _stages(parts: Sequence[str], sizes: str) -> list[list[tuple[str, int, int]]]:
    """Part, share and number of shares of the processes that work side by side, one stage after the other.

    At full sizes a process that takes times is alone; at small ones times mean little, and all but the preparation
    work at once.
    """
    from experiments.cuda_bench.parts import FIRST, SHARED

    most = max(1, min(_PROCESSES, (os.cpu_count() or 1) * 3 // 4))
    stages = []
    for part in parts:
        shares = most if part in SHARED else 1
        tasks = [(part, share, shares) for share in range(shares)]
        if sizes == "full" or not stages or stages[-1][0][0] == FIRST:
            stages.append(tasks)
        else:
            stages[-1] += tasks
    return stages


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.cuda_bench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--json", type=Path, help="write the record here, anew after every row")
    parser.add_argument("--quick", action="store_true", help="everything at small sizes, to see whether it works")
    help_device = "cpu: Triton's interpreter at tiny sizes, to try the script; its times mean nothing"
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=help_device)
    parser.add_argument("--part", action="append", help="only this part; may be given several times")
    chosen = parser.parse_args(argv)
    lack = missing(chosen.device)
    if lack:
        print(f"cuda_bench: {lack}", file=sys.stderr)
        return 1
    from experiments.cuda_bench.attend import attend, command_of, environment
    from experiments.cuda_bench.parts import PARTS
    from experiments.cuda_bench.record import Record

    for name in chosen.part or ():
        if name not in PARTS:
            parser.error(f"--part {name}; admissible: {', '.join(PARTS)}")
    sizes = "tiny" if chosen.device == "cpu" else "quick" if chosen.quick else "full"
    record = Record(chosen.device, sizes, chosen.json)
    print(record.title(), flush=True)
    with tempfile.TemporaryDirectory(prefix="cuda_bench_", ignore_cleanup_errors=True) as caches:
        env = environment(chosen.device, Path(caches))
        for tasks in _stages(chosen.part or list(PARTS), sizes):
            record.say(", ".join(dict.fromkeys(part for part, _, _ in tasks)))
            with ThreadPoolExecutor(len(tasks)) as pool:
                commands = [(part, command_of(part, chosen.device, sizes, *share)) for part, *share in tasks]
                waiting = [pool.submit(attend, part, command, env, _LIMIT, record.add) for part, command in commands]
                for one in waiting:
                    one.result()
    return record.finish()


if __name__ == "__main__":
    raise SystemExit(main())
