"""The matrix optimizers: one row of ``CASES`` each. References in plain NumPy: ``matrix_references``."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import matrix_references as references
import numpy as np
import pytest
from matrix_references import Reference
from tiers import slow_but

import fpsim
from fpsim import Accumulator, Key, Precision, exact, exact_accumulate
from fpsim.cpu import flat
from fpsim.optim import matrix
from fpsim.optim.matrix import METHODS, MatrixMethod, NarrowFormat
from fpsim.optim.matrix import method as method_module
from fpsim.optim.matrix.arithmetic import Arithmetic
from fpsim.random_bits import array_draw
from fpsim.rounding import Stochastic

State = dict[str, np.ndarray]
KEY = Key(11)
WIDE = Precision.uniform("binary64")


@dataclass(frozen=True)
class Case:
    """A method as it is tested, with options that reach every branch in a few steps, and its reference in float64."""

    method: MatrixMethod
    reference: Reference
    values: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, int] = (4, 3)
    tolerance: float = 1e-12


DECAY = {"lr": 0.05, "decay": 0.1}
CASES = {
    "muon": Case(matrix.muon(), references.muon(references.newton_schulz), DECAY),
    "muon_polar": Case(matrix.muon(polar="exact"), references.muon(references.polar), DECAY),
    "shampoo": Case(matrix.shampoo(frequency=5), references.shampoo(5), DECAY),
    "soap": Case(matrix.soap(frequency=3), references.soap(3), DECAY, (4, 4)),
    "scion": Case(matrix.scion(), references.scion("spectral"), {"lr": 0.05, "radius": 1}),
    "scion_sign": Case(
        matrix.scion(norm="sign", constrained=True), references.scion("sign", True), {"lr": 0.01, "radius": 12}
    ),
    "scion_column": Case(matrix.scion(norm="column"), references.scion("column"), {"lr": 0.05, "radius": 0.5}),
    "scion_row": Case(matrix.scion(norm="row"), references.scion("row"), {"lr": 0.05, "radius": 1.5}),
    "kron": Case(matrix.kron(balance=0.5), references.kron(0.5), DECAY),
}
NAMES = list(CASES)


def test_every_method_has_a_row() -> None:
    assert list(CASES) == list(METHODS)
    assert [method.name for method in METHODS.values()] == NAMES
    assert [case.method.name for case in CASES.values()] == NAMES


def bound(name: str) -> MatrixMethod:
    return CASES[name].method.bind(**CASES[name].values)


def problem(name: str, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, minimum and curvature of f(w) = |c (w - minimum)|^2 / 2, elementwise."""
    random = np.random.default_rng(seed)
    shape = CASES[name].shape
    return random.standard_normal(shape), random.standard_normal(shape), random.uniform(0.5, 2.0, shape)


def taken(
    name: str, precision: Precision, steps: int, first: int = 0, state: State | None = None, **options: Any
) -> State:
    """Steps on noisy gradients of the parabola, a function of state and step alone."""
    method = bound(name)
    start, minimum, curvature = problem(name)
    state = method.start(start, precision) if state is None else state
    for step in range(first, first + steps):
        noise = 0.1 * np.random.default_rng(step).standard_normal(start.shape)
        gradient = curvature**2 * (state["w"] - minimum) + noise
        state = method.step(state, gradient, precision, KEY, step=step, **options)
    return state


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fmt", slow_but(["binary32", "bfloat16"], "binary32"))
def test_decreases_a_parabola(name: str, fmt: str) -> None:
    start, minimum, curvature = problem(name)
    end = taken(name, Precision.uniform(fmt, scalars="wide"), 60)["w"]
    before, after = (np.sum((curvature * (w - minimum)) ** 2) for w in (start, end))
    assert after < 0.3 * before


@pytest.mark.parametrize("name", NAMES)
def test_binary64_is_the_formula(name: str) -> None:
    case, method = CASES[name], bound(name)
    start, minimum, curvature = problem(name)
    state = method.start(start, WIDE)
    expected = {array: value.copy() for array, value in state.items()}
    p = {key: float(value) for key, value in method.hyperparameters.items()}
    for step in range(20):
        random = np.random.default_rng(100 + step)
        draws = {"noise": random.standard_normal(start.shape), "balance": random.random(())} if method.draws else {}
        gradient = curvature**2 * (expected["w"] - minimum) + 0.1 * random.standard_normal(start.shape)
        state = method.step(state, gradient, WIDE, KEY, step=step, draws=draws)
        expected = case.reference(expected, gradient, step + 1, p, draws)
        assert state.keys() == expected.keys()
        for array, value in expected.items():
            np.testing.assert_allclose(state[array], value, rtol=case.tolerance, atol=case.tolerance, err_msg=array)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_the_uninterrupted_one(name: str) -> None:
    precision = Precision.uniform("bfloat16", "stochastic", scalars="wide")
    whole = taken(name, precision, 7)
    half = pickle.loads(pickle.dumps(taken(name, precision, 4)))
    resumed = taken(name, precision, 3, first=4, state=half)
    assert all(np.array_equal(whole[array], resumed[array]) for array in whole)
    assert not np.array_equal(whole["w"], half["w"])


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_nothing_that_it_is_given(name: str) -> None:
    method = bound(name)
    state = method.start(problem(name)[0], WIDE)
    kept = {array: value.copy() for array, value in state.items()}
    first = method.step(state, np.ones(CASES[name].shape), WIDE, KEY)
    assert all(np.array_equal(state[array], kept[array]) for array in state)
    again = method.step(state, np.ones(CASES[name].shape), WIDE, KEY)
    assert all(first[array].tobytes() == again[array].tobytes() for array in state)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fmt", slow_but(["binary64", "bfloat16"], "bfloat16"))
def test_zero_gradients_leave_a_finite_state(name: str, fmt: str) -> None:
    method, precision = bound(name), Precision.uniform(fmt, scalars="wide")
    state = method.start(problem(name)[0], precision)
    for step in range(12):
        state = method.step(state, np.zeros(CASES[name].shape), precision, KEY, step=step)
    assert all(np.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_overflows_is_a_result(name: str) -> None:
    method, precision = bound(name), Precision.uniform("binary16", scalars="wide")
    state = method.start(problem(name)[0], precision)
    for step in range(3):
        state = method.step(state, np.full(CASES[name].shape, 6e4), precision, KEY, step=step)
    assert state["w"].shape == CASES[name].shape


class Recorder(Arithmetic):
    """Keeps every rounded operation: kind, slot, how often the slot was used before, operands, result."""

    kept: ClassVar[list[tuple[str, str, int, tuple[Any, ...], np.ndarray]]] = []
    instances: ClassVar[list[Recorder]] = []

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        Recorder.instances.append(self)

    def _apply(self, slot: str, function: Any, *operands: Any) -> np.ndarray:
        before = self._used[slot]
        result = super()._apply(slot, function, *operands)
        Recorder.kept.append((function.__name__, slot, before, operands, result))
        return result

    def _contract(self, slot: str, function: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        before = self._used[slot]
        result = super()._contract(slot, function, a, b)
        Recorder.kept.append((function.__name__, slot, before, (a, b), result))
        return result


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    Recorder.kept, Recorder.instances = [], []
    monkeypatch.setattr(method_module, "Arithmetic", Recorder)
    return Recorder


def multiplied(a: np.ndarray, b: np.ndarray, how: Accumulator, key: Key | None) -> np.ndarray:
    """A product of matrices, or of stacks of them, by the specification."""
    result = np.empty((*a.shape[:-1], b.shape[-1]))
    for element, (*stack, i, j) in enumerate(np.ndindex(result.shape)):
        terms = list(zip(a[(*stack, i)], b[(*stack, slice(None), j)], strict=True))
        result[(*stack, i, j)] = exact_accumulate.accumulate(terms, how, key, element)
    return result


def replayed(kind: str, operands: tuple[Any, ...], slot: Any, key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """One operation of the specification, element by element."""
    fmt, mode = slot
    if kind == "matmul":
        return multiplied(*operands, Accumulator.uniform(fmt, mode), key).reshape(shape)
    spread = [np.broadcast_to(x, shape).reshape(-1) for x in operands]
    elements = np.arange(spread[0].size)
    words = array_draw(key, elements, mode.bits).tolist() if isinstance(mode, Stochastic) else [None] * len(elements)
    values = [
        exact.operation(kind, tuple(map(float, given)), fmt, mode, word)
        for *given, word in zip(*spread, words, strict=True)
    ]
    return np.array(values).reshape(shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["nearest_even", "stochastic"])
def test_every_operation_is_the_specification(name: str, mode: str, recorded: type[Recorder]) -> None:
    """Every elementwise operation and every product of the steps, bit for bit, and its random bits by key."""
    precision = Precision.uniform("bfloat16", mode, scalars="wide")
    method, steps = bound(name), 5
    state = method.start(problem(name)[0], precision)
    for step in range(steps):
        recorded.kept.clear()
        random = np.random.default_rng(step)
        state = method.step(state, random.standard_normal(CASES[name].shape), precision, KEY, step=step)
        for kind, slot, before, operands, result in recorded.kept:
            if before > 1 or step not in (0, 3, 4):  # iterations are alike; bases change in step 3, roots in step 4
                continue
            key = KEY.fold(step).fold(method.slots.index(slot)).fold(before)
            expected = replayed(kind, operands, precision.default, key, result.shape)
            assert result.tobytes() == expected.tobytes(), (kind, slot)


@pytest.mark.parametrize("name", NAMES)
def test_every_declared_slot_is_used(name: str, recorded: type[Recorder]) -> None:
    taken(name, WIDE, 25)
    used = frozenset().union(*(ops.used for ops in recorded.instances))
    assert used == frozenset(bound(name).slots)


@pytest.mark.parametrize("name", NAMES)
def test_stored_arrays_lie_on_the_grids_of_their_slots(name: str) -> None:
    method = bound(name)
    formats = dict(zip(method.state, itertools.cycle(["bfloat16", "float8_e5m2", "binary16", "binary32"])))
    precision = WIDE.replace(formats)
    state = taken(name, precision, 6)
    for array, fmt in formats.items():
        assert flat.off_grid(state[array], fpsim.format(fmt)) is None, array
        assert np.isfinite(state[array]).all(), array


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].products])
def test_an_accumulator_computes_the_products(name: str, recorded: type[Recorder]) -> None:
    method = bound(name)
    precision = Precision.uniform("bfloat16", scalars="wide")
    how = Accumulator("binary32", "binary32", order="pairwise")
    taken(name, precision, 6, accumulators={"*": "bfloat16", method.products[-1]: how})
    products = [call for call in recorded.kept if call[0] == "matmul"]
    assert {slot for _, slot, *_ in products} <= set(method.products)
    operands, result = next(call[3:] for call in products if call[1] == method.products[-1])
    fmt, mode = precision.default
    expected = [exact.operation("round", (x,), fmt, mode) for x in multiplied(*operands, how, None).flat]
    assert result.tobytes() == np.array(expected).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_stochastic_slot_needs_a_key(name: str) -> None:
    method, precision = bound(name), WIDE.replace({"w.sub": ("bfloat16", "stochastic")})
    state = method.start(problem(name)[0], precision)
    with pytest.raises(ValueError, match=r"key=None: slot '.*' (rounds|draws)"):
        method.step(state, np.ones(CASES[name].shape), precision)
    with pytest.raises(TypeError, match="a Key is needed"):
        method.step(state, np.ones(CASES[name].shape), precision, 7)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_the_step_number_names_the_random_bits(name: str) -> None:
    method, precision = bound(name), Precision.uniform("bfloat16", "stochastic", scalars="wide")
    state = taken(name, precision, 2)
    first, second = (method.step(state, np.ones(CASES[name].shape), precision, KEY, step=k)["w"] for k in (2, 3))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input(name: str) -> None:
    method = bound(name)
    shape = CASES[name].shape
    state, g = method.start(np.ones(shape), WIDE), np.ones(shape)
    with pytest.raises(ValueError, match=r"slot 'w\.sbu' is not in program .*did you mean w\.sub"):
        method.step(state, g, WIDE.replace({"w.sbu": "bfloat16"}), KEY)
    with pytest.raises(ValueError, match=r"w has shape \(3,\); admissible: a matrix"):
        method.start(np.ones(3), WIDE)
    with pytest.raises(ValueError, match="w holds NaN"):
        method.start(np.full(shape, np.nan), WIDE)
    with pytest.raises(ValueError, match=r"g has shape \(2, 2\); admissible: \(4, "):
        method.step(state, np.ones((2, 2)), WIDE, KEY)
    other = list(method.state)[1]
    with pytest.raises(ValueError, match=f"{other} has shape"):
        method.step({**state, other: np.ones((2, 5))}, g, WIDE, KEY)
    with pytest.raises(ValueError, match=f"array '{other}' of '{name}' is missing"):
        method.step({array: x for array, x in state.items() if array != other}, g, WIDE, KEY)
    with pytest.raises(ValueError, match="'momentum' is no array"):
        method.step({**state, "momentum": g}, g, WIDE, KEY)
    with pytest.raises(ValueError, match=r"state: 'w' holds 0\.1, no number of its format"):
        method.step({**state, "w": np.full(shape, 0.1)}, g, Precision.uniform("bfloat16", scalars="wide"), KEY)
    with pytest.raises(ValueError, match="step=-1; admissible"):
        method.step(state, g, WIDE, KEY, step=-1)
    with pytest.raises(TypeError, match=r"a fpsim\.Precision is needed"):
        method.step(state, g, "bfloat16", KEY)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="admissible: real numbers"):
        method.step(state, g.astype(complex), WIDE, KEY)
    with pytest.raises(ValueError, match="is no matrix product"):
        method.step(state, g, WIDE, KEY, accumulators={"w.sub": "binary32"})
    with pytest.raises(ValueError, match="hyperparameter 'lrr' is unknown; did you mean lr"):
        method.bind(lrr=1)
    with pytest.raises(ValueError, match=r"hyperparameter lr=-1; admissible: \[0, inf\)"):
        method.bind(lr=-1)
    with pytest.raises(ValueError, match="admissible: one number or schedule"):
        method.bind(lr=[0.1, 0.2])


@pytest.mark.parametrize("name", NAMES)
def test_a_format_too_narrow_for_a_hyperparameter_is_a_named_warning(name: str) -> None:
    method, scalar = METHODS[name].bind(lr=1e-9), "scalar.step_size" if name == "soap" else "scalar.lr"
    precision, shape = WIDE.replace({scalar: "float8_e4m3fn"}), CASES[name].shape
    with pytest.warns(NarrowFormat, match=rf"{name}: {scalar} = .* becomes 0"):
        state = method.start(np.ones(shape), precision)
    with pytest.warns(NarrowFormat, match=rf"{name}: {scalar} = .* becomes 0"):
        assert method.step(state, np.ones(shape), precision, KEY, step=3)["w"].shape == shape
    reports = {report.name: report for report in method.report(precision, shape)}
    assert reports[scalar].effective == 0.0


@pytest.mark.parametrize("name", ["shampoo", "kron"])
def test_a_bias_correction_may_become_one(name: str) -> None:
    """1 - beta1^t goes to 1; that it does so early in a narrow format is no warning, from the second step on."""
    precision = WIDE.replace({"scalar.correction1": "float8_e5m2"})
    state = taken(name, WIDE, 1)
    assert METHODS[name].report(precision, CASES[name].shape, 100)[4 if name == "shampoo" else 2].effective == 1.0
    assert np.isfinite(bound(name).step(state, state["w"], precision, KEY, step=100)["w"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_of_the_step_size(name: str) -> None:
    precision, gradient = WIDE, np.ones(CASES[name].shape)
    state = taken(name, precision, 3)
    scheduled = bound(name).bind(lr="0.5/t").step(state, gradient, precision, KEY, step=3)
    constant = bound(name).bind(lr=Fraction(1, 8)).step(state, gradient, precision, KEY, step=3)
    assert all(np.array_equal(scheduled[array], constant[array]) for array in state)


@pytest.mark.parametrize("scalars", ["wide", "stored", "python"])
@pytest.mark.parametrize("name", NAMES)
def test_every_policy_of_scalars(name: str, scalars: str) -> None:
    """In binary32 all of them are within its rounding; the shape of w is no hyperparameter that would be stored."""
    rounded = taken(name, Precision.uniform("binary32"), 2)["w"]
    other = taken(name, Precision.uniform("binary32", scalars=scalars), 2)["w"]  # type: ignore[arg-type]
    np.testing.assert_allclose(rounded, other, atol=1e-5)
    narrow = Precision.uniform("bfloat16", scalars="stored")
    shape = {report.name: report.effective for report in METHODS["scion_sign"].report(narrow, (1, 257))}
    assert shape["scalar.shape"] == exact.operation("div", (1.0, 257.0), *narrow.default)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="polar='qr'; admissible: newton_schulz, exact"):
        matrix.muon(polar="qr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ns_steps=0; admissible: an integer in 1\.\.99"):
        matrix.muon(ns_steps=0)
    with pytest.raises(ValueError, match="frequency=0; admissible: an integer of at least 1"):
        matrix.shampoo(frequency=0)
    with pytest.raises(ValueError, match=r"frequency=2\.5; admissible"):
        matrix.soap(frequency=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm='nuclear'; admissible: spectral, sign, column, row"):
        matrix.scion(norm="nuclear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"balance=1\.5; admissible: a probability in 0\.\.1"):
        matrix.kron(balance=1.5)
