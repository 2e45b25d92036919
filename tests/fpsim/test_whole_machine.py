"""Programs with shapes on the CPU machine against the exact reader: sums along axes, gathers, functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tiers import slow_but

from fpsim import elementary_arrays, exact_run
from fpsim.cpu.elementary_table import KERNELS, TABLES
from fpsim.cpu.machine import Machine
from fpsim.cpu.whole_machine import WholeMachine
from fpsim.number_format import Format
from fpsim.precision import Precision
from fpsim.program import ELEMENTARY, Program
from fpsim.random_bits import Key
from fpsim.rounding import CODES, Stochastic
from fpsim.run import run
from fpsim.tracing import (
    Value,
    column,
    elementary,
    expand,
    gather,
    less,
    maximum,
    power,
    remainder,
    sigmoid,
    slot,
    sqrt,
    step,
    total,
    total_of_products,
    where,
)

KEY = Key(5)
MODES: list[Any] = [*CODES, Stochastic(8), Stochastic(16), Stochastic(32), Stochastic(16, "B"), Stochastic(16, "C")]
Arrays = dict[str, npt.NDArray[np.float64]]


def bits(x: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(x, dtype=np.float64).view(np.uint64)


def check(
    program: Program, state: Mapping[str, Any], given: Mapping[str, Any], precision: Precision, lanes: int,
    steps: int = 2, record: tuple[str, ...] = (), events: bool = False,
) -> None:  # fmt: skip
    """States, records and events of both readers."""
    record = record or tuple(o.slot for o in program.operations)
    runs, seen = np.arange(7, 7 + lanes), []
    for device in ("cpu", "exact"):
        seen.append(
            run(program, state, given, precision, KEY, steps=steps, first_step=4, runs=runs, record=record,
                device=device, events=events)
        )  # fmt: skip
    for name in record:
        assert (bits(seen[0].records[name]) == bits(seen[1].records[name])).all(), name
    for name in program.state:
        assert (bits(seen[0].state[name]) == bits(seen[1].state[name])).all(), name
    if events:
        assert seen[0].events == seen[1].events


@step(shapes={"A": ("n", "d"), "B": ("d", "n"), "index": ("b",), "rate": ()}, shared=("A", "B", "rate"))
def regression(w: Any, A: Any, B: Any, index: Any, rate: Any) -> Any:
    """Logistic regression, on all rows and on some that each run picks."""
    p = slot("p", sigmoid(slot("margins", total(slot("terms", B * column(w)), axis=0))))
    g = slot("g", total(slot("pulls", A * column(p)), axis=0))
    rows = slot("rows", gather(A, index))
    q = slot("q", sigmoid(slot("margin", total(slot("term", rows * w), axis=1))))
    h = slot("h", total(slot("pull", rows * column(q)), axis=0))
    return {"w": slot("w.sub", w - slot("update", rate * slot("both", g + h))), "p": p}


def of_regression(lanes: int, n: int = 6, d: int = 5, b: int = 4, seed: int = 0) -> tuple[Arrays, Arrays]:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, d))
    index = rng.integers(0, n, (2, b, lanes)).astype(np.float64)
    return {"w": rng.standard_normal((d, lanes))}, {"A": a, "B": a.T, "index": index, "rate": np.float64(0.1)}


EVERYWHERE = ("g", "h", "p", "q", "margins", "margin", "w")


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "e8m23", "e5m2", "binary64"])
@pytest.mark.parametrize("data", ["binary64", ""])
def test_regression(name: str, mode: Any, data: str) -> None:
    precision = Precision.uniform(name, mode)
    if data:  # constants keep all their bits: products are rounded to odd first
        precision = precision.replace(dict.fromkeys(("A", "B", "rate"), (data, "nearest_even")))
    check(regression, *of_regression(3), precision, 3, record=EVERYWHERE)


@pytest.mark.parametrize(
    "mode", slow_but(["nearest_even", "toward_zero", Stochastic(16), Stochastic(32)], Stochastic(16)), ids=str
)
def test_long_sums_and_wide_strips(mode: Any) -> None:
    """More terms than a tile has rows, more results than a strip, more lanes than one vector, none of them round."""
    precision = Precision.uniform("e8m10", mode).replace(dict.fromkeys(("A", "B"), ("binary64", "nearest_even")))
    for lanes, n, d in ((1, 3, 261), (9, 37, 5), (2, 70, 18)):
        state, given = of_regression(lanes, n, d, 2)
        check(regression, state, given, precision, lanes, 2, ("g", "h", "w"))
        materialised = ("terms", "pulls", "g") if n < 30 else ("g",)
        check(regression, state, given, precision, lanes, 2, materialised)  # a product that is recorded is written out


def test_sums_whose_parts_have_different_formats() -> None:
    cases: list[tuple[str, str, Any]] = [
        ("e8m23", "bfloat16", "nearest_even"),
        ("e5m2", "e8m10", "toward_zero"),
        ("bfloat16", "binary64", "nearest_even"),
        ("e4m3", "e4m3", Stochastic(16)),
    ]
    for product, total_, mode in cases:
        precision = Precision.uniform("bfloat16").replace({"pulls": (product, mode), "g": (total_, mode)})
        check(regression, *of_regression(4), precision, 4, record=EVERYWHERE)
    mixed = Precision.uniform("bfloat16").replace({"pulls": ("bfloat16", "up"), "term": ("e5m4", Stochastic(20))})
    check(regression, *of_regression(4), mixed, 4, record=EVERYWHERE)


def test_overflow_infinities_and_nan_leave_the_fast_path() -> None:
    state, given = of_regression(6)
    state["w"][0, 1], state["w"][1, 2], state["w"][:, 3] = np.inf, -np.inf, 1e38
    state["w"][2, 4] = -0.0
    given["A"][2, 1] = 1e20
    for name in ("bfloat16", "float8_e4m3fn", "e5m2", "float6_e3m2fn", Format(4, 3, overflow="saturate_all")):
        for mode in ("nearest_even", "toward_zero", Stochastic(16)):
            check(regression, state, given, Precision.uniform(name, mode), 6, record=EVERYWHERE)  # type: ignore[arg-type]


def test_negative_zeros_and_one_term() -> None:
    """A sum starts from its first term: -0 stays, and one term is not rounded again."""
    precision = Precision.uniform("bfloat16").replace({"terms": ("e8m23", "nearest_even")})
    state, given = of_regression(2, n=5, d=1)
    given["A"][:] = [[0.0], [-0.0], [1.0], [1.001], [-1.0]]
    given["B"] = given["A"].T
    state["w"][:] = [[-0.3, 0.0]]
    check(regression, state, given, precision, 2, record=EVERYWHERE)
    result = run(regression, state, given, precision, steps=2, runs=[0, 1], record=["margins"])
    assert np.signbit(result.records["margins"][0, 0, 0])


def near_ties(p: int, factors: npt.NDArray[np.float64], count: int, seed: int) -> npt.NDArray[np.float64]:
    """Numbers of 53 bits whose product with ``factors`` is a midpoint of p bits but for the last digits."""
    rng = np.random.default_rng(seed)
    midpoints = (rng.integers(1 << (p - 1), 1 << p, (len(factors), count)) + 0.5) * 2.0 ** -(p - 1)
    numbers = midpoints / factors[:, None]
    up = rng.integers(-1, 2, numbers.shape)
    return np.where(up == 0, numbers, np.nextafter(numbers, np.where(up > 0, np.inf, -np.inf)))


@pytest.mark.parametrize("mode", ["nearest_even", "toward_zero"])
def test_products_next_to_midpoints(mode: Any) -> None:
    for p, name in ((8, "bfloat16"), (24, "e8m23"), (11, "binary16")):
        rng = np.random.default_rng(p)
        w = rng.integers(1 << (p - 1), 1 << p, 4) * 2.0 ** -(p - 1)
        b = near_ties(p, w, 20, p)
        given = {"A": b.T, "B": b, "index": np.zeros((1, 1, 1)), "rate": np.float64(0.0)}
        precision = Precision.uniform(name, mode).replace(dict.fromkeys(("A", "B"), ("binary64", "nearest_even")))
        check(regression, {"w": w}, given, precision, 1, 1, ("margins",))
        check(regression, {"w": w}, given, precision, 1, 1, ("terms",))


@step(shapes={"x": ("n", "k", "d"), "y": ("k",), "z": ("n", 1, 1)}, shared=("z",))
def axes(w: Any, x: Any, y: Any, z: Any) -> Any:
    """Sums along every axis in every order, of products and of numbers, broadcast in every way."""
    product = slot("product", x * column(y))
    first = slot("first", total(product, axis=0, order="pairwise"))
    middle = slot("middle", total(slot("scaled", z * x), axis=1, order="blocked", block=2))
    last = slot("last", total(slot("weighted", x * w), axis=-1, order="pairwise"))
    plain = slot("plain", total(x, axis=1))
    inner = slot("inner", total(slot("square", w * w), axis=0))
    whole = slot("whole", total(first, order="blocked", block=3))
    everything = slot("everything", total(slot("moved", expand(w, 0) * first)))
    mean = slot("mean", total(plain, axis=0) / inner)
    shifted = slot("shifted", total(slot("with_scalar", whole * 3), axis=0))
    return {"w": slot("new", mean + total(maximum(first, everything), axis=0)), "l": last, "m": middle, "s": shifted}


@pytest.mark.parametrize("mode", ["nearest_even", "down", Stochastic(16), Stochastic(20)], ids=str)
@pytest.mark.parametrize("lanes", [1, 5])
def test_axes_and_orders(mode: Any, lanes: int) -> None:
    rng = np.random.default_rng(3)
    state = {"w": rng.standard_normal((4, lanes))}
    given = {
        "x": rng.standard_normal((3, 5, 4, lanes)),
        "y": rng.standard_normal(5),
        "z": rng.standard_normal((3, 1, 1)),
    }
    precision = Precision.uniform("bfloat16", mode)
    check(axes, state, given, precision, lanes)
    check(axes, state, given, precision, lanes, record=("w",))
    check(axes, state, given, precision, lanes, events=True)


@step(shapes={"upper": ("p",), "pairs": ("p", 2), "mine": ("b",)}, shared=("upper", "pairs"))
def picks(w: Any, upper: Any, pairs: Any, mine: Any) -> Any:
    """Gathers of computed values, by a vector and by a matrix, by each run's own index, and of what was gathered."""
    square = slot("square", w * w)
    some = slot("some", gather(square, upper))
    matrix = slot("matrix", gather(square, pairs))
    own = slot("own", gather(square, mine))
    again = slot("again", gather(gather(matrix, mine), mine, axis=0))
    chosen = slot("chosen", where(less(some, 1), some, slot("difference", 2 - some)))
    s = slot("s", total(slot("t", matrix * column(chosen)), axis=0))
    return {"w": slot("new", w - slot("part", total(own, axis=0) * total(s, axis=0))), "y": again}


@pytest.mark.parametrize("mode", ["nearest_even", Stochastic(16)], ids=str)
def test_picks(mode: Any) -> None:
    rng = np.random.default_rng(4)
    given = {
        "upper": np.array([2.0, 0.0, 1.0, 1.0]), "pairs": rng.integers(0, 4, (4, 2)),
        "mine": rng.integers(0, 2, (3, 2, 3)).astype(np.float64),
    }  # fmt: skip
    state = {"w": rng.standard_normal((4, 3))}
    for name in ("e5m2", "e8m1"):  # the index keeps its bits
        check(picks, state, given, Precision.uniform(name, mode), 3, 3)
        check(picks, state, given, Precision.uniform(name, mode), 3, 3, events=True)


@step(shapes={"A": ("n", "d"), "one": (1,), "i": ("b",)}, shared=("one", "i"))
def single_picks(w: Any, A: Any, one: Any, i: Any) -> Any:
    """Gathers of a single row, broadcast along its axis and joined with the other one."""
    row, all_of_it = gather(A, one), slot("all", total(gather(A, i)))
    s = slot("s", total(slot("u", row + A), axis=0))
    return {"w": slot("new", w + s), "rows": slot("r", total(slot("t", row * A), axis=1)), "all": all_of_it}


def test_an_index_of_one_position() -> None:
    rng = np.random.default_rng(6)
    for n, d in ((2, 18), (17, 3)):
        state = {"w": rng.standard_normal((d, 2))}
        given = {"A": rng.standard_normal((n, d)), "one": [n - 1], "i": [n - 2]}
        for mode in ("nearest_even", Stochastic(16)):
            precision = Precision.uniform("e5m2", mode)  # type: ignore[arg-type]
            check(single_picks, state, given, precision, 2, record=("s", "r", "all", "new"))
            check(single_picks, state, given, precision, 2, events=True)


@step(shapes={"x": ()})
def scaled(w: Any, x: Any, *, rate: Any = "(2.5 - t) * 0.0000000001") -> Any:
    return {"x": slot("y", slot("z", x * rate) + slot("s", total(w, axis=0)))}


def test_a_scalar_that_becomes_negative_zero() -> None:
    """The rate is too small for the format: +0 in two steps, -0 from then on."""
    state, given = {"x": 1.0}, {"w": [0.0, 0.0]}
    check(scaled, state, given, Precision.uniform("e5m2"), 1, 4, ("z", "y"))
    machine = Machine(scaled, [Precision.uniform("e5m2")], 1, {"d": 2}, None, np.arange(1))
    machine.load(state, given)
    assert np.signbit(machine.run(4, record=("z",))["z"]).ravel().tolist() == [False, False, True, True]


def test_states_loaded_as_constants_are_not_taken_for_constant() -> None:
    program = step(
        lambda w, A: {"w": slot("p", w * w), "y": slot("s", total(A, axis=0))}, name="p", shapes={"A": (2, "d")}
    )
    start, given = {"w": np.array([2.0**17 + 1, 1.0, 2.0**18 + 1])}, {"A": np.ones((2, 3))}
    precision, last = Precision.uniform("e8m30"), []
    for state, constants in ((start, given), ({}, {**start, **given})):
        machine = Machine(program, [precision], 1, 3, None, np.arange(1))
        machine.load(state, constants)
        machine.run(3)
        last.append(machine.state("w"))
    expected, _ = exact_run.run(program, start, given, precision, steps=3)
    assert (bits(last[0]) == bits(expected["w"])).all()
    assert (bits(last[1]) == bits(expected["w"])).all()


@step(shapes={"x": ("d", 2)})
def functions(w: Any, x: Any) -> Any:
    values = {f"y.{kind}": slot(kind, elementary(kind, x)) for kind in ELEMENTARY if kind != "pow"}
    values |= {"pow": slot("pow", power(x, column(w))), "rem": slot("rem", remainder(x, column(w)))}
    return {"w": slot("new", w + slot("root", sqrt(w))), **values}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_functions(mode: Any) -> None:
    """Special values, exact results, results near 1 and near the ends; formats beyond the compiled functions."""
    rng = np.random.default_rng(6)
    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1.0,
        -1.0,
        0.5,
        4.0,
        2.0**-60,
        -40.0,
        40.0,
        709.5,
        -745.0,
        1e300,
        3e-320,
    ]
    x = np.concatenate([special, rng.standard_normal(16) * 3.0]).reshape(-1, 2)
    state = {"w": rng.standard_normal(len(x))}
    names = ("bfloat16", "float8_e5m2", "e8m23") if mode in ("nearest_even", Stochastic(16)) else ("bfloat16",)
    for name in names:
        check(functions, state, {"x": x}, Precision.uniform(name, mode).replace({"x": "binary64"}), 1, 1, events=True)
    wide = Precision.uniform("binary64", mode)
    check(functions, state, {"x": x}, wide, 1, 1, events=mode == "nearest_even")


def of_one_function(kind: str) -> Program:
    program: Program = step(lambda w: {"w": elementary(kind, w)}, name=kind)
    return program


NEAR = np.arange(1.0, 60.0) * 2.0**-26
FINE = np.random.default_rng(9).integers(1 << 24, 1 << 28, 200) * 2.0**-52  # numbers of binary64 when added to 1
ARGUMENTS = {  # results within 2^-70 of numbers and midpoints of 24 bits, of 8 bits, and of 53 bits
    "exp": np.concatenate([np.log1p(NEAR), np.log1p(NEAR * 2.0**16), np.log1p(FINE)]),
    "sigmoid": 2.0 * np.concatenate([np.arctanh(2.0 * NEAR), np.arctanh(FINE)]),
    "tanh": np.concatenate([np.arctanh(NEAR * 2.0**20), 0.5 * np.log((2.0 - FINE) / FINE)]),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_functions_are_decided_for_the_format(kind: str) -> None:
    """Where 53 bits leave a result open, the format mostly does not; where it does, the specification decides."""
    program, x = of_one_function(kind), np.concatenate([ARGUMENTS[kind], -ARGUMENTS[kind]])
    x = np.concatenate([x, np.random.default_rng(8).uniform(-20.0, 20.0, 4000)])
    open_ones, _ = KERNELS[kind](x, TABLES[kind](), np.empty(len(x)), np.empty(len(x), dtype=np.int64))
    assert open_ones > 50
    for name in ("bfloat16", "e8m23", "e8m48", "e8m50"):
        for mode in CODES:
            precision = Precision.uniform("binary64").replace({kind: (name, mode)})  # type: ignore[arg-type]
            got = run(program, {"w": x}, {}, precision)
            expected = getattr(elementary_arrays, kind)(x, name, mode)
            assert (bits(got.state["w"][:, 0]) == bits(expected)).all(), (name, mode)


@step(shapes={"A": ("n", "d"), "x": ("d", "n")}, shared=("A",))
def fused(w: Any, A: Any, x: Any) -> Any:
    """Sums whose products are not rounded."""
    rows = slot("rows", total_of_products(A, w, 1))
    columns = slot("columns", total_of_products(expand(rows, 1), A, axis=0))
    own = slot("own", total_of_products(x, column(columns), -2))
    return {"w": slot("new", total_of_products(x, own, axis=1)), "y": slot("with_scalar", total_of_products(x, 3, 0))}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_sums_of_exact_products(mode: Any) -> None:
    rng = np.random.default_rng(12)
    a, x = rng.standard_normal((6, 5)), rng.standard_normal((2, 5, 6, 3))
    a[0], x[:, 1, :, 0] = -0.0, -0.0
    for name in ("bfloat16", "float8_e4m3fn", "e8m23"):
        for data in (name, "binary64"):
            precision = Precision.uniform(name, mode).replace({"A": (data, "nearest_even")})
            check(fused, {"w": rng.standard_normal((5, 3))}, {"A": a, "x": x}, precision, 3, events=True)


def test_blocks_lanes_and_chunks_do_not_change_results() -> None:
    lanes = 4
    state, given = of_regression(lanes)
    index = np.random.default_rng(1).integers(0, 6, (5, 4, lanes)).astype(np.float64)
    constants = {name: x for name, x in given.items() if name != "index"}
    p, other = Precision.uniform("e6m9", Stochastic(16)), Precision.uniform("e4m3", Stochastic(16))
    runs, lengths = np.array([9, 2, 40, 7]), {"n": 6, "d": 5, "b": 4}

    def final(precisions: list[Precision], pick: npt.NDArray[np.int64], pieces: list[int]) -> npt.NDArray[np.float64]:
        machine = Machine(regression, precisions, len(pick) // len(precisions), lengths, KEY, runs[pick])
        assert isinstance(machine, WholeMachine)
        machine.load({"w": state["w"][:, pick]}, constants)
        done = 0
        for piece in pieces:
            machine.run(piece, {"index": index[done : done + piece][:, :, pick]})
            done += piece
        return machine.state("w")

    everyone = np.arange(lanes)
    expected = final([p], everyone, [5])
    assert np.isfinite(expected).all()
    assert len(np.unique(expected[0])) == lanes
    assert (final([p], everyone, [2, 0, 3]) == expected).all()
    assert (final([p], everyone[::-1].copy(), [5])[:, ::-1] == expected).all()
    assert (final([other, p], np.array([1, 2, 0, 3]), [5])[:, 2:] == expected[:, [0, 3]]).all()
    for lane in everyone:
        assert (final([p], np.array([lane]), [5])[:, 0] == expected[:, lane]).all()


def test_views_extremes_and_records() -> None:
    state, given = of_regression(4)
    constants = {name: x for name, x in given.items() if name != "index"}
    lengths, precisions = {"n": 6, "d": 5, "b": 4}, [Precision.uniform("bfloat16"), Precision.uniform("e4m3")]
    machine = Machine(regression, precisions, 2, lengths, None, np.arange(4), track=("w", "p", "terms"))
    machine.load(state, constants)
    assert machine.values("A").shape == (2, 6, 5)
    assert machine.values("w").shape == (2, 5, 2)
    records = machine.run(2, {"index": given["index"]}, ["w", "terms", "p"])
    assert records["terms"].shape == (2, 2, 5, 6, 2)
    low, high = machine.extremes()["terms"]
    assert (low == np.abs(records["terms"]).min(axis=0)).all()
    assert (high == np.abs(records["terms"]).max(axis=0)).all()
    assert (machine.state("w").reshape(5, 2, 2).transpose(1, 0, 2) == records["w"][-1]).all()


def test_more_lanes_than_a_strip_has_elements() -> None:
    state, given = of_regression(300)
    constants, index = {name: x for name, x in given.items() if name != "index"}, given["index"]
    for mode in ("nearest_even", "up", Stochastic(16)):
        last = []
        for pick in (np.arange(300), np.array([0, 299, 150])):
            precision, lengths = Precision.uniform("bfloat16", mode), {"n": 6, "d": 5, "b": 4}  # type: ignore[arg-type]
            machine = Machine(regression, [precision], len(pick), lengths, KEY, pick)
            machine.load({"w": state["w"][:, pick]}, constants)
            machine.run(2, {"index": index[:, :, pick]})
            last.append(machine.state("w"))
        assert (last[1] == last[0][:, [0, 299, 150]]).all()


def test_a_constant_that_is_given_for_every_step_later() -> None:
    """Its range is not known any more."""
    program = step(lambda w, x: {"w": w + slot("s", total(slot("t", x * w), axis=0))}, name="p", shapes={"x": (2, "d")})
    precision = Precision.uniform("e8m23").replace({"x": "binary64"})
    rng = np.random.default_rng(0)
    w, first, later = rng.standard_normal((4, 2)), np.ones((2, 4)), rng.standard_normal((3, 2, 4, 2)) * 1e-280
    machine = Machine(program, [precision], 2, 4, None, np.arange(2))
    machine.load({"w": w}, {"x": first})
    machine.run(1)
    machine.run(3, {"x": later})
    last, _ = exact_run.run(program, {"w": w}, {"x": first}, precision, runs=(0, 1))
    last, _ = exact_run.run(program, last, {"x": later}, precision, steps=3, first_step=1, runs=(0, 1))
    assert (bits(machine.state("w")) == bits(last["w"])).all()


@step(shapes={"c": ()})
def single(w: Any, c: Any) -> Any:
    return {"w": w + slot("s", total(c)), "last": slot("n", total(slot("m", expand(c, 0) * 3), axis=0))}


def test_values_without_axes_and_tracked_constants() -> None:
    state, given = {"w": np.ones((3, 2))}, {"c": np.array([1.3, -0.7])}
    check(single, state, given, Precision.uniform("e5m2", "up"), 2, 1, events=True)
    program = step(lambda w, A: {"w": total(A * w, axis=0)}, name="p", shapes={"A": (2, "d")}, shared=("A",))
    machine = Machine(program, [Precision.uniform("bfloat16")] * 2, 2, 3, None, np.arange(4), track=("A",))
    machine.load({"w": np.ones(3)}, {"A": np.array([[1.0, -2.0, 3.0], [4.0, 5.0, 0.0]])})
    low, high = machine.extremes()["A"]
    assert low.shape == (2, 2, 3, 2)
    assert low[1, 0, 1, 1] == high[0, 0, 1, 0] == 2.0


def test_errors() -> None:
    state, given = of_regression(2)
    p = Precision.uniform("bfloat16")
    for device in ("cpu", "exact"):
        wrong = {**given, "index": given["index"] + 4.0}
        with pytest.raises(ValueError, match=r"rows: index 'index' holds \d+; admissible: integers of 0..5"):
            run(regression, state, wrong, p, steps=2, device=device)
        with pytest.raises(ValueError, match=r"array 'B' has shape \(5, 7\): dimension n is 7; admissible: 6"):
            run(regression, state, {**given, "B": np.zeros((5, 7))}, p, steps=2, device=device)
        with pytest.raises(ValueError, match=r"array 'A' has 3 axes; admissible: \[n, d\]"):
            run(regression, state, {**given, "A": np.zeros((6, 5, 2))}, p, steps=2, device=device)
    with pytest.raises(ValueError, match="dimension 'n' of shape"):
        Machine(regression, [p], 2, 5, None, np.arange(2))
    machine = Machine(regression, [p], 2, {"n": 6, "d": 5, "b": 4}, None, np.arange(2))
    with pytest.raises(ValueError, match=r"'A' has shape \(6, 5, 2\); admissible: \(6, 5\), for all runs share it"):
        machine.load(state, {"A": np.zeros((6, 5, 2))})
    with pytest.raises(ValueError, match="index 'index' holds -1"):
        machine.run(1, {"index": np.full((1, 4, 2), -1.0)})
    with pytest.raises(ValueError, match=r"index 'index' holds 0\.5"):
        machine.run(1, {"index": np.full((1, 4, 2), 0.5)})

    @step(shapes={"x": ("d", 2)})
    def directly(w: Any, x: Any) -> Any:
        return {"x": slot("s", sigmoid(x)), "w": slot("t", w + 1)}

    with pytest.raises(ValueError, match=r"s: whether 'x' is frozen is not counted where sigmoid computes it"):
        run(directly, {"w": [1.0], "x": [[1.0, 2.0]]}, {}, p, events=True)


def random_program(seed: int) -> Program:
    """Operations drawn at random on values of random shapes."""
    rng = np.random.default_rng(seed)

    @step(name=f"random {seed}", shapes={"a": ("n", "d"), "v": ("n",), "c": ("n", "d"), "i": ("b",)}, shared=("c",))
    def program(w: Any, a: Any, v: Any, c: Any, i: Any) -> Any:
        pool: list[tuple[Value, tuple[str, ...]]] = [
            (w, ("d",)), (a, ("n", "d")), (column(v), ("n", "1")), (c, ("n", "d")), (v, ("n",)),
        ]  # fmt: skip

        def add(value: Value, shape: tuple[str, ...]) -> None:
            pool.append((value, shape))

        for _ in range(12):
            kind = rng.choice(["binary", "binary", "sum", "sum", "dot", "unary", "gather"])
            x, shape = pool[rng.integers(len(pool))]
            if kind == "unary":
                f = rng.choice(["sigmoid", "tanh", "exp", "sin", "neg"])
                add(-x if f == "neg" else elementary(str(f), x), shape)
            elif kind == "gather" and shape[:1] == ("n",):
                picked = gather(x, i)
                if shape[1:] == ("d",):
                    along, order = int(rng.integers(2)), str(rng.choice(["sequential", "pairwise"]))
                    add(total(total(picked * w, axis=along), 0, order), ())
            elif kind in ("sum", "dot") and shape and "1" not in shape:
                fused_here = False
                if kind == "dot":
                    y, other = pool[rng.integers(len(pool))]
                    if not all(p == q or q == "1" for p, q in zip(shape[::-1], other[::-1], strict=False)):
                        continue
                    if len(other) > len(shape):
                        continue
                    fused_here = bool(rng.random() < 0.3)
                    x = x if fused_here else x * y
                axis = int(rng.integers(len(shape)))
                if fused_here:
                    add(total_of_products(x, y, axis), shape[:axis] + shape[axis + 1 :])
                    continue
                order = str(rng.choice(["sequential", "sequential", "pairwise", "blocked"]))
                add(total(x, axis, order, int(rng.integers(1, 4)) if order == "blocked" else None),
                    shape[:axis] + shape[axis + 1 :])  # fmt: skip
            elif kind == "binary":
                y, other = pool[rng.integers(len(pool))]
                pairs = list(zip(shape[::-1], other[::-1], strict=False))
                if not all(p == q or "1" in (p, q) for p, q in pairs):
                    continue
                joined = tuple(q if p == "1" else p for p, q in pairs)[::-1]
                longer = shape if len(shape) >= len(other) else other
                f = rng.integers(4)
                add([x + y, x - y, x * y, x / y][f], longer[: len(longer) - len(joined)] + joined)
        outputs = {}
        for number, (value, shape) in enumerate(pool[5:]):
            outputs[f"out{number}"] = value
            if shape == ("d",) and "w" not in outputs:
                outputs["w"] = value
        return outputs or {"out": w + 1}

    return program  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed: int) -> None:
    of_random_program(seed)


@pytest.mark.slow
def test_more_random_programs() -> None:
    for seed in range(24, 200):
        of_random_program(seed)


def of_random_program(seed: int) -> None:
    program, rng = random_program(seed), np.random.default_rng(100 + seed)
    lanes = int(rng.choice([1, 2, 9]))
    n, d, b = (int(x) for x in rng.integers(1, 7, 3))
    mode = MODES[seed % len(MODES)]
    formats = ["bfloat16", "e5m2", "float8_e4m3fn", "e8m23", "binary16", "binary64", "e4m3"]
    precision = Precision.uniform(str(rng.choice(formats)), mode)
    for name in rng.choice(program.slots, min(4, len(program.slots)), replace=False).tolist():
        if not name.startswith("scalar."):
            precision = precision.replace({name: (str(rng.choice(formats)), MODES[rng.integers(len(MODES))])})
    state = {name: rng.standard_normal((d, lanes)) for name in program.state}
    given = {
        "w": rng.standard_normal(d), "a": rng.standard_normal((n, d, lanes)), "v": rng.standard_normal((2, n, lanes)),
        "c": rng.standard_normal((n, d)), "i": rng.integers(0, n, (b, lanes)),
    }  # fmt: skip
    given = {name: x for name, x in given.items() if name not in program.state}
    fused = tuple(array for array, _ in program.outputs)
    check(program, state, given, precision, lanes, 2, fused)
    computed = {o.slot for o in program.operations if o.kind in ELEMENTARY} & {dict(program.outputs).get("w")}
    if mode in ("nearest_even", "up", Stochastic(16)) and not computed:
        check(program, state, given, precision, lanes, 2, events=True)
