"""Whole programs on the torch twin, on CPU tensors and on a card, against the CPU machine and the exact reader."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from tiers import slow_but
from twin_cases import ON_EACH_DEVICE, bits

import fpsim
from fpsim.cpu.machine import Machine
from fpsim.cuda import dispatch
from fpsim.cuda.twin_machine import TwinMachine
from fpsim.number_format import Format
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.program import ELEMENTARY, Operation, Program
from fpsim.random_bits import Key
from fpsim.rounding import CODES, Stochastic
from fpsim.tracing import (
    absolute,
    elementary,
    expand,
    fma,
    gather,
    less,
    maximum,
    minimum,
    power,
    remainder,
    scalar,
    sign,
    slot,
    sqrt,
    step,
    total,
    total_of_products,
    where,
)

KEY = Key(23)
OPTIMIZERS = ("sgd", "adam", "rmsprop", "adagrad", "lion")
FORMATS = ("bfloat16", "float8_e4m3fn", "binary32")


def given(program: Program, steps: int, d: int = 4, lanes: int = 3, seed: int = 0) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    start = {n: generator.standard_normal((d, lanes)) if n == "w" else np.zeros(d) for n in program.state}
    arrays = {n: generator.standard_normal((steps, d, lanes)) for n in program.inputs if n not in program.state}
    return start, arrays


def same(
    program: Program, start: Any, inputs: Any, precision: Precision, device: str, other: str = "cpu", **options: Any
) -> None:
    """The twin on a device of torch and another machine."""
    record = [operation.slot for operation in program.operations]
    options = {"key": KEY, "record": record, **options}
    right = fpsim.run(program, start, inputs, precision, **options, device=other)
    name_of = {"cpu": "torch"}.get(device, device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "why_twin", lambda device: "the test says so")
        got = fpsim.run(program, start, inputs, precision, **options, device=name_of)
    for name, values in right.records.items():
        assert (bits(got.records[name]) == bits(values)).all(), name
    for name, values in right.state.items():
        assert got.state[name].shape == values.shape
        assert (bits(got.state[name]) == bits(values)).all(), name
    assert got.header.device == name_of and got.header.machine.startswith("twin: ") and got.events is None


@ON_EACH_DEVICE
@pytest.mark.parametrize("mode", ["nearest_even", "stochastic"])
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_over_tens_of_steps(name: str, fmt: str, mode: str, device: str) -> None:
    precision = Precision.uniform(fmt, mode)
    same(STEPS[name], *given(STEPS[name], 24), precision, device, steps=24, first_step=5, runs=[7, 0, 2])


@ON_EACH_DEVICE
@pytest.mark.parametrize("mode", slow_but([*CODES, Stochastic(17), Stochastic(32, "B"), Stochastic(20, "C")], "down"))
def test_adam_in_every_mode_and_far_along(mode: Any, device: str) -> None:
    """Steps and runs whose numbers need more than 32 bits, or all of them; 8 slots share words of 16 bits or fewer."""
    for fmt in ("bfloat16", Format(11, 50), "binary64"):
        same(STEPS["adam"], *given(STEPS["adam"], 4), Precision.uniform(fmt, mode, scalars="wide"), device, steps=4,
             first_step=(1 << 32) - 2, runs=[(1 << 32) - 1, 3, 4])  # fmt: skip


MIXED = Precision.uniform("bfloat16", "stochastic").replace(
    {"v.*": ("e8m10", "nearest_even"), "v": ("e8m10", "up"), "update.div": ("float8_e4m3fn", Stochastic(20)),
     "w": ("binary16", "to_odd"), "m": ("e5m4", Stochastic(8)), "g": ("e6m9", Stochastic(16))}
)  # fmt: skip


@pytest.mark.parametrize(
    "precision",
    [MIXED, Precision.storage(w="bfloat16", m="e5m2", rounding="stochastic"), Precision.torch("bfloat16"),
     Precision.uniform(Format(5, 6, subnormals=False, tiny="flush"), Stochastic(12))],
)  # fmt: skip
@ON_EACH_DEVICE
def test_mixed_precisions(precision: Precision, device: str) -> None:
    same(STEPS["adam"], *given(STEPS["adam"], 6), precision, device, steps=6)


@step
def everything(w: Any, u: Any, g: Any, c: Any, *, lr: Any = 0.1, t: Any) -> Any:
    """One of each kind, two stores that exchange arrays, an array stored in two places."""
    a = slot("a", fma(w, c, g))
    e = slot("e", absolute(slot("b", a - u)))
    s = slot("s", total(slot("h", sqrt(e) * scalar("rate", lr / t))))
    low = slot("low", minimum(s, w))
    high = slot("high", maximum(low, slot("n", -g)))
    picked = where(less(u, g), slot("rest", remainder(a, c)), high)
    return {"w": u, "u": slot("last", picked / (e + 1)), "copy": a}


@ON_EACH_DEVICE
@pytest.mark.parametrize("mode", ["nearest_even", "down", Stochastic(16), Stochastic(32)], ids=str)
@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e5m2fnuz"])
def test_every_kind_of_operation(fmt: str, mode: Any, device: str) -> None:
    generator = np.random.default_rng(2)
    start = {"w": generator.standard_normal((4, 3)), "u": generator.standard_normal(4)}
    inputs = {"g": generator.standard_normal((5, 4, 3)), "c": generator.standard_normal(4)}
    same(everything.bind(lr=(0.5, 0.1, 0.2)), start, inputs, Precision.uniform(fmt, mode), device, "exact", steps=5)


@step
def choices(w: Any, a: Any, b: Any) -> Any:
    """What rounds nothing, and sums and products of special values."""
    chosen = [slot("max", maximum(a, b)), slot("min", minimum(a, b)), slot("less", less(a, b)), slot("neg", -a)]
    chosen += [
        slot("abs", absolute(a)),
        slot("sign", sign(a)),
        slot("where", where(a, b, w)),
        slot("rem", remainder(a, b)),
    ]
    chosen += [
        slot("add", a + b),
        slot("sub", a - b),
        slot("div", a / b),
        slot("root", sqrt(a)),
        slot("fma", fma(a, b, a)),
    ]
    return {"w": chosen[0]}


@ON_EACH_DEVICE
@pytest.mark.parametrize("mode", ["nearest_even", "down", "to_odd"])
@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e4m3fn", Format(3, 2, signed=False, overflow="saturate")])
def test_special_values(fmt: Any, mode: str, device: str) -> None:
    special = np.array([0.0, -0.0, 1.0, -1.0, 0.3, np.inf, -np.inf, np.nan])
    a, b = (x.ravel() for x in np.meshgrid(special, special))
    same(choices, {"w": np.ones(64)}, {"a": a, "b": b}, Precision.uniform(fmt, mode), device, "exact")


@step(shapes={"A": ("n", "d"), "index": ("k",)}, shared=("A",))
def matrices(w: Any, A: Any, index: Any) -> Any:
    """Sums of products, sums in every order along an axis, gathers, new axes."""
    x = slot("product", total_of_products(A, w, axis=1))
    rows = slot("rows", total(A * w, axis=0, order="pairwise"))
    spread = slot("spread", expand(x, -1) * A)
    blocked = slot("blocked", total(spread, axis=0, order="blocked", block=2))
    every = slot("every", total(w, order="pairwise"))
    few = slot("few", total(gather(rows, index) + gather(every, index), axis=0))
    return {"w": slot("new", rows + blocked + few)}


@ON_EACH_DEVICE
@pytest.mark.parametrize("mode", ["nearest_even", "stochastic", Stochastic(24)], ids=str)
def test_matrices_sums_and_gathers(mode: Any, device: str) -> None:
    generator = np.random.default_rng(4)
    start = {"w": generator.standard_normal((3, 2))}
    inputs = {"A": generator.standard_normal((5, 3)), "index": np.array([[2, 0], [1, 1], [0, 2], [2, 2]])}
    same(matrices, start, inputs, Precision.uniform("e5m4", mode), device, "exact", steps=3)


@step
def functions(w: Any, a: Any) -> Any:
    """Every function, of arrays whose shapes are broadcast in the last of them."""
    made = [slot(kind, elementary(kind, a if kind != "log" else absolute(a))) for kind in ELEMENTARY[:-1]]
    return {"w": slot("pow", power(absolute(a), w)), "last": slot("sum", made[0] + made[1])}


def _functions(fmt: Any, mode: Any, runs: int, device: str) -> None:
    generator = np.random.default_rng(11)
    a = np.append(generator.standard_normal((2, 3, runs)), np.full((2, 1, runs), np.inf), axis=1)
    a[1, :2, 0] = 0.0, np.nan
    same(functions, {"w": [2.0, -1.0, 0.5, 3.0]}, {"a": a}, Precision.uniform(fmt, mode), device, steps=2)


@ON_EACH_DEVICE
@pytest.mark.parametrize("mode", slow_but(["nearest_even", "up", Stochastic(16), Stochastic(20, "C")], Stochastic(16)))
def test_functions_are_those_of_the_cpu(mode: Any, device: str) -> None:
    for fmt in ("bfloat16", "float8_e4m3fn"):
        _functions(fmt, mode, 5, device)


@ON_EACH_DEVICE
def test_functions_that_53_bits_do_not_decide(device: str) -> None:
    for fmt, mode in (("binary64", "down"), (Format(8, 23, tiny="flush"), Stochastic(32)), ("e11m40", "stochastic")):
        _functions(fmt, mode, 1, device)


@ON_EACH_DEVICE
def test_functions_in_blocks_of_which_some_need_more_than_53_bits(device: str) -> None:
    formats = [Precision.uniform(fmt, Stochastic(16)) for fmt in ("bfloat16", "e11m45")]
    options: Any = {"lanes_per_block": 2, "lengths": {"d": 3}, "key": KEY, "runs": np.arange(4, dtype=np.uint64)}
    a = np.random.default_rng(3).standard_normal((3, 4))
    results = []
    for kind in (Machine, partial(TwinMachine, device=device)):
        machine = kind(functions, formats, *options.values())
        machine.load({"w": np.ones(3)}, {"a": a})
        machine.run(2)
        results.append([machine.state(name) for name in ("w", "last")])
    assert all((bits(x) == bits(y)).all() for x, y in zip(*results, strict=True))


BY_BLOCK = [Precision.uniform(fmt, "stochastic") for fmt in ("bfloat16", "float8_e4m3fn", "e11m50", "binary32")]


def machines(
    kind: Any, precisions: list[Precision], runs: list[int], start: Any, inputs: Any, cuts: list[int], **options: Any
) -> Any:
    runs_per_block = len(runs) // len(precisions)
    machine = kind(STEPS["adam"], precisions, runs_per_block, {"d": 4}, KEY, np.array(runs, np.uint64), **options)
    machine.load(start)
    records, done = [], 0
    for steps in cuts:
        part = {name: values[done : done + steps] for name, values in inputs.items()}
        records.append(machine.run(steps, part, ["update.div"])["update.div"])
        done += steps
    return {name: machine.state(name) for name in start}, np.concatenate(records)


@ON_EACH_DEVICE
def test_a_format_for_each_block_of_lanes(device: str) -> None:
    start, inputs = given(STEPS["adam"], 6, lanes=8)
    runs = [5, 1, 0, 9, 12, 3, 2, 8]
    state, records = machines(Machine, BY_BLOCK, runs, start, inputs, [6])
    for cuts in ([6], [1, 0, 3, 2]):
        mine, mine_records = machines(partial(TwinMachine, device=device), BY_BLOCK, runs, start, inputs, cuts)
        assert mine_records.shape == records.shape and (bits(mine_records) == bits(records)).all()
        for name, values in state.items():
            assert (bits(mine[name]) == bits(values)).all(), name
    for block, precision in enumerate(BY_BLOCK):  # a block is what a machine of its own makes of it
        lanes = slice(2 * block, 2 * block + 2)
        part = {n: x[:, lanes] if x.ndim > 1 else x for n, x in start.items()}
        alone, _ = machines(
            partial(TwinMachine, device=device), [precision], runs[lanes], part, {"g": inputs["g"][..., lanes]}, [6]
        )
        assert all((bits(alone[name]) == bits(state[name][:, lanes])).all() for name in state)


@ON_EACH_DEVICE
def test_hyperparameters_for_each_block_and_inputs_that_blocks_share(device: str) -> None:
    start, inputs = given(STEPS["adam"], 5, lanes=8)
    inputs = {"g": inputs["g"][..., :2]}
    programs = [
        STEPS["adam"].bind(lr=lr, beta2=beta) for lr, beta in ((0.1, 0.9), (0.01, 0.99), (1.0, 0.5), (0.3, 0.75))
    ]
    runs = list(range(8))
    right = machines(Machine, BY_BLOCK, runs, start, inputs, [5], programs=programs)
    mine = machines(partial(TwinMachine, device=device), BY_BLOCK, runs, start, inputs, [2, 3], programs=programs)
    assert (bits(mine[1]) == bits(right[1])).all()
    assert all((bits(mine[0][name]) == bits(values)).all() for name, values in right[0].items())
    with pytest.raises(ValueError, match="programs: 'sgd' is not 'adam' with other hyperparameters"):
        machines(partial(TwinMachine, device=device), BY_BLOCK, runs, start, inputs, [5], programs=[STEPS["sgd"]] * 4)


def test_what_it_does_not_take() -> None:
    uniform = Precision.uniform("bfloat16")
    exotic = Program("p", ("x",), (("y", "e"),), (), (Operation("opaque", "e", ("x",)),))
    with pytest.raises(ValueError, match=r"e: the torch machine does not take operations of kind 'opaque'; admissible"):
        TwinMachine(exotic, [uniform], 1, {"d": 1}, None, [0])
    with pytest.raises(ValueError, match="events=True with device='torch'; admissible: device='cpu' or 'exact'"):
        fpsim.run(STEPS["sgd"], {"w": [1.0]}, {"g": [1.0]}, uniform, device="torch", events=True)
    with pytest.raises(ValueError, match="needs a Key"):
        fpsim.run(STEPS["sgd"], {"w": [1.0]}, {"g": [1.0]}, Precision.uniform("bfloat16", "stochastic"), device="torch")
    with pytest.raises(ValueError, match="all blocks of a machine need the same rounding modes"):
        TwinMachine(STEPS["sgd"], [uniform, Precision.uniform("bfloat16", "up")], 1, {"d": 1}, None, [0, 1])
