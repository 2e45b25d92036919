"""The CPU machine against the exact reader, and the independence of its results from how it is driven."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpsim import exact_run
from fpsim.cpu import jit
from fpsim.cpu.machine import Machine
from fpsim.number_format import Format
from fpsim.optim.adam import adam
from fpsim.precision import Precision
from fpsim.program import Operation, Program
from fpsim.random_bits import Key
from fpsim.rounding import CODES, Stochastic
from fpsim.tracing import absolute, fma, maximum, minimum, scalar, slot, sqrt, step, total

KEY = Key(11)
MODES: list[Any] = [*CODES, Stochastic(16), Stochastic(24)]


def bits(x: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(x, dtype=np.float64).view(np.uint64)


def inputs(steps: int, d: int, lanes: int, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    generator = np.random.default_rng(seed)
    start = {"w": generator.standard_normal((d, lanes)), "m": np.zeros(d), "v": np.zeros(d)}
    return start, {"g": generator.standard_normal((steps, d, lanes))}


def check(program: Program, start: Any, given: Any, precision: Precision, steps: int, record: list[str]) -> None:
    lanes = next(x.shape[-1] for x in {**start, **given}.values() if np.ndim(x) > 1)
    runs = np.arange(5, 5 + lanes)
    d = len(next(iter(start.values())))
    state, records = exact_run.run(
        program, start, given, precision, KEY, steps=steps, first_step=3, runs=runs.tolist(), record=record
    )
    machine = Machine(program, [precision], lanes, d, KEY, runs)
    machine.first_step = 3
    per_step = {name: x for name, x in given.items() if np.ndim(x) == 3}
    machine.load(start, {name: x for name, x in given.items() if np.ndim(x) < 3})
    got = machine.run(steps, per_step, record)
    for name in record:
        assert (bits(got[name][:, 0]) == bits(records[name])).all(), name
    for name in program.state:
        assert (bits(machine.state(name)) == bits(state[name])).all(), name


@pytest.mark.parametrize("name", ["bfloat16", "binary16", "float8_e4m3fn", "e8m10", "e11m52"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_adam_equals_the_exact_reader(name: str, mode: Any) -> None:
    start, given = inputs(12, 2, 3)
    check(adam, start, given, Precision.uniform(name, mode), 12, ["w", "m.inject", "update.div"])


PRECISIONS = {
    "mixed": Precision.uniform("bfloat16", "stochastic").replace(
        {"v.*": ("e8m10", "nearest_even"), "v": ("e8m10", "up"), "update.div": ("float8_e4m3fn", Stochastic(20)),
         "w": ("binary16", "to_odd"), "m": ("e5m4", Stochastic(8)), "g": ("e6m9", Stochastic(16))}),
    "storage": Precision.storage(w="bfloat16", m="e5m2", v="e8m7", g="float8_e5m2"),
    "storage stochastic": Precision.storage(w="bfloat16", rounding="stochastic"),
    "wide scalars": Precision.uniform("bfloat16", "nearest_even", scalars="wide"),
    "python scalars": Precision.uniform("e8m23", "down", scalars="python"),
    "stored scalars": Precision.uniform("bfloat16", "toward_zero", scalars="stored"),
    "no subnormals": Precision.uniform(Format(5, 6, subnormals=False, tiny="flush"), Stochastic(12)),
}  # fmt: skip


@pytest.mark.parametrize("name", PRECISIONS)
def test_mixed_precisions(name: str) -> None:
    start, given = inputs(8, 2, 3, seed=1)
    check(adam, start, given, PRECISIONS[name], 8, ["w", "m", "v", "update.scale"])


@step
def everything(w: Any, u: Any, g: Any, c: Any, *, lr: Any = 0.1, t: Any) -> Any:
    """One of each kind; a sum; two stores that exchange arrays; an array stored in two places."""
    a = slot("a", fma(w, c, g))
    e = slot("e", absolute(slot("b", a - u)))
    f = slot("f", sqrt(e))
    s = slot("s", total(slot("h", f * scalar("rate", lr / t))))
    low = slot("low", minimum(s, w))
    high = slot("high", maximum(low, slot("n", -g)))
    return {"w": u, "u": slot("last", high / (e + 1)), "copy": a}


@pytest.mark.parametrize("mode", ["nearest_even", "down", Stochastic(16), Stochastic(32)], ids=str)
@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2fnuz", "binary64"])
def test_every_kind_of_operation(name: str, mode: Any) -> None:
    generator = np.random.default_rng(2)
    start = {"w": generator.standard_normal((4, 3)), "u": generator.standard_normal(4)}
    given = {"g": generator.standard_normal((6, 4, 3)), "c": generator.standard_normal(4)}
    record = ["w", "u", "copy", "s", "low", "high", "n", "e"]
    check(everything, start, given, Precision.uniform(name, mode), 6, record)


def test_infinities_and_nan_in_a_program() -> None:
    start = {"w": np.array([[np.inf, -0.0, 3e38]]), "m": np.array([[0.0, -1e-40, 1e38]]), "v": np.zeros(1)}
    given = {"g": np.array([[[1.0, -np.inf, 1e30]]] * 3)}
    for name in ("bfloat16", "float8_e4m3fn", "float6_e3m2fn"):
        for mode in ("nearest_even", "up", Stochastic(16)):
            check(adam, start, given, Precision.uniform(name, mode), 3, ["w", "v", "update.div"])


def test_chunks_blocks_lanes_and_strips_do_not_change_results() -> None:
    """16 lanes at once; in two calls; in two blocks beside another format; in reversed order; one by one; d = 700."""
    d, lanes, steps = 700, 4, 7
    start, given = inputs(steps, d, lanes, seed=3)
    p, other = Precision.uniform("e6m9", Stochastic(16)), Precision.uniform("e4m3", Stochastic(16))
    runs = np.array([9, 2, 40, 7])

    def run(
        precisions: list[Precision], pick: npt.NDArray[np.int64], per_block: int, pieces: list[int]
    ) -> npt.NDArray[np.float64]:
        machine = Machine(adam, precisions, per_block, d, KEY, runs[pick])
        machine.load({name: x[:, pick] if x.ndim == 2 else x for name, x in start.items()})
        done = 0
        for piece in pieces:
            machine.run(piece, {"g": given["g"][done : done + piece][:, :, pick]})
            done += piece
        return machine.state("w")

    everyone = np.arange(lanes)
    expected = run([p], everyone, lanes, [7])
    assert np.isfinite(expected).all()
    assert (run([p], everyone, lanes, [3, 0, 4]) == expected).all()
    assert (run([p], everyone[::-1].copy(), lanes, [7])[:, ::-1] == expected).all()
    assert (run([other, p], np.array([1, 2, 0, 3]), 2, [7])[:, 2:] == expected[:, [0, 3]]).all()
    for lane in everyone:
        assert (run([p], np.array([lane]), 1, [7])[:, 0] == expected[:, lane]).all()
    assert len(np.unique(expected[0])) == lanes


def test_inputs_shared_by_blocks_and_views() -> None:
    _, given = inputs(2, 3, 2)
    machine = Machine(adam, [Precision.uniform("bfloat16"), Precision.uniform("binary16")], 2, 3, None, np.arange(4))
    machine.load({"w": np.ones((3, 4)), "m": np.zeros(3), "v": np.zeros(3)})
    records = machine.run(2, given, ["w"])
    assert records["w"].shape == (2, 2, 3, 2)
    view = machine.values("w")
    assert view.shape == (2, 3, 2)
    assert view.base is not None
    assert (view == records["w"][-1]).all()
    assert (machine.state("w")[:, 2:] == view[1]).all()
    assert machine.first_step == 2


def test_extremes_and_events() -> None:
    program = Program("p", ("w", "g"), (("w", "w.sub"),), (), (
        Operation("mul", "square", ("g", "g")), Operation("sub", "w.sub", ("w", "square")),
    ))  # fmt: skip
    fmt = Format(5, 2)
    machine = Machine(
        program, [Precision.uniform(fmt)], 4, 1, None, np.arange(4), track=("w", "square", "g"), events=True
    )
    machine.load({"w": [[1.0, 2.0, np.inf, -3.0]]})
    g = np.array([[[0.0, 300.0, np.inf, 2.0**-8]], [[2.0**-7, 1.0, 1.0, 2.0**-14]]])
    records = machine.run(2, {"g": g}, ["w", "square", "g"])
    start = np.abs([[1.0, 2.0, np.inf, -3.0]])
    for name, extra in (("w", start), ("square", None), ("g", None)):
        seen = np.abs(records[name][:, 0, 0])
        seen = seen if extra is None else np.concatenate([extra, seen])
        low, high = machine.extremes()[name]
        assert (low[0, 0] == np.nanmin(seen, axis=0)).all()
        assert (high[0, 0] == np.nanmax(seen, axis=0)).all()
    events = machine.events()
    counts = {slot: {k: int(v[0]) for k, v in of_slot.items() if v[0]} for slot, of_slot in events.items()}
    assert counts["square"] == {"inexact": 2, "underflow": 1, "overflow": 1}  # 2^-16 is subnormal and exact
    assert counts["w.sub"] == {"inexact": 2, "swamped": 2, "invalid": 1}
    assert counts["w"] == {"frozen": 2}
    machine.reset_events()
    machine.reset_extremes()
    assert machine.events()["square"]["overflow"].sum() == 0
    assert (machine.extremes()["w"][0] == np.abs(machine.values("w")))[0, 0, [0, 1, 3]].all()


def test_a_learning_rate_for_each_run() -> None:
    rates = np.array([0.1, 0.01, 0.001])
    start, given = inputs(5, 2, 3)
    together = Machine(adam.bind(lr=rates), [Precision.uniform("bfloat16")], 3, 2, None, np.arange(3))
    together.load(start)
    together.run(5, given)
    for lane, rate in enumerate(rates):
        alone = Machine(adam.bind(lr=float(rate)), [Precision.uniform("bfloat16")], 1, 2, None, np.array([lane]))
        alone.load({name: x[:, [lane]] if x.ndim == 2 else x for name, x in start.items()})
        alone.run(5, {"g": given["g"][:, :, [lane]]})
        assert (alone.state("w")[:, 0] == together.state("w")[:, lane]).all()


def test_errors() -> None:
    p = Precision.uniform("bfloat16")
    with pytest.raises(ValueError, match=r"slot 'm.decay': rounding up in block 1 and nearest_even in block 0"):
        Machine(adam, [p, Precision.uniform("bfloat16", "up")], 1, 1, KEY, np.arange(2))
    with pytest.raises(ValueError, match="key=None"):
        Machine(adam, [Precision.uniform("bfloat16", "stochastic")], 1, 1, None, np.arange(1))
    with pytest.raises(ValueError, match=r"runs of shape \(3,\)"):
        Machine(adam, [p], 1, 1, KEY, np.arange(3))
    with pytest.raises(ValueError, match=r"outside 0..2\^32-1"):
        Machine(adam, [p], 1, 1, KEY, np.array([1 << 32]))
    with pytest.raises(ValueError, match="dimension=0"):
        Machine(adam, [p], 1, 0, KEY, np.arange(1))
    with pytest.raises(ValueError, match="track 'x'"):
        Machine(adam, [p], 1, 1, KEY, np.arange(1), track=("x",))
    machine = Machine(adam, [p], 2, 3, KEY, np.arange(2))
    with pytest.raises(ValueError, match=r"'w' has shape \(2,\); admissible: \(3,\) or \(3, 2\)"):
        machine.load({"w": [1.0, 2.0]})
    with pytest.raises(ValueError, match="'q' is not an input"):
        machine.load({"q": [1.0, 2.0]})
    with pytest.raises(ValueError, match="record 'nothing'"):
        machine.run(1, {}, ["nothing"])
    with pytest.raises(ValueError, match=r"shape \(1, 3, 5\)"):
        machine.run(1, {"g": np.zeros((1, 3, 5))})
    exotic = Program("p", ("x",), (("y", "e"),), (), (Operation("opaque", "e", ("x",)),))
    with pytest.raises(ValueError, match="kind 'opaque'"):
        Machine(exotic, [p], 1, 1, KEY, np.arange(1))


def test_the_key_of_the_compilation_cache_covers_every_source(tmp_path: Path) -> None:
    """An edited kernel file changes the integer that the cached entry point captures."""
    folder = Path(jit.__file__).parent
    for path in folder.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['SOURCES'])"

    def stamp() -> int:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "jit.py")], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert stamp() == jit.SOURCES
    with (tmp_path / "rounding_kernels.py").open("a") as file:
        file.write("\n")
    assert stamp() != jit.SOURCES
