"""Events: by hand, the counting machine against the exact reader, and counting that changes no result."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernel_cases import values_of

from fpsim import exact
from fpsim.cpu.machine import Machine
from fpsim.event_counts import count_events
from fpsim.events import NAMES, Events, equals, of
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.optim.adam import adam
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import CODES, Rounding, Stochastic
from fpsim.run import run
from fpsim.tracing import absolute, fma, maximum, slot, sqrt, step, total

KEY = Key(31)
RANDOM: list[Any] = [Stochastic(3), Stochastic(16, "B"), Stochastic(32), Stochastic(5, "C")]
MODES: list[Any] = [*CODES, *RANDOM]
E5M2 = Format(5, 2)
INF, NAN = math.inf, math.nan


def bits(x: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(x, dtype=np.float64).view(np.uint64)


def same(program: Program, state: Any, inputs: Any, precision: Precision, **more: Any) -> Events:
    """Run on both devices, and without counting: one set of bits, one set of counts."""
    more = {"steps": 1, "runs": None, "record": None} | more
    results = [run(program, state, inputs, precision, KEY, device=d, events=True, **more) for d in ("exact", "cpu")]
    plain = run(program, state, inputs, precision, KEY, **more)
    assert plain.events is None
    for name, values in plain.state.items():
        for result in results:
            assert (bits(result.state[name]) == bits(values)).all(), name
    for name, values in plain.records.items():
        assert (bits(results[1].records[name]) == bits(values)).all(), name
    expected, got = results[0].events, results[1].events
    assert expected is not None
    assert got is not None
    assert got == expected, f"{precision}\n{got}\n{expected}"
    return got


def happened(counts: Any) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


BY_HAND = [
    ("mul", (1.25, 1.25), E5M2, "nearest_even", ["inexact"]),
    ("mul", (1.5, 0.5), E5M2, "nearest_even", []),
    ("mul", (2.0**-8, 2.0**-7), E5M2, "nearest_even", []),  # subnormal and exact
    ("mul", (2.0**-8, 2.0**-9), E5M2, "nearest_even", ["inexact", "underflow"]),
    ("mul", (2.0**-15, 2.0**-1), Format(5, 2, tiny="flush"), "nearest_even", ["inexact", "underflow"]),
    ("mul", (1.75, 2.0**-15 * 1.25), E5M2, "up", ["inexact"]),  # 1.09 times the smallest normal number
    ("sub", (2.0**-14, 2.0**-30), E5M2, "up", ["inexact", "swamped", "underflow"]),  # tiny before rounding
    ("mul", (300.0, 300.0), E5M2, "nearest_even", ["inexact", "overflow"]),
    ("mul", (300.0, 300.0), E5M2, "toward_zero", ["inexact", "overflow"]),
    ("round", (57344.0 + 1.0,), E5M2, "nearest_even", ["inexact"]),
    ("round", (57344.0 + 1.0,), E5M2, "up", ["inexact", "overflow"]),
    ("mul", (300.0, 300.0), named("float8_e4m3fn"), "nearest_even", ["inexact", "overflow"]),  # gives NaN
    ("div", (1.0, 0.0), E5M2, "nearest_even", ["divide_by_zero"]),
    ("div", (-1.0, 0.0), named("float8_e4m3fn"), "nearest_even", ["divide_by_zero"]),
    ("div", (0.0, 0.0), E5M2, "nearest_even", ["invalid"]),
    ("div", (NAN, 0.0), E5M2, "nearest_even", []),
    ("div", (INF, 0.0), E5M2, "nearest_even", []),
    ("round", (INF,), named("float8_e4m3fn"), "nearest_even", ["invalid"]),
    ("sub", (INF, INF), E5M2, "nearest_even", ["invalid"]),
    ("add", (INF, 1.0), E5M2, "nearest_even", []),
    ("mul", (0.0, INF), E5M2, "nearest_even", ["invalid"]),
    ("sqrt", (-1.0,), E5M2, "nearest_even", ["invalid"]),
    ("sqrt", (2.0,), E5M2, "nearest_even", ["inexact"]),
    ("add", (8.0, 0.5), E5M2, "nearest_even", ["inexact", "swamped"]),
    ("sub", (0.5, 8.0), E5M2, "nearest_even", ["inexact", "swamped"]),
    ("add", (8.0, 0.5), E5M2, "up", ["inexact"]),
    ("add", (8.0, -0.5), E5M2, "up", ["inexact", "swamped"]),
    ("add", (8.0, 0.0), E5M2, "nearest_even", []),
    ("add", (8.3, 0.1), E5M2, "up", ["inexact", "swamped"]),  # 8.3 alone becomes 10 too
    ("add", (2.0**-40, 0.0), E5M2, "nearest_even", ["inexact", "swamped", "underflow"]),  # as 0 alone
]  # fmt: skip


@pytest.mark.parametrize(("kind", "operands", "fmt", "mode", "expected"), BY_HAND)
def test_definitions_by_hand(kind: str, operands: Any, fmt: Format, mode: str, expected: list[str]) -> None:
    exactly = exact.value(kind, operands)
    result = exact.round_value(exactly, fmt, mode)
    assert sorted(of(kind, operands, exactly, result, fmt, mode)) == expected
    assert sorted(happened(count_events(kind, *operands, fmt=fmt, rounding=mode)[kind])) == expected


@pytest.mark.parametrize(("overflow", "mode"), [("nan", "up"), ("saturate", "nearest_even"), ("nan", "nearest_even")])
def test_what_an_unsigned_format_clamps_is_invalid_and_never_overflow(overflow: Any, mode: str) -> None:
    """Beyond the largest, between, and so small that it becomes 0, as -0 does, which is no negative number."""
    fmt = Format(2, 2, specials="fn", overflow=overflow, signed=False)
    counts = count_events("round", [-1e9, -1.0, -(2.0**-60), -0.0, 1e9], fmt=fmt, rounding=mode)["round"]
    assert happened(counts) == {"inexact": 4, "underflow": 1, "overflow": 1, "invalid": 3}


def test_the_negative_in_an_unsigned_format_is_invalid() -> None:
    fmt = named("float8_e8m0fnu")
    counts = count_events("round", [-1.0, 1.0, 0.0, 1.5], fmt=fmt)["round"]
    assert (counts["invalid"], counts["inexact"]) == (1, 3)


@step
def pairs(y: Any, a: Any, b: Any) -> Any:
    """Every rounded operation on the same two arrays."""
    return {
        "y": slot("p.add", a + b),
        "1": slot("p.sub", a - b),
        "2": slot("p.mul", a * b),
        "3": slot("p.div", a / b),
        "4": slot("p.sqrt", sqrt(a)),
        "5": slot("p.fma", fma(a, b, y)),
    }


SMALL = [
    named("float4_e2m1fn"),
    Format(2, 1),
    Format(2, 1, specials="fnuz", overflow="nan"),
    Format(2, 1, subnormals=False, overflow="saturate"),
    Format(3, 0, specials="fn", overflow="saturate_all", tiny="flush"),
    Format(1, 2, specials="fn", overflow="nan", tiny="flush"),  # 1.5 times the smallest normal number is the largest
    Format(2, 2, specials="fn", overflow="saturate", signed=False, tiny="flush"),
    Format(3, 0, specials="nan_only", overflow="saturate_all", signed=False, parity="code"),
]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("fmt", SMALL, ids=lambda f: f.name)
def test_all_pairs_of_small_formats(fmt: Format, mode: Rounding) -> None:
    a, b = np.array(list(itertools.product(values_of(fmt), repeat=2))).T
    y = np.where(np.isfinite(a), a, 0.0)[::-1].copy()
    same(pairs, {"y": y}, {"a": a, "b": b}, Precision.uniform(fmt, mode))


@pytest.mark.parametrize("mode", ["nearest_even", "to_odd", "down", Stochastic(4), Stochastic(20, "C")], ids=str)
@pytest.mark.parametrize("name", ["e3m2", "float8_e4m3fn", "e8m30", "binary64", "e11m51"])
def test_operands_that_are_not_on_the_grid(name: str, mode: Rounding) -> None:
    """Wide operands, some at the bounds that the kernels of binary64 rest on, and sums that nearly cancel."""
    rng = np.random.default_rng(4)
    edges = [2.0**k for k in (-1074, -1022, -1000, -969, -968, -967, -485, -484, 0, 511, 512, 1021, 1022, 1023)]
    edges += [0.0, 1.1, 5e-324 * 3, 1.7e308, INF, NAN, 1.0 - 2.0**-53]
    a = np.concatenate([np.repeat(edges, len(edges)), rng.standard_normal(60), rng.standard_normal(60) * 2.0**-8])
    b = np.concatenate([np.tile(edges, len(edges)), rng.standard_normal(60) * 2.0**-60, rng.standard_normal(60)])
    b[::3] *= -1.1
    precision = Precision.uniform(name, mode).replace(dict.fromkeys(("a", "b", "y"), ("binary64", "nearest_even")))
    same(pairs, {"y": np.nan_to_num(a * 0.5, posinf=1.0)}, {"a": a, "b": b}, precision)


PRECISIONS = {
    "bfloat16": Precision.uniform("bfloat16"),
    "bfloat16 stochastic": Precision.uniform("bfloat16", "stochastic"),
    "e4m3": Precision.uniform("float8_e4m3fn", Stochastic(12, "B")),
    "e4m3 down": Precision.uniform("float8_e4m3fn", "down"),
    "binary64": Precision.uniform("binary64"),
    "binary64 up": Precision.uniform("binary64", "up"),
    "mixed": Precision.uniform("bfloat16", "stochastic").replace({
        "v.*": ("e8m10", "nearest_even"), "v": ("e8m10", "up"), "update.div": ("float8_e4m3fn", Stochastic(20)),
        "w": ("binary16", "to_odd"), "m": ("e5m4", Stochastic(8)), "w.sub": "binary64"}),
    "storage": Precision.storage(w="bfloat16", m="e5m2", v="e8m7", g="float8_e5m2"),
    "crossed": Precision.uniform("e5m3").replace({
        "w.sub": "e5m1", "w": Format(3, 4, overflow="saturate"), "m.add": "e4m1", "m": ("e2m3", "up")}),
}  # fmt: skip


@pytest.mark.parametrize("name", PRECISIONS)
def test_adam(name: str) -> None:
    rng = np.random.default_rng(5)
    start = {"w": rng.standard_normal((3, 4)), "m": np.zeros(3), "v": np.zeros(3)}
    given = {"g": rng.standard_normal((8, 3, 4)) * np.array([1e-9, 1e-2, 1.0, 300.0])}
    events = same(adam, start, given, PRECISIONS[name], steps=8, runs=[3, 8, 1, 0], first_step=2, record=["w", "w.sub"])
    if name == "bfloat16":
        assert events["w"]["frozen"] > 0
        assert events["w.sub"]["swamped"] == events["w"]["frozen"]  # u is never off the grid and w never 0
        assert events["m.inject"]["underflow"] == 0


@step
def everything(w: Any, u: Any, g: Any, *, rate: Any = 0.001) -> Any:
    """A sum; states stored from a sum, from another state, from an operation that does not round, and one twice."""
    s = slot("p.sum", total(slot("p.mul", g * w)))
    high = maximum(w, absolute(s))
    last = slot("p.last", u + s * rate)
    return {"w": high, "u": last, "copy": last, "other": s, "g2": u}


@pytest.mark.parametrize("mode", ["nearest_even", "down", Stochastic(16), Stochastic(24)], ids=str)
@pytest.mark.parametrize("name", ["bfloat16", "e3m2", "binary64"])
def test_sums_and_stores_of_every_sort(name: str, mode: Rounding) -> None:
    rng = np.random.default_rng(6)
    start = {"w": rng.standard_normal((5, 3)), "u": rng.standard_normal(5)}
    given = {"g": rng.standard_normal((6, 5, 3))}
    same(everything, start, given, Precision.uniform(name, mode), steps=6, record=["p.sum", "other", "g2"])


@step
def exchange(a: Any, b: Any, c: Any, d: Any, *, rate: Any = 0.75) -> Any:
    """States that take each other's values, a sum, and the value of one operation twice."""
    s = slot("p.scale", a * rate)
    return {"a": b, "b": a, "c": s, "d": s}


@pytest.mark.parametrize("mode", ["nearest_even", Stochastic(9)], ids=str)
def test_states_that_exchange_values(mode: Rounding) -> None:
    state = {name: np.array([1.0, 0.75, 0.0, -2.0]) * k for k, name in enumerate("abcd", start=1)}
    state["c"] = np.array([0.75, 0.5, 0.0, -1.5])
    precision = Precision.uniform("e3m1", mode).replace({"a": "e3m2", "d": "e2m1"})
    same(exchange, state, {}, precision, steps=4)


def test_swamping_by_hand() -> None:
    @step
    def summed(w: Any, a: Any) -> Any:
        return {"w": slot("p.sum", total(a))}

    a = [256.0, 1.0, 1.0, 1.0, 2.0, 0.0]
    events = same(summed, {"w": np.zeros(6)}, {"a": a}, Precision.uniform("bfloat16"))
    assert happened(events["p.sum"]) == {"inexact": 3, "swamped": 3}
    # Draws decide which of the three are: 256 + 1 becomes 258 with probability 1/2.
    events = same(summed, {"w": np.zeros(6)}, {"a": a}, Precision.uniform("bfloat16", Stochastic(4)), runs=range(40))
    assert 0 < events["p.sum"]["swamped"] < events["p.sum"]["inexact"] == 120


def test_freezing_by_hand() -> None:
    w, program = [1.0, 1.0, 1.0, -4.0, 0.0], sgd.bind(lr=1.0)
    g = [2.0**-9, 2.0**-8, 0.0, 2.0**-12, 2.0**-12]  # half a gap below 1, a gap, nothing, far below, all of it
    events = same(program, {"w": w}, {"g": g}, Precision.uniform("bfloat16"))
    assert happened(events["w"]) == {"frozen": 2}
    assert happened(events["w.sub"]) == {"inexact": 2, "swamped": 2}
    # A wide operation: only the storage freezes.
    precision = Precision.uniform("binary64").replace({"w": "bfloat16"})
    events = same(program, {"w": w}, {"g": g}, precision)
    assert happened(events["w"]) == {"inexact": 2, "frozen": 2}
    assert happened(events["w.sub"]) == {}
    # Rounding up leaves 1 - 2^-9 and -4 - 2^-12 where they are, rounding down moves both.
    assert same(program, {"w": w}, {"g": g}, Precision.uniform("bfloat16", "up"))["w"]["frozen"] == 2
    assert same(program, {"w": w}, {"g": g}, Precision.uniform("bfloat16", "down"))["w"]["frozen"] == 0


def test_two_roundings_that_cancel_freeze_only_what_would_have_moved() -> None:
    """15.5 - 0 is 15.5, becomes 16 in two bits and 15.5 again where it is stored; so does 15.5 - 0.25."""
    stored = Format(3, 4, overflow="saturate")
    precision = Precision.uniform("binary64").replace({"w.sub": "e5m1", "w": stored})
    events = same(sgd.bind(lr=1.0), {"w": [stored.max] * 3}, {"g": [0.0, 0.25, 5.0]}, precision)
    assert happened(events["w.sub"]) == {"inexact": 3, "swamped": 1}
    assert happened(events["w"]) == {"inexact": 2, "overflow": 2, "frozen": 1}


def test_what_binary64_does_itself_is_counted_right() -> None:
    x = [1.0, 0.0, 1e-310, 1e300, 1e-200, INF, -3.0]
    y = [0.0, 0.0, 3.0, 1e-300, 1e-200, 1.0, 7.0]
    events = same(pairs, {"y": np.zeros(7)}, {"a": x, "b": y}, Precision.uniform("binary64"))
    assert happened(events["p.div"]) == {
        "inexact": 3, "underflow": 1, "overflow": 1, "invalid": 1, "divide_by_zero": 1}  # fmt: skip
    assert happened(events["p.mul"])["underflow"] == 1  # 1e-400 became 0
    assert events["p.sqrt"]["invalid"] == 1


def test_blocks_strips_and_chunks_of_steps_do_not_change_counts() -> None:
    d, lanes, steps = 700, 4, 5
    rng = np.random.default_rng(7)
    start = {"w": rng.standard_normal((d, lanes)), "m": np.zeros(d), "v": np.zeros(d)}
    g = rng.standard_normal((steps, d, lanes))
    precisions = [Precision.uniform(name, Stochastic(16)) for name in ("e4m3", "e8m7")]

    def count(chosen: list[Precision], pick: list[int], pieces: list[int]) -> dict[str, Any]:
        machine = Machine(adam, chosen, len(pick) // len(chosen), d, KEY, np.array(pick), events=True, track=("w",))
        machine.load({name: x[:, pick] if x.ndim == 2 else x for name, x in start.items()})
        done = 0
        for piece in pieces:
            machine.run(piece, {"g": g[done : done + piece][:, :, pick]})
            done += piece
        return machine.events()

    both = count(precisions, [0, 1, 2, 3], [5])
    pieces = count(precisions, [0, 1, 2, 3], [2, 3])
    apart = [[count([p], [lane], [5]) for lane in lanes] for p, lanes in zip(precisions, ([0, 1], [2, 3]), strict=True)]
    for slot_name, counts in both.items():
        for name in NAMES:
            assert counts[name].tolist() == pieces[slot_name][name].tolist()
            assert counts[name].tolist() == [
                sum(int(one[slot_name][name][0]) for one in of_block) for of_block in apart
            ]
    assert both["w"]["frozen"].sum() > 0


def test_some_events_only() -> None:
    rng = np.random.default_rng(9)
    machines = [
        Machine(adam, [Precision.uniform("e4m3", "stochastic")], 3, 2, KEY, np.arange(3), events=chosen)
        for chosen in (True, ("overflow", "inexact"), ("frozen",), ("swamped",))
    ]
    g = rng.standard_normal((6, 2, 3))
    for machine in machines:
        machine.load({"w": np.full(2, 3.0), "m": np.zeros(2), "v": np.zeros(2)})
        machine.run(6, {"g": g})
    everything, *some = (machine.events() for machine in machines)
    for events in some:
        for name, counts in events.items():
            assert counts == {event: everything[name][event] for event in counts}
    assert [tuple(events["w"]) for events in some] == [("overflow", "inexact"), ("frozen",), ("swamped",)]
    assert everything["w"]["frozen"][0] > 0
    assert everything["w.sub"]["swamped"][0] > 0


@pytest.mark.parametrize("kind", ["round", "add", "sub", "mul", "div", "sqrt", "fma"])
def test_counts_of_one_operation_on_arrays(kind: str) -> None:
    rng = np.random.default_rng(8)
    arity = {"round": 1, "sqrt": 1, "fma": 3}.get(kind, 2)
    x = [np.exp2(rng.integers(-9, 9, 400)) * rng.standard_normal(400) for _ in range(arity)]
    for mode in ("nearest_away", Stochastic(8), Stochastic(30)):
        n = mode.bits if isinstance(mode, Stochastic) else 0
        words = [int(w) for w in array_draw(KEY, np.arange(400), n)] if n else [None] * 400
        expected = dict.fromkeys(NAMES, 0)
        for *operands, word in zip(*x, words, strict=True):
            exactly = exact.value(kind, operands)
            result = exact.round_value(exactly, E5M2, mode, word)
            for name in of(kind, operands, exactly, result, E5M2, mode, word):
                expected[name] += 1
        assert count_events(kind, *x, fmt=E5M2, rounding=mode, key=KEY)[kind] == expected


def test_counts_of_broadcast_and_of_empty_arrays() -> None:
    counts = count_events("add", np.full((3, 1), 256.0, dtype=np.float32), [1, 2], fmt="bfloat16")["add"]
    assert happened(counts) == {"inexact": 3, "swamped": 3}
    assert happened(count_events("sqrt", [], fmt="bfloat16")["sqrt"]) == {}


def test_records() -> None:
    events = Events({"a": dict.fromkeys(NAMES, 0) | {"inexact": 12}, "b": dict.fromkeys(NAMES, 0)})
    assert (list(events), len(events), events.total("inexact")) == (["a", "b"], 2, 12)
    assert str(events).splitlines()[1].split() == ["a", "12", "0", "0", "0", "0", "0", "0"]
    assert len(str(Events({})).splitlines()) == 1
    assert equals(exact.value("sub", (1.0, 1.0)), -0.0)
    assert not equals(exact.value("round", (INF,)), -INF)


def test_errors() -> None:
    machine = Machine(sgd, [Precision.uniform("e4m3")], 1, 1, None, np.arange(1))
    with pytest.raises(ValueError, match="made with events=True"):
        machine.events()
    with pytest.raises(ValueError, match="events: 'swamp'; admissible: True, False, or some of inexact"):
        Machine(sgd, [Precision.uniform("e4m3")], 1, 1, None, np.arange(1), events=["swamp"])
    with pytest.raises(TypeError, match="events='swamped': True, False or a list of names"):
        Machine(sgd, [Precision.uniform("e4m3")], 1, 1, None, np.arange(1), events="swamped")
    with pytest.raises(TypeError, match=r"events=\['swamped'\]; admissible: True, False"):
        run(sgd, {"w": [1.0]}, {"g": [1.0]}, Precision.uniform("e4m3"), events=["swamped"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="event 'swamp'; admissible: inexact, underflow"):
        Events({}).total("swamp")
    with pytest.raises(ValueError, match="add with 1 operands; admissible: 2"):
        count_events("add", [1.0], fmt="e4m3")
    with pytest.raises(ValueError, match="key=None: rounding stochastic4"):
        count_events("sqrt", [1.0], fmt="e4m3", rounding=Stochastic(4))
    with pytest.raises(ValueError, match="dtype complex128"):
        count_events("sqrt", [1j], fmt="e4m3")
    with pytest.raises(ValueError, match="kind='sinh'"):
        count_events("sinh", [1.0], fmt="e4m3")
