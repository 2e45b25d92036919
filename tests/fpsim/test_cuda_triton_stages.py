"""Programs of several shapes printed as Triton kernels in stages: the bits of ``fpsim.run``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiers import slow_but
from triton_session import DEVICE, KEY, assert_same

import fpsim
from experiments.problems.dense_quadratic import dense_quadratic
from experiments.problems.rosenbrock import rosenbrock
from fpsim.optim import STEPS
from fpsim.tracing import column, gather, slot, total, total_of_products

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only")]
pytestmark += [pytest.mark.cuda] * (DEVICE == "cuda")
RUNS = np.array([3, 0, 2**32 - 1], dtype=np.uint64)
STEPS_RUN = 3
MODES = ("nearest_even", "down", fpsim.Stochastic(16), fpsim.Stochastic(24, "C"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPSIM_CACHE_DIR", str(tmp_path))


def check(
    program: Any, precision: Any, lengths: Mapping[str, int], given: Mapping[str, Any] | None = None, record: Any = None
) -> None:
    """Every slot and array after every step, in two blocks of which one has the precision's formats a bit wider."""
    from fpsim.cuda.triton_machine import TritonMachine

    rng = np.random.default_rng(7)
    sizes = fpsim.shapes.Sizes(lengths)
    made: dict[str, Any] = {}
    for name in program.inputs:
        shape = sizes.of(program.shape(name))
        if name in program.shared:
            made[name] = rng.standard_normal(shape)
        elif name in program.state:
            made[name] = np.abs(rng.standard_normal((*shape, RUNS.size)))
        else:
            made[name] = rng.standard_normal((STEPS_RUN, *shape, RUNS.size))
    made |= given or {}
    state = {name: made[name] for name in program.state}
    inputs = {name: x for name, x in made.items() if name not in state}
    per_step = {name: x for name, x in inputs.items() if np.ndim(x) == len(program.shape(name)) + 2}
    record = [*(o.slot for o in program.operations if o.kind != "expand"), *program.state]
    precisions = (precision, precision.replace({"w": ("e8m12", precision.default[1])}))
    runs = np.tile(RUNS, 2)
    ours = TritonMachine(program, precisions, RUNS.size, dict(lengths), KEY, runs, device=DEVICE)
    ours.load({name: np.tile(x, 2) for name, x in state.items()}, {n: inputs[n] for n in inputs if n not in per_step})
    ours.first_step = 4
    records = ours.run(STEPS_RUN, per_step, record)
    for block, chosen in enumerate(precisions):
        wanted = fpsim.run(program, state, inputs, chosen, KEY, steps=STEPS_RUN, first_step=4, runs=RUNS, record=record)
        lanes = slice(block * RUNS.size, (block + 1) * RUNS.size)
        for name in record:
            assert_same(records[name][..., lanes], wanted.records[name])


@pytest.mark.parametrize("rounding", slow_but(MODES[1:], MODES[2]), ids=str)
@pytest.mark.parametrize("name", slow_but(["nadam", "adafactor", "adafactor_vector"], "nadam"))
def test_optimizers_with_sums_and_numbers_of_a_run(name: str, rounding: Any) -> None:
    check(STEPS[name], fpsim.Precision.uniform("e8m9", rounding), {"d": 5, "n": 3, "k": 5})


@pytest.mark.slow
@pytest.mark.parametrize("rounding", MODES[:3], ids=str)
def test_gradients_of_problems(rounding: Any) -> None:
    for problem in (dense_quadratic(6), rosenbrock(12, rows=4)):
        program = problem.program >> STEPS["momentum"]
        precision = fpsim.Precision.uniform("bfloat16", rounding)
        constants = {name: np.asarray(x) for name, x in problem.constants.items()}
        check(program, precision, {"d": problem.dimension} | program.lengths(constants), constants)


@fpsim.step(shapes={"x": ("b", "d"), "index": ("b",), "A": ("n", "d"), "scale": (), "picks": ("c",)},
            shared=("A", "picks"))  # fmt: skip
def every_kind(w: Any, x: Any, index: Any, A: Any, scale: Any, picks: Any, *, lr: Any = 0.3, t: Any) -> dict[str, Any]:
    """Sums in every order over every axis, of arrays of all kinds, and the old weights read after the new are known."""
    rows = slot("rows", gather(A, index) * x)
    product = slot("product", total_of_products(rows, w, axis=1))
    blocked = slot("blocked", total(slot("outer", column(product) * w), axis=0, order="blocked", block=2))
    whole = slot("whole", total(x, order="pairwise"))
    columns = gather(slot("twice", x + whole), picks, axis=1)
    last = slot("last", total(slot("part", columns * scale), axis=1, order="pairwise"))
    moved = slot("w.sub", w - slot("w.scale", lr * blocked))
    after = slot("after", total(slot("again", moved * w)))
    far = slot("far", gather(w, picks) + slot("count", total(last, axis=0, order="blocked", block=3)))
    return {"w": moved, "x": slot("x.add", x + slot("small", lr * after)), "scale": slot("one", total(far, axis=0))}


@pytest.mark.parametrize("rounding", slow_but(MODES, MODES[0]), ids=str)
def test_every_kind_of_operation(rounding: Any) -> None:
    rng = np.random.default_rng(3)
    index = rng.integers(0, 4, (STEPS_RUN, 5, RUNS.size)).astype(np.float64)
    picks = np.array([2.0, 0.0, 2.0])
    precision = fpsim.Precision.uniform("e8m7", rounding)
    program = every_kind.bind(lr=(0.5, 0.25, 0.3))
    check(program, precision, {"b": 5, "d": 3, "n": 4, "c": 3}, {"index": index, "picks": picks})


@pytest.mark.skipif(DEVICE == "cuda", reason="thread blocks of a card have a length of their own")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["every_kind", "adafactor"])
def test_lanes_and_elements_may_be_shared_out_in_any_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three lanes in a thread block, and eight places at a time."""
    from fpsim.cuda.triton_machine import TritonMachine

    monkeypatch.setattr(TritonMachine, "_shares", lambda self, staged: (2, 8))
    given: dict[str, Any] = {}
    if name == "every_kind":
        given = {"index": np.ones((STEPS_RUN, 3, RUNS.size)), "picks": np.array([2.0, 0.0, 2.0])}
    lengths = {"b": 3, "d": 3, "n": 2, "c": 3, "k": 3}
    check(every_kind if name == "every_kind" else STEPS[name], fpsim.Precision.uniform("e8m7"), lengths, given)


def test_what_does_not_fit_is_refused_by_name() -> None:
    from fpsim.cuda.triton_machine import TritonMachine

    lengths, precision = {"b": 5, "d": 3, "n": 4, "c": 3}, fpsim.Precision.uniform("bfloat16")
    ours = TritonMachine(every_kind, [precision], 2, lengths, None, [0, 1], device=DEVICE)
    with pytest.raises(ValueError, match=r"gather.*: index 'picks' holds 3; admissible: integers of 0..2"):
        ours.load({}, {"picks": np.array([0.0, 1.0, 3.0])})
    with pytest.raises(ValueError, match=r"array 'A' has shape \(4, 3, 2\); admissible: \(4, 3\), for all runs share"):
        ours.load({}, {"A": np.zeros((4, 3, 2))})
    with pytest.raises(ValueError, match=r"per-step input 'index' has shape \(2, 5\); admissible: \(2, 5, 2\)"):
        ours.run(2, {"index": np.zeros((2, 5))})


def test_stages_are_readable() -> None:
    from fpsim.cuda.triton_machine import TritonMachine
    from fpsim.cuda.triton_print_stages import Staged

    precision = fpsim.Precision.uniform("bfloat16")
    ours = TritonMachine(STEPS["nadam"], [precision], 1, 8, None, [0], device=DEVICE)
    staged = Staged(ours.text({"g": False}, (False, False), ()))
    text = staged.printed()
    assert "# Stage 1: one number" in text and "# Stage 2: [d]" in text and len(staged.stages) == 2
    assert "v_w_sub = operation(SUB, PLAIN, NEAREST_EVEN, 0, True, v_w, v_update_scale, v_w, nothing, f0)" in text
    assert text.count("tl.debug_barrier()") == 2 and staged.dimensions == ("d",)
