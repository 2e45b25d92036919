"""The copy rate, roundings of float32 numbers, and Adam steps: shares of what the copy takes for the same bytes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.rows import KEY, Job, Row, Sizes, WrongResult, same
from fpsim import arrays
from fpsim.formats import format
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.rounding import Rounding, Stochastic
from fpsim.run import run

# Case -> the smallest share of the copy that is wanted.
TARGETS = {
    "round float32 nearest_even": 0.85, "round float32 stochastic16": 0.75,
    "adam float64 nearest_even": 0.80, "adam float64 stochastic16": 0.60,
    "adam float32 nearest_even": 0.70, "adam float32 stochastic16": 0.30,
}  # fmt: skip
_FORMAT = "bfloat16"
_MOVED = 7  # numbers for one parameter of Adam: w, m, v and g are read, w, m and v written


def jobs(clock: Clock, sizes: Sizes) -> list[Job]:
    modes: tuple[Rounding, ...] = ("nearest_even", Stochastic(16))
    listed = [Job("copy float32", partial(_copy, clock, sizes))]
    for mode in modes:
        case = f"round float32 {mode}"
        listed.append(Job(case, partial(_round, case, mode, clock, sizes)))
    for dtype in ("float64", "float32"):
        for mode in modes:
            case = f"adam {dtype} {mode}"
            listed.append(Job(case, partial(_adam, case, dtype, mode, clock, sizes)))
    return listed


def _copy(clock: Clock, sizes: Sizes) -> Row:
    import torch

    count = clock.fitting(sizes.elements, 8, sizes.least)
    x = torch.empty(count, device=clock.device)
    out = torch.empty_like(x)

    def fresh() -> None:
        x.normal_()
        out.fill_(torch.nan)

    first = clock.first(lambda: out.copy_(x))
    seconds = clock.medians({"copy": lambda: out.copy_(x)}, sizes.repeats, fresh)["copy"]
    return Row(value=8 * count / seconds / 1e12, unit="TB/s", seconds=seconds, first_call=first, elements=count)


def _share(case: str, count: int, wanted: int, seconds: float, copied: float, first: float, sizes: Sizes) -> Row:
    target = TARGETS[case] if sizes.full and count == wanted else None
    return Row(
        value=copied / seconds, unit="of the copy", target=target, seconds=seconds, first_call=first, elements=count
    )


def _round(case: str, mode: Rounding, clock: Clock, sizes: Sizes) -> Row:
    import torch

    from fpsim.cuda.triton_arrays import elementwise

    count = clock.fitting(sizes.elements, 8, sizes.least)
    fmt = format(_FORMAT)
    x = torch.empty(count, device=clock.device)
    out = torch.empty_like(x)

    def fresh() -> None:
        x.normal_()
        out.fill_(torch.nan)

    def rounding() -> None:
        elementwise("round", [x], fmt, mode, KEY, out=out)

    fresh()
    first = clock.first(rounding)
    seconds = clock.medians({"copy": lambda: out.copy_(x), "round": rounding}, sizes.repeats, fresh)
    compared = sizes.checked  # random bits are numbered from the front; the last call was a rounding
    same(case, out[:compared], arrays.round(x[:compared].cpu().numpy(), fmt, mode, KEY))
    if bool(out.isnan().any()):
        raise WrongResult(f"{case}: some of {count} results were not written")
    return _share(case, count, sizes.elements, seconds["round"], seconds["copy"], first, sizes)


def _adam(case: str, dtype: str, mode: Rounding, clock: Clock, sizes: Sizes) -> Row:
    import torch

    from fpsim.cuda.triton_machine import TritonMachine

    kind = getattr(torch, dtype)
    width = torch.empty(0, dtype=kind).element_size()
    # The machine's four arrays, what is loaded and rounded, and the copy's source and target.
    count = clock.fitting(sizes.parameters, (4 + 4 + _MOVED) * width, sizes.least)
    program, precision = STEPS["adam"], Precision.uniform(_FORMAT, mode)
    machine = TritonMachine(program, [precision], 1, count, KEY, [0], device=clock.device, dtype=kind)
    w, g = (torch.empty(count, device=clock.device, dtype=kind) for _ in range(2))
    source = torch.empty(count * _MOVED // 2, device=clock.device, dtype=kind).normal_()
    target = torch.empty_like(source)
    zeros = torch.zeros((), device=clock.device, dtype=kind).expand(count)

    def fresh() -> None:
        machine.load({"w": w.normal_(), "m": zeros, "v": zeros}, {"g": g.normal_()})

    fresh()
    step = machine.prepared(1, {}, {})
    first = clock.first(step)
    seconds = clock.medians({"copy": lambda: target.copy_(source), "step": step}, sizes.repeats, fresh)
    _check(case, machine, w, precision, sizes)
    return _share(case, count, sizes.parameters, seconds["step"], seconds["copy"], first, sizes)


def _check(case: str, machine: Any, w: Any, precision: Precision, sizes: Sizes) -> None:
    """The first parameters of the last step: their random bits are those of a run that has no more."""
    few = min(sizes.checked, w.numel())
    rounded = "nearest_even"  # what ``load`` does where a slot rounds stochastically
    start = arrays.round(w[:few].double().cpu().numpy(), format(_FORMAT), rounded)[:, None]
    state = {"w": start, "m": np.zeros_like(start), "v": np.zeros_like(start)}
    gradient = machine.state("g")[:few].double().cpu().numpy()
    wanted = run(machine.program, state, {"g": gradient[None]}, precision, KEY, steps=1).state
    for name in wanted:
        same(f"{case} {name}", machine.state(name)[:few].double(), wanted[name])
