"""The fused loops of the machine, by way of programs of one operation, against the specification."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpsim import exact_run
from fpsim.cpu import codes, execute
from fpsim.cpu.machine import Machine
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.optim.adam import adam
from fpsim.precision import Precision
from fpsim.program import Operation, Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic

Array = npt.NDArray[np.float64]
KEY = Key(5)
KINDS = ("add", "sub", "mul", "div", "sqrt")
MODES: list[Any] = ["nearest_even", "toward_zero", Stochastic(16), Stochastic(32)]
RARE = ("underflow", "overflow", "invalid", "divide_by_zero")
# Few exponents (sums are exact), bfloat16, the widest of fixed point and the next, the last for which a sum to nearest
# is plain and the next, the widest for a draw of 16 bits, one zero.
FORMATS = ["float8_e4m3fn", "bfloat16", "e8m18", "e8m19", "e8m23", "e8m24", "e8m34", "float8_e5m2fnuz"]


def operation(kind: str, overwrite: bool) -> Program:
    operands = ("w",) if kind == "sqrt" else ("w", "g")
    inputs = ("w",) if kind == "sqrt" else ("w", "g")
    return Program("one", inputs, (("w" if overwrite else "y", "op"),), (), (Operation(kind, "op", operands),))


def run(program: Program, given: dict[str, Array], precision: Precision, events: Any = ()) -> tuple[Any, Machine]:
    d = len(given["w"])
    machine = Machine(program, [precision], 1, d, KEY, np.array([3], dtype=np.uint64), events=events)
    machine.load({name: given[name] for name in program.inputs})
    machine.first_step = 2
    name = program.outputs[0][0]
    return machine.run(1, record=[name])[name][0, 0, :, 0], machine


def expected(program: Program, given: dict[str, Array], precision: Precision) -> Array:
    state = {name: given[name] for name in program.state}
    inputs = {name: given[name] for name in program.inputs if name not in program.state}
    name = program.outputs[0][0]
    return exact_run.run(program, state, inputs, precision, KEY, first_step=2, runs=[3], record=[name])[1][name][
        0, :, 0
    ]


def bits(x: Array) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(x).view(np.uint64)


def on_grid(fmt: Format, size: int, seed: int, reach: int) -> Array:
    """Numbers of a format with exponents within ``reach`` of 0, many of them 1 or just beside it."""
    rng = np.random.default_rng(seed)
    m = fmt.mantissa_bits
    low, high = max(-reach, fmt.emin), min(reach, fmt.emax - 1)
    last = rng.integers(0, 1 << m, size)
    last[rng.random(size) < 0.4] = 0
    beside = rng.random(size) < 0.3
    last[beside] = rng.choice([1, (1 << m) - 1], int(beside.sum()))
    x = np.ldexp(1.0 + np.ldexp(last.astype(np.float64), -m), rng.integers(low, high + 1, size))
    x[rng.random(size) < 0.5] *= -1
    return x


def pairs(kind: str, fmt: Format, size: int, seed: int) -> dict[str, Array]:
    """Operands whose results are finite and normal, many in or beside a tie, or cut off just beyond 53 bits."""
    reach = {"mul": fmt.emax // 2 - 1, "div": fmt.emax // 2 - 1}.get(kind, fmt.emax - 2)
    w, g = on_grid(fmt, size, seed, min(reach, 60)), on_grid(fmt, size, seed + 1, min(reach, 60))
    if kind in ("add", "sub"):  # below the last bit, below half of it, and below what 53 bits keep
        rng = np.random.default_rng(seed)
        near = rng.random(size) < 0.7
        places = rng.choice([0, 1, 2, 17, 18, 33, 52 - fmt.mantissa_bits, 53 - fmt.mantissa_bits], size)
        exponent = np.maximum(np.frexp(w)[1] - 1 - fmt.mantissa_bits - places, fmt.emin)
        g = np.where(near, np.copysign(np.ldexp(np.abs(np.frexp(g)[0]) * 2, exponent), g), g)
    if kind == "sqrt":
        w = np.abs(w)
        w[::3] = np.where((np.frexp(w[::3])[1] & 1) == 0, 2 * w[::3], w[::3])
    return {"w": w, "g": g}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_results_beside_ties_and_cuts(name: str, mode: Any) -> None:
    fmt = named_format(name)
    for seed, kind in enumerate(KINDS):
        given, program = pairs(kind, fmt, 120, seed), operation(kind, False)
        precision = Precision.uniform(name, mode)
        got, _ = run(program, given, precision)
        assert (bits(got) == bits(expected(program, given, precision))).all(), kind


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_undeclared_operands(mode: Any) -> None:
    """Operands of 53 bits: to odd or cut, where their exponents are found to allow it."""
    rng = np.random.default_rng(8)
    wide = {"w": ("binary64", "nearest_even"), "g": ("binary64", "nearest_even")}
    for kind in KINDS:
        given = {name: np.abs(rng.standard_normal(150)) + (kind == "div") for name in ("w", "g")}
        program = operation(kind, False)
        precision = Precision.uniform("e8m7", mode).replace(wide if kind != "sqrt" else {"w": wide["w"]})
        got, _ = run(program, given, precision)
        assert (bits(got) == bits(expected(program, given, precision))).all(), kind


@pytest.mark.parametrize("mode", ["nearest_even", "toward_zero", Stochastic(16)], ids=str)
def test_lengths_and_results_that_overwrite_an_operand(mode: Any) -> None:
    for length in (*range(1, 18), 255, 256, 257):
        for kind in KINDS:
            given, program = pairs(kind, named_format("bfloat16"), length, length), operation(kind, True)
            precision = Precision.uniform("bfloat16", mode)
            want = bits(expected(program, given, precision))
            for events in ((), RARE):
                got, machine = run(program, given, precision, events)
                assert (bits(got) == want).all(), (length, kind)
                assert (bits(machine.state("w")[:, 0]) == want).all(), (length, kind)


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -3.0])


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2fnuz", "float6_e3m2fn", "e8m23"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_specials_and_what_is_beyond_the_largest_value(name: str, mode: Any) -> None:
    fmt = named_format(name)
    values = np.concatenate([SPECIAL, [fmt.max, -fmt.max, fmt.smallest_normal, fmt.smallest_subnormal]])
    w, g = (x.ravel() for x in np.meshgrid(values, values))
    for kind in KINDS:
        program, precision = operation(kind, False), Precision.uniform(name, mode)
        want = bits(expected(program, {"w": w, "g": g}, precision))
        got, _ = run(program, {"w": w, "g": g}, precision)
        assert (bits(got) == want).all(), kind
        for i in range(0, len(w), 7):  # one by one, so that nothing else in the strip asks for the careful way
            one = {"w": w[i : i + 1], "g": g[i : i + 1]}
            if not isinstance(mode, Stochastic):
                assert bits(run(program, one, precision)[0])[0] == want[i], (kind, one)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "e5m10"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_rare_events_are_counted_like_all_events(name: str, mode: Any) -> None:
    """Strips with nothing, with one underflow, one overflow, one zero divisor, at a random place."""
    fmt = named_format(name)
    rng = np.random.default_rng(4)
    total = dict.fromkeys(RARE, 0)
    for kind in KINDS:
        program, precision = operation(kind, False), Precision.uniform(name, mode)
        for trial in range(8):
            given = pairs(kind, fmt, 30, trial)
            at = rng.integers(30)
            given["w"][at] = [1.0, fmt.smallest_normal, fmt.max, -1.0, 0.0, fmt.smallest_subnormal, 1.0, 0.0][trial]
            given["g"][at] = [1.0, 0.75, fmt.max / 2, 0.0, 0.0, 0.375, np.inf, fmt.smallest_normal][trial]
            found = [run(program, given, precision, events) for events in (RARE, True)]
            assert (bits(found[0][0]) == bits(found[1][0])).all()
            some, all_ = (machine.events()["op"] for _, machine in found)
            for event in RARE:
                assert some[event] == all_[event], (kind, trial, event)
                total[event] += int(some[event][0])
    assert all(total[event] > 0 for event in RARE), total


def test_roundings_that_change_nothing_are_left_out_unless_recorded() -> None:
    """r = round(w) reads w itself; what overwrites w comes later, and a recorded r keeps the old value."""
    operations = (
        Operation("round", "r", ("w",)),
        Operation("round", "again", ("r",)),
        Operation("add", "sum", ("again", "g")),
        Operation("round", "stored", ("sum",)),
        Operation("mul", "last", ("r", "stored")),
    )
    program = Program("identities", ("w", "g"), (("w", "stored"), ("y", "last")), (), operations)
    given = {"w": np.array([1.0, -2.0, 0.5]), "g": np.array([0.25, 2.0, 3.0])}
    precision = Precision.uniform("bfloat16", Stochastic(16))
    for record in (["w", "y"], ["r", "again", "stored", "w", "y"]):
        want, _ = exact_run.run(program, {"w": given["w"]}, {"g": given["g"]}, precision, KEY, steps=3, runs=[3])
        rows = exact_run.run(
            program, {"w": given["w"]}, {"g": given["g"]}, precision, KEY, steps=3, runs=[3], record=record
        )[1]
        for events in ((), RARE, True):
            machine = Machine(
                program,
                [precision],
                1,
                3,
                KEY,
                np.array([3], dtype=np.uint64),
                track=["stored", "again"],
                events=events,
            )
            machine.load(given)
            got = machine.run(3, record=record)
            assert all((bits(got[name][:, 0]) == bits(rows[name])).all() for name in record)
            assert (bits(machine.state("w")) == bits(want["w"])).all()
            assert (machine.extremes()["stored"][1] > 0).all()
    plain = machine_of(program, precision)._table({}, ("w", "y"))[0]
    kept = machine_of(program, precision)._table({}, ("r", "w", "y"))[0]
    rounds = [int((table[:, 0] == codes.ROUND).sum()) for table in (plain, kept)]
    assert rounds[1] == rounds[0] + 1


def machine_of(program: Program, precision: Precision) -> Machine:
    return Machine(program, [precision], 1, 3, KEY, np.array([3], dtype=np.uint64))


def test_only_the_counters_that_are_drawn_from_are_computed() -> None:
    """Adam's 14 operations draw halves of two groups of counters; storing its states draws nothing."""
    machine = Machine(adam, [Precision.uniform("bfloat16", Stochastic(16))], 1, 2, KEY, np.zeros(1, dtype=np.uint64))
    assert machine._table({}, ())[2].tolist() == [0, 1]


def test_entries_can_be_found_again_on_disk() -> None:
    """Their closures are part of the key on disk: a kernel in one would be another object in every process."""
    for entry in (execute.execute, execute.execute_counting):
        assert all(isinstance(cell.cell_contents, int) for cell in entry.py_func.__closure__)
