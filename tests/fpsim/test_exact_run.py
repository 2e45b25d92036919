"""The exact reader against programs written by hand in NumPy's correctly rounded float32 and float16."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from oracles import MODES, bits

from fpsim import exact, exact_run
from fpsim.formats import format as named
from fpsim.optim import STEPS, adam, momentum, rmsprop, sgd
from fpsim.precision import Precision
from fpsim.program import Operation
from fpsim.random_bits import Key, program_draw
from fpsim.rounding import Stochastic
from fpsim.run import run as run_program
from fpsim.tracing import absolute, fma, maximum, minimum, slot, sqrt, step, total


@step
def quadratic(w, curvature, center):
    return {"g": slot("scale", curvature * slot("difference", w - center))}


def nearest(x: Fraction, dtype: Any) -> Any:
    """A scalar by exact arithmetic, rounded once (binary32 or binary16; no ties occur)."""
    return dtype(float(x))


def numpy_adam(w: np.ndarray, gradients: np.ndarray, dtype: Any) -> dict[str, np.ndarray]:
    lr, b1, b2, eps = (nearest(Fraction(x), dtype) for x in (1e-3, 0.9, 0.999, 1e-8))
    c1, c2 = (nearest(1 - Fraction(x), dtype) for x in (0.9, 0.999))
    w, m, v = w.astype(dtype), np.zeros_like(w, dtype), np.zeros_like(w, dtype)
    for t, g in enumerate(gradients.astype(dtype), start=1):
        m = b1 * m + c1 * g
        v = b2 * v + c2 * (g * g)
        m_hat = m / nearest(1 - Fraction(0.9) ** t, dtype)
        v_hat = v / nearest(1 - Fraction(0.999) ** t, dtype)
        w = w - lr * (m_hat / (np.sqrt(v_hat) + eps))
    return {"w": w, "m": m, "v": v}


def test_adam_in_binary32_is_numpys() -> None:
    rng = np.random.default_rng(7)
    w, gradients = rng.standard_normal((3, 2)), rng.standard_normal((200, 3, 2))
    zeros = np.zeros((3, 2))
    state, _ = exact_run.run(
        adam, {"w": w, "m": zeros, "v": zeros}, {"g": gradients}, Precision.uniform("binary32"), steps=200, runs=(0, 1)
    )
    expected = numpy_adam(w, gradients, np.float32)
    for name, array in expected.items():
        assert array.dtype == np.float32
        assert bits(state[name].ravel()).tolist() == bits(array.ravel()).tolist()


def test_rmsprop_in_binary32_is_numpys() -> None:
    rng = np.random.default_rng(8)
    w, gradients = rng.standard_normal((3, 1)), rng.standard_normal((100, 3, 1))
    state, _ = exact_run.run(
        rmsprop, {"w": w, "v": np.zeros(3)}, {"g": gradients}, Precision.uniform("binary32"), steps=100
    )
    lr, b2, eps = (np.float32(x) for x in (0.01, 0.99, 1e-8))
    c2 = nearest(1 - Fraction(0.99), np.float32)
    w32, v = w.astype(np.float32), np.zeros((3, 1), np.float32)
    for g in gradients.astype(np.float32):
        v = b2 * v + c2 * (g * g)
        w32 = w32 - lr * (g / (np.sqrt(v) + eps))
    assert state["w"].tolist() == w32.tolist()
    assert state["v"].tolist() == v.tolist()


@pytest.mark.parametrize("scale", [1.0, 2.0**-10, 2.0**12])
def test_sgd_in_binary16_is_numpys(scale: float) -> None:
    """Subnormal products and overflow included."""
    rng = np.random.default_rng(9)
    w, gradients = scale * rng.standard_normal((4, 1)), scale * rng.standard_normal((60, 4, 1))
    gradients[50:] *= 2.0**5 if scale > 1 else 1.0
    program = sgd.bind(lr=0.1 * scale if scale > 1 else 0.1)
    state, records = exact_run.run(
        program, {"w": w}, {"g": gradients}, Precision.uniform("binary16"), steps=60, record=["update.scale", "w"]
    )
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        w16, lr = w.astype(np.float16), np.float16(program.hyperparameters["lr"])
        for t, g in enumerate(gradients.astype(np.float16)):
            product = lr * g
            w16 = w16 - product
            assert bits(records["update.scale"][t].ravel()).tolist() == bits(product.ravel()).tolist()
            assert bits(records["w"][t].ravel()).tolist() == bits(w16.ravel()).tolist()
    assert np.any(np.isinf(records["w"])) == (scale > 1)
    assert bits(state["w"].ravel()).tolist() == bits(w16.ravel()).tolist()


def test_momentum_in_binary64_is_pythons() -> None:
    precision = Precision.uniform("binary64", scalars="python")
    gradients = np.random.default_rng(10).standard_normal((50, 1, 1))
    state, _ = exact_run.run(momentum, {"w": [0.3], "m": [0.0]}, {"g": gradients}, precision, steps=50)
    w, m = 0.3, 0.0
    for g in gradients.ravel().tolist():
        m = 0.9 * m + (1 - 0.9) * g
        w = w - 0.1 * m
    assert (state["w"].item(), state["m"].item()) == (w, m)


@pytest.mark.parametrize("mode", [*MODES, "stochastic", Stochastic(20)])
@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_chunks_are_one_run(name: str, mode: Any) -> None:
    program, key = quadratic >> STEPS[name], Key(3)
    precision = Precision.uniform("bfloat16", mode).replace({"v*" if name == "adam" else "m": ("binary16", mode)})
    start = {array: np.full((2, 2), 0.75 if array == "w" else 0.0) for array in program.state}
    inputs: dict[str, Any] = {"curvature": [1.0, 0.3], "center": [0.1, -0.7]}
    runs = (4, 9)

    def run(state: dict[str, Any], first: int, steps: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        state, records = exact_run.run(
            program, state, inputs, precision, key, steps=steps, first_step=first, runs=runs, record=["w"]
        )
        return state, records["w"]

    whole, records = run(start, 0, 12)
    half, first = run(start, 0, 5)
    rest, second = run(half, 5, 7)
    assert {k: v.tolist() for k, v in rest.items()} == {k: v.tolist() for k, v in whole.items()}
    assert np.concatenate([first, second]).tolist() == records.tolist()


def test_per_step_inputs_in_chunks() -> None:
    g = np.random.default_rng(2).standard_normal((12, 3, 1))
    precision = Precision.uniform("e5m2", "stochastic")
    whole, _ = exact_run.run(sgd, {"w": np.ones(3)}, {"g": g}, precision, Key(5), steps=12)
    half, _ = exact_run.run(sgd, {"w": np.ones(3)}, {"g": g[:5]}, precision, Key(5), steps=5)
    rest, _ = exact_run.run(sgd, half, {"g": g[5:]}, precision, Key(5), steps=7, first_step=5)
    assert rest["w"].tolist() == whole["w"].tolist()


def test_a_run_does_not_depend_on_its_neighbours() -> None:
    g = np.random.default_rng(3).standard_normal((6, 2, 3))
    precision = Precision.uniform("e4m3", "stochastic")
    together, _ = exact_run.run(sgd, {"w": np.ones(2)}, {"g": g}, precision, Key(8), steps=6, runs=(0, 7, 2**32 - 1))
    for lane, number in enumerate((0, 7, 2**32 - 1)):
        alone, _ = exact_run.run(
            sgd, {"w": np.ones(2)}, {"g": g[:, :, [lane]]}, precision, Key(8), steps=6, runs=(number,)
        )
        assert alone["w"][:, 0].tolist() == together["w"][:, lane].tolist()
    swapped, _ = exact_run.run(sgd, {"w": np.ones(2)}, {"g": g[:, :, [1, 0]]}, precision, Key(8), steps=6, runs=(7, 0))
    assert swapped["w"].tolist() == together["w"][:, [1, 0]].tolist()
    same_gradients, _ = exact_run.run(
        sgd, {"w": np.ones(2)}, {"g": np.repeat(g[:, :, :1], 8, axis=2)}, precision, Key(8), steps=6, runs=range(8)
    )
    assert len(np.unique(same_gradients["w"], axis=1).T) > 1  # runs differ by their random bits alone


def test_random_bits_are_those_of_the_definition() -> None:
    """One operation: its slot's position, the step, the run and the element enter as DESIGN says."""
    fmt, mode, key, step_number = named("bfloat16"), Stochastic(16), Key(11), 2**33 + 5
    _, records = exact_run.run(
        sgd,
        {"w": np.zeros(3)},
        {"g": np.full((3,), 0.7)},
        Precision.uniform("binary64").replace({"update.scale": (fmt, mode), "scalar.lr": "binary64"}),
        key,
        first_step=step_number,
        runs=(6, 2),
        record=["update.scale"],
    )
    for element in range(3):
        for lane, run in enumerate((6, 2)):
            word = int(program_draw(key, element, step_number, run, sgd.slots.index("update.scale"), 16))
            expected = exact.operation("mul", (0.1, 0.7), fmt, mode, word)
            assert records["update.scale"][0, element, lane] == expected


def test_inputs_are_rounded_on_entry() -> None:
    fmt = named("bfloat16")
    x = 1 + 0.75 * fmt.eps
    precision = Precision.uniform("binary64").replace({"g": ("bfloat16", "down"), "w": ("bfloat16", "up")})
    # lr = 1: after one step w = up(up(x) - down(x)).
    state, _ = exact_run.run(sgd.bind(lr=1.0), {"w": [x]}, {"g": [x]}, precision, steps=1)
    assert state["w"].item() == fmt.eps
    per_step, _ = exact_run.run(sgd.bind(lr=1.0), {"w": [x]}, {"g": np.full((1, 1, 1), x)}, precision, steps=1)
    assert per_step["w"].item() == fmt.eps

    stochastic = Precision.uniform("binary64").replace({"g": ("bfloat16", "stochastic")})
    runs = range(40)
    constant, _ = exact_run.run(sgd.bind(lr=1.0), {"w": [0.0]}, {"g": [x]}, stochastic, Key(0), runs=runs)
    assert np.unique(constant["w"]).tolist() == [-1 - fmt.eps]  # set up once, to nearest
    given = np.full((1, 1, 40), x)
    drawn, _ = exact_run.run(sgd.bind(lr=1.0), {"w": [0.0]}, {"g": given}, stochastic, Key(0), runs=runs)
    words = program_draw(Key(0), 0, 0, np.arange(40), sgd.slots.index("g"), 16)
    expected = [-exact.operation("round", (x,), fmt, Stochastic(16), int(word)) for word in words]
    assert drawn["w"][0].tolist() == expected
    assert len(set(expected)) == 2


def test_exact_kinds_and_sums() -> None:
    @step
    def kinds(w, a, b):
        largest = slot("largest", maximum(a, b))
        smallest = slot("smallest", minimum(a, b))
        size = slot("size", absolute(-a))
        fused = slot("fused", fma(a, b, w))
        return {
            "w": w,
            "total": slot("total", total(a)),
            "l": largest,
            "s": smallest,
            "size": size,
            "f": fused,
            "r": sqrt(size),
        }

    a = np.array([3.0, -0.0, 0.0, math.inf, math.nan, 0.5])
    b = np.array([-1.0, 0.0, -0.0, -math.inf, 2.0, 0.5])
    record = ["largest", "smallest", "size", "fused", "total", "l", "w", "r"]
    _, got = exact_run.run(kinds, {"w": np.ones(6)}, {"a": a, "b": b}, Precision.uniform("binary32"), record=record)
    flat = {name: got[name][0, :, 0] for name in record}
    assert bits(flat["largest"]).tolist() == bits([3.0, 0.0, 0.0, math.inf, math.nan, 0.5]).tolist()
    assert bits(flat["smallest"]).tolist() == bits([-1.0, -0.0, -0.0, -math.inf, math.nan, 0.5]).tolist()
    assert bits(flat["size"]).tolist() == bits([3.0, 0.0, 0.0, math.inf, math.nan, 0.5]).tolist()
    assert bits(flat["fused"]).tolist() == bits([-2.0, 1.0, 1.0, -math.inf, math.nan, 1.25]).tolist()
    assert np.isnan(flat["total"]).all()
    assert bits(flat["l"]).tolist() == bits(flat["largest"]).tolist()
    assert flat["w"].tolist() == [1.0] * 6


@pytest.mark.parametrize("device", ["cpu", "exact"])
def test_the_negative_of_nan_is_the_one_nan(device: str) -> None:
    @step
    def turned(w: Any, a: Any) -> Any:
        negative = -(a / a)
        return {"w": w, "n": negative, "p": absolute(negative)}

    result = run_program(
        turned, {"w": np.ones(2)}, {"a": [0.0, 2.0]}, Precision.uniform("e5m2"), device=device, record=["n", "p"]
    )
    assert bits(result.records["n"].ravel()).tolist() == bits([math.nan, -1.0]).tolist()
    assert bits(result.records["p"].ravel()).tolist() == bits([math.nan, 1.0]).tolist()


def test_a_sum_is_sequential_and_rounds_every_addition() -> None:
    @step
    def summed(w, a):
        return {"w": slot("total", total(a))}

    a = np.array([256.0, 1.0, 1.0, 1.0, 2.0])
    state, _ = exact_run.run(summed, {"w": np.zeros(5)}, {"a": a}, Precision.uniform("bfloat16"))
    assert state["w"][:, 0].tolist() == [258.0] * 5  # 256 + 1 ties to 256 three times
    fmt, mode, key = named("bfloat16"), Stochastic(16), Key(4)
    state, _ = exact_run.run(
        summed, {"w": np.zeros(5)}, {"a": a}, Precision.uniform(fmt, mode), key, runs=range(16), first_step=2
    )
    for run in range(16):
        accumulated = 256.0
        for k in range(1, 5):
            word = int(program_draw(key, k, 2, run, summed.slots.index("total"), 16))
            accumulated = exact.operation("add", (accumulated, float(a[k])), fmt, mode, word)
        assert state["w"][:, run].tolist() == [accumulated] * 5


def test_states_are_written_at_the_end_of_the_step() -> None:
    @step
    def swap(a, b):
        return {"a": b, "b": a}

    state, _ = exact_run.run(swap, {"a": [1.0], "b": [2.0]}, {}, Precision.uniform("bfloat16"), steps=3)
    assert (state["a"].item(), state["b"].item()) == (2.0, 1.0)


def test_a_learning_rate_per_run() -> None:
    rates = [0.1, 0.25, 0.3]
    g = np.random.default_rng(4).standard_normal((5, 2, 1))
    together, _ = exact_run.run(
        sgd.bind(lr=rates),
        {"w": np.ones(2)},
        {"g": np.repeat(g, 3, axis=2)},
        Precision.uniform("e8m10"),
        steps=5,
        runs=range(3),
    )
    for lane, rate in enumerate(rates):
        alone, _ = exact_run.run(sgd.bind(lr=rate), {"w": np.ones(2)}, {"g": g}, Precision.uniform("e8m10"), steps=5)
        assert alone["w"][:, 0].tolist() == together["w"][:, lane].tolist()


def test_nothing_to_do() -> None:
    state, records = exact_run.run(
        sgd, {"w": [0.1]}, {"g": [1.0]}, Precision.uniform("bfloat16"), steps=0, record=["w"]
    )
    assert state["w"].item() == exact.operation("round", (0.1,), named("bfloat16"), "nearest_even")
    assert len(records["w"]) == 0


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"key=None: slot 'update\.scale' rounds stochastically and needs a Key"):
        exact_run.run(sgd, {"w": [0.1]}, {"g": [1.0]}, Precision.uniform("bfloat16", "stochastic"))
    program = sgd.__class__(
        name="exponential",
        inputs=("w",),
        outputs=(("w", "power"),),
        scalars=(),
        operations=(Operation("opaque", "power", ("w",)),),
    )
    with pytest.raises(ValueError, match="power: the exact reader does not take operations of kind 'opaque'"):
        exact_run.run(program, {"w": [0.1]}, {}, Precision.uniform("bfloat16"))
    with pytest.raises(ValueError, match="run=4294967296 is outside"):
        exact_run.run(sgd, {"w": [0.1]}, {"g": [1.0]}, Precision.uniform("e4m3", "stochastic"), Key(0), runs=(2**32,))
    precision = Precision.uniform("bfloat16")
    with pytest.raises(ValueError, match="state: array 'w' of program 'sgd' is missing"):
        exact_run.run(sgd, {}, {"g": [1.0]}, precision)
    with pytest.raises(ValueError, match="inputs: array 'g' of program 'sgd' is missing"):
        exact_run.run(sgd, {"w": [0.1], "g": [1.0]}, {}, precision)
    with pytest.raises(ValueError, match="inputs: 'g' has 3 steps, 4 are needed"):
        exact_run.run(sgd, {"w": [0.1]}, {"g": np.ones((3, 1, 1))}, precision, steps=4)
    with pytest.raises(ValueError, match=r"record: 'v' is not in program 'sgd'; known: g, update\.scale, w, w\.sub"):
        exact_run.run(sgd, {"w": [0.1]}, {"g": [1.0]}, precision, record=["v"])
