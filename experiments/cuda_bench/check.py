"""Bit identity with the CPU machine: array functions, printed programs, sums, products, and the public names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.rows import KEY, Job, Row, Sizes, WrongResult, same
from fpsim import arrays, contractions
from fpsim.accumulator import Accumulator
from fpsim.formats import format
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.rounding import Rounding, Stochastic
from fpsim.run import run

COUNTS = {"round": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "sqrt": 1, "fma": 3}
ORDERS: tuple[dict[str, Any], ...] = (
    {}, {"fma": True}, {"order": "blocked", "block": 5}, {"order": "kahan"}, {"order": "pairwise"},
)  # fmt: skip
_SLOW = "e11m45"  # a whole program of the exact tier takes the compiler a dozen seconds: every fourth mode only
_SHOWN = 3  # errors of a job that its row quotes
Array = np.ndarray[Any, np.dtype[Any]]
Cases = Iterator[tuple[str, Callable[[], int]]]


def jobs(clock: Clock, sizes: Sizes) -> list[Job]:
    device = clock.device
    listed = []
    for mode in sizes.modes:
        listed.append(_job(f"array functions {mode}", partial(_functions, mode, device, sizes)))
    for mode in sizes.modes:
        listed.append(_job(f"programs {mode}", partial(_programs, mode, device, sizes)))
    for mode in (sizes.modes[0], sizes.modes[-1]):
        for name in sizes.formats:
            listed.append(_job(f"sums and products {name} {mode}", partial(_contractions, name, mode, device)))
    return [*listed, _job("public names", partial(_public, device, sizes))]


def values(rng: np.random.Generator, emin: int, emax: int, size: int) -> Array:
    """Random numbers over a format's range and beyond, an eighth of them short, zeros, infinities and NaN."""
    x = np.ldexp(rng.standard_normal(size), rng.integers(max(emin - 30, -1074), min(emax + 3, 1000), size))
    short = rng.integers(-40, 41, size) * np.ldexp(1.0, rng.integers(max(emin - 12, -1074), 4, size))
    x = np.where(rng.random(size) < 0.125, short, x)
    x[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e308, -1e308]
    return np.asarray(rng.permutation(x))


def tensor(x: Array, device: str) -> Any:
    """A copy of an array on the device."""
    import torch

    return torch.from_numpy(x).to(device)


def _job(case: str, cases: Callable[[], Cases]) -> Job:
    return Job(case, partial(_row, case, cases))


def _row(case: str, cases: Callable[[], Cases]) -> Row:
    """All cases of a job: what one raises does not keep the others from being run."""
    compared, failed = 0, []
    for title, compare in cases():
        try:
            compared += compare()
        except Exception as error:
            failed.append(str(error) if isinstance(error, WrongResult) else f"{title}: {type(error).__name__}: {error}")
    if failed:
        more = f"; and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        raise WrongResult(f"{len(failed)} cases failed: {'; '.join(failed[:_SHOWN])}{more}")
    return Row(case=case, value=compared, unit="results are those of the CPU", elements=compared)


def _functions(mode: Rounding, device: str, sizes: Sizes) -> Cases:
    for name in sizes.formats:
        for kind in COUNTS:
            yield f"{kind} {name} {mode}", partial(_function, kind, name, mode, device, sizes)


def _function(kind: str, name: str, mode: Rounding, device: str, sizes: Sizes) -> int:
    from fpsim.cuda.triton_arrays import elementwise

    fmt, rng = format(name), np.random.default_rng(1)
    operands = [values(rng, fmt.emin, fmt.emax, sizes.checked) for _ in range(COUNTS[kind])]
    wanted = getattr(arrays, kind)(*operands, fmt, mode, KEY)
    given = [tensor(x, device) for x in operands]
    found = elementwise(kind, given, fmt, mode, KEY, out=tensor(np.full(sizes.checked, np.nan), device))
    return same(f"{kind} {name} {mode}", found, wanted)


def _programs(mode: Rounding, device: str, sizes: Sizes) -> Cases:
    for optimizer in ("sgd", "adam"):
        for name in sizes.formats:
            if name == _SLOW and mode not in sizes.modes[::4]:
                continue
            for dtype in ("float64", "float32"):
                if dtype == "float64" or format("binary32").holds(format(name)):
                    title = f"{optimizer} {name} {mode} {dtype}"
                    yield title, partial(_program, title, optimizer, Precision.uniform(name, mode), dtype, device)


def _program(title: str, optimizer: str, precision: Precision, dtype: str, device: str) -> int:
    import torch

    from fpsim.cuda.triton_machine import TritonMachine

    program, d, lanes, steps = STEPS[optimizer], 257, 3, 5
    rng = np.random.default_rng(2)
    state = {name: np.abs(rng.standard_normal((d, lanes))) for name in program.state}
    inputs = {"g": rng.standard_normal((steps, d, lanes))}
    wanted = run(program, state, inputs, precision, KEY, steps=steps)
    machine = TritonMachine(
        program, [precision], lanes, d, KEY, np.arange(lanes), device=device, dtype=getattr(torch, dtype)
    )
    machine.load(state)
    machine.run(steps, inputs)
    return sum(same(f"{title} {name}", machine.state(name).double(), wanted.state[name]) for name in program.state)


def _contractions(name: str, mode: Rounding, device: str) -> Cases:
    for order in ORDERS:
        how = Accumulator(name, name, product_rounding=mode, sum_rounding=mode, **order)
        title = f"{'fma' if how.fma else how.order} {name} {mode}"
        yield f"matmul {title}", partial(_product, title, how, device)
        if not how.fma:
            yield f"sum {title}", partial(_sum, title, how, device)


def _product(title: str, how: Accumulator, device: str) -> int:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(shape) for shape in ((17, 37), (37, 29)))
    found = contractions.matmul(*(tensor(x, device) for x in (a, b)), how, key=KEY)
    _stays(f"matmul {title}", found, device)
    return same(f"matmul {title}", found, contractions.matmul(a, b, how, key=KEY))


def _sum(title: str, how: Accumulator, device: str) -> int:
    x = np.random.default_rng(4).standard_normal((41, 53))
    found = contractions.sum(tensor(x, device), how, key=KEY, axis=0)
    _stays(f"sum {title}", found, device)
    return same(f"sum {title}", found, contractions.sum(x, how, key=KEY, axis=0))


def _public(device: str, sizes: Sizes) -> Cases:
    """What a user calls: array functions of tensors on the card, and ``run`` with the card's name."""
    for mode in ("nearest_even", Stochastic(16)):
        for kind in COUNTS:
            yield f"fpsim.{kind} {mode}", partial(_public_function, kind, mode, device, sizes)
        yield f"fpsim.run {mode}", partial(_public_run, mode, device)


def _public_function(kind: str, mode: Rounding, device: str, sizes: Sizes) -> int:
    rng, fmt = np.random.default_rng(5), format("bfloat16")
    operands = [values(rng, fmt.emin, fmt.emax, sizes.checked) for _ in range(COUNTS[kind])]
    found = getattr(arrays, kind)(*(tensor(x, device) for x in operands), fmt, mode, KEY)
    _stays(f"fpsim.{kind}", found, device)
    return same(f"fpsim.{kind} {mode}", found, getattr(arrays, kind)(*operands, fmt, mode, KEY))


def _public_run(mode: Rounding, device: str) -> int:
    rng, program = np.random.default_rng(6), STEPS["adam"]
    state = {name: np.abs(rng.standard_normal((65, 2))) for name in program.state}
    inputs = {"g": rng.standard_normal((3, 65, 2))}
    found, wanted = (
        run(program, state, inputs, Precision.uniform("bfloat16", mode), KEY, steps=3, device=name).state
        for name in ("cuda" if device == "cuda" else "torch", "cpu")
    )
    return sum(same(f"fpsim.run {mode} {name}", found[name], wanted[name]) for name in wanted)


def _stays(title: str, found: Any, device: str) -> None:
    if found.device.type != device:
        raise WrongResult(f"{title}: a tensor on {device} gave one on {found.device}")
