"""The Triton kernels on a card: built, checked against the CPU machine, then timed beside a copy in the same run.

    python -m experiments.cuda_bench [--json FILE] [--size-log2 28] [--parameters-log2 26]

It runs unattended and ends with status 1 where there is no card, no Triton, or a wrong bit; nothing is timed then.
Times are medians of device events, of calls that take turns with the copy; outputs are NaN before they are written.
A share is what the copy would have taken for the same bytes, read and written, over what the kernel took.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fpsim import arrays
from fpsim.formats import format
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic
from fpsim.run import run

KEY = Key(seed=7)
MODES: tuple[Rounding, ...] = (
    "nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd",
    Stochastic(16), Stochastic(32), Stochastic(16, "B"), Stochastic(24, "C"),
)  # fmt: skip
COUNTS = {"round": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "sqrt": 1, "fma": 3}
CHECKED = 1 << 16
REPEATS = 15
# Case -> the smallest share that is wanted.
TARGETS = {
    "round float32 nearest_even": 0.85, "round float32 stochastic16": 0.75,
    "adam float64 nearest_even": 0.80, "adam float64 stochastic16": 0.60,
    "adam float32 nearest_even": 0.70, "adam float32 stochastic16": 0.30,
}  # fmt: skip


class WrongResult(Exception):
    """The card and the CPU machine differ."""


def missing() -> str:
    """What this machine lacks, or an empty text."""
    try:
        import torch
    except ImportError:
        return "torch is not installed; needed: a CUDA build of torch, 2.11 to 2.13"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device; nothing was timed"
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}; needed: at least 8.0"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed; CUDA builds of torch bring it"
    return ""


def check(device: str = "cuda", size: int = CHECKED) -> int:
    """Compare with the CPU machine, bit for bit, ``size`` results of every case; the number of results compared."""
    import torch

    from fpsim.cuda.triton_arrays import elementwise

    rng = np.random.default_rng(1)
    compared = 0
    for name in ("bfloat16", "float8_e4m3fn", "e5m10", "e8m23", "e11m45"):
        fmt = format(name)
        for rounding in MODES:
            for kind, count in COUNTS.items():
                operands = [_values(rng, fmt.emin, fmt.emax, size) for _ in range(count)]
                wanted = getattr(arrays, kind)(*operands, fmt, rounding, KEY)
                given = [torch.from_numpy(x).to(device) for x in operands]
                found = elementwise(kind, given, fmt, rounding, KEY, out=torch.full_like(given[0], torch.nan))
                _same(f"{kind} {name} {rounding}", found, wanted)
                compared += wanted.size
    for optimizer in ("sgd", "adam"):
        for name in ("bfloat16", "float8_e4m3fn"):
            for rounding in MODES:
                compared += _check_program(optimizer, Precision.uniform(name, rounding), f"{name} {rounding}", device)
    return compared


def _values(rng: np.random.Generator, emin: int, emax: int, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Random numbers over a format's range and beyond, an eighth of them short, zeros, infinities and NaN."""
    x = np.ldexp(rng.standard_normal(size), rng.integers(max(emin - 30, -1074), min(emax + 3, 1000), size))
    short = rng.integers(-40, 41, size) * np.ldexp(1.0, rng.integers(max(emin - 12, -1074), 4, size))
    x = np.where(rng.random(size) < 0.125, short, x)
    x[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e308, -1e308]
    return np.asarray(rng.permutation(x))


def _check_program(optimizer: str, precision: Precision, title: str, device: str) -> int:
    from fpsim.cuda.triton_machine import TritonMachine

    program, d, lanes, steps = STEPS[optimizer], 257, 3, 5
    rng = np.random.default_rng(2)
    state = {name: np.abs(rng.standard_normal((d, lanes))) for name in program.state}
    inputs = {"g": rng.standard_normal((steps, d, lanes))}
    wanted = run(program, state, inputs, precision, KEY, steps=steps)
    machine = TritonMachine(program, [precision], lanes, d, KEY, np.arange(lanes), device=device)
    machine.load(state)
    machine.run(steps, inputs)
    for name in program.state:
        _same(f"{optimizer} {title} {name}", machine.state(name), wanted.state[name])
    return len(program.state) * d * lanes


def _same(title: str, found: Any, wanted: np.ndarray[Any, Any]) -> None:
    ours = found.cpu().numpy()
    wrong = int((ours.view(np.uint64) != wanted.view(np.uint64)).sum())
    if wrong:
        raise WrongResult(f"{title}: {wrong} of {wanted.size} results are not those of the CPU machine")


def timed(size: int, parameters: int) -> list[dict[str, Any]]:
    """One row for each case: name, picoseconds for an element, share of the copy, and the share that is wanted."""
    rows = [_row(case, *found) for case, found in _roundings(size).items()]
    for dtype in ("float64", "float32"):
        for rounding in ("nearest_even", Stochastic(16)):
            rows.append(_row(f"adam {dtype} {rounding}", *_adam(dtype, rounding, parameters)))
    return rows


def _row(case: str, seconds: float, copied: float, count: int) -> dict[str, Any]:
    share = copied / seconds
    return {
        "case": case, "elements": count, "picoseconds": seconds / count * 1e12, "share": share,
        "target": TARGETS[case], "met": share >= TARGETS[case],
    }  # fmt: skip


def _roundings(size: int) -> Mapping[str, tuple[float, float, int]]:
    import torch

    from fpsim.cuda.triton_arrays import elementwise

    x = torch.randn(size, device="cuda")
    out = torch.full_like(x, torch.nan)
    fmt = format("bfloat16")
    calls: dict[str, Callable[[], object]] = {"copy": lambda: out.copy_(x)}
    for rounding in ("nearest_even", Stochastic(16)):
        calls[f"round float32 {rounding}"] = lambda rounding=rounding: elementwise(  # type: ignore[misc]
            "round", [x], fmt, rounding, KEY, out=out
        )
    seconds = _medians(calls)
    copied = seconds.pop("copy")
    return {case: (took, copied, size) for case, took in seconds.items()}


def _adam(dtype: str, rounding: Rounding, count: int) -> tuple[float, float, int]:
    """One step: w, m, v and g are read, w, m and v written; the copy moves as many bytes."""
    import torch

    from fpsim.cuda.triton_machine import TritonMachine

    kind = getattr(torch, dtype)
    precision = Precision.uniform("bfloat16", rounding)
    machine = TritonMachine(STEPS["adam"], [precision], 1, count, KEY, [0], dtype=kind)
    draw = torch.Generator(device="cuda").manual_seed(3)
    w, g = (torch.randn(count, device="cuda", dtype=kind, generator=draw) for _ in range(2))
    machine.load({"w": w, "m": torch.zeros_like(w), "v": torch.zeros_like(w)}, {"g": g})
    step = machine.prepared(1, {}, {})
    source = torch.randn(count * 7 // 2, device="cuda", dtype=kind, generator=draw)
    target = torch.empty_like(source)
    seconds = _medians({"copy": lambda: target.copy_(source), "step": step})
    return seconds["step"], seconds["copy"], count


def _medians(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median device seconds of calls that take turns, after three of each that are not counted."""
    import torch

    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(REPEATS + 3):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            if turn >= 3:
                samples[name].append(begin.elapsed_time(end) / 1e3)
    return {name: statistics.median(found) for name, found in samples.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.cuda_bench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--size-log2", type=int, default=28, help="float32 numbers that are rounded (default: 28)")
    parser.add_argument("--parameters-log2", type=int, default=26, help="parameters of an Adam step (default: 26)")
    chosen = parser.parse_args(argv)
    lack = missing()
    if lack:
        print(f"cuda_bench: {lack}", file=sys.stderr)
        return 1
    import torch
    import triton

    begin = time.perf_counter()
    try:
        compared = check()
    except WrongResult as wrong:
        print(f"cuda_bench: {wrong}", file=sys.stderr)
        return 1
    print(f"{torch.cuda.get_device_name()}: {compared} results equal the CPU machine's; timing")
    rows = timed(1 << chosen.size_log2, 1 << chosen.parameters_log2)
    for row in rows:
        verdict = "met" if row["met"] else "missed"
        print(f"{row['case']:32} {row['picoseconds']:8.2f} ps  {row['share']:6.1%} of the copy, "
              f"wanted {row['target']:.0%}: {verdict}")  # fmt: skip
    record = {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "device": torch.cuda.get_device_name(),
        "system": platform.platform(), "python": platform.python_version(),
        "versions": {"torch": torch.__version__, "triton": triton.__version__, "numpy": np.__version__},
        "compared": compared, "repeats": REPEATS, "seconds": time.perf_counter() - begin, "rows": rows,
    }  # fmt: skip
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"record: {chosen.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
