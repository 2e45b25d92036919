"""Every optimizer and every wrapper in one suite: a new optimizer is one row of ``optimizer_family.FAMILY``."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from optimizer_family import EVERY, FAMILY, TALL, WRAPPERS, Array, State, gradients, of, same, start_of

import fpsim
from fpsim.cpu.machine import Machine
from fpsim.optim import STEPS, clip_by_norm, error_feedback, kahan
from fpsim.precision import Precision, scalar_report
from fpsim.program import Program
from fpsim.rounding import CODES, Stochastic

KEY = fpsim.Key(3)


def test_every_optimizer_has_a_row() -> None:
    """Opaque ones need who supplies their function, and have suites of their own."""
    assert FAMILY.keys() == {name for name, program in STEPS.items() if not program.opaque}
    assert all(STEPS[name].name == name for name in STEPS)
    assert all(row.settings.keys() == STEPS[name].hyperparameters.keys() for name, row in FAMILY.items())


@pytest.mark.parametrize("name", FAMILY)
def test_declared_defaults(name: str) -> None:
    assert dict(STEPS[name].hyperparameters) == FAMILY[name].defaults


@pytest.mark.parametrize(
    "text", [*(x.variant for x in STEPS.values()), *(x.__doc__ for x in (kahan, error_feedback, clip_by_norm))]
)
def test_docstrings_keep_the_order(text: str) -> None:
    places = [text.find(part) for part in ("Symbols: ", "In evaluation order", "Variant: ", "Reference: ")]
    assert -1 not in places and places == sorted(places)
    assert re.search(r"Reference: .*\d{4}", text, re.DOTALL)


# Against formulas and torch


@pytest.mark.parametrize("name", FAMILY)
def test_binary64_is_the_published_formula_and_torch(name: str) -> None:
    program, steps, lengths = of(name), 40, {"n": 2, "k": 3, "d": 5}
    start, given = start_of(program, lengths, 1), gradients(program, lengths, steps, 1)
    result = fpsim.run(program, start, {"g": given}, Precision.uniform("binary64"), steps=steps, record=["w"])
    path = list(FAMILY[name].formula(start["w"][..., 0], given[..., 0], **FAMILY[name].settings))
    np.testing.assert_allclose(result.records["w"][..., 0], path, rtol=1e-12, atol=1e-14)
    if FAMILY[name].torch is None:
        return
    make, options = FAMILY[name].torch or (None, {})
    w = torch.tensor(start["w"][..., 0], requires_grad=True)
    stepper = make([w], **options)
    for g, ours in zip(given[..., 0], result.records["w"][..., 0], strict=True):
        w.grad = torch.from_numpy(g.copy())
        stepper.step()
        np.testing.assert_allclose(ours, w.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_torch_starts_an_averaged_momentum_at_the_first_gradient() -> None:
    """With dampening = momentum; ours is the same if it starts there too, and with the sum lr is 5 times as large."""
    draw = np.random.default_rng(0)
    given, start = draw.standard_normal((30, 3, 1)), {"w": draw.standard_normal((3, 1)), "m": np.zeros((3, 1))}
    for options, lr, m in (
        ({"lr": 0.05, "dampening": 0.8}, 0.05, given[0]),
        ({"lr": 0.01, "dampening": 0.0}, 0.05, start["m"]),
    ):
        program = STEPS["momentum"].bind(lr=lr, beta1=0.8)
        ours = fpsim.run(program, start | {"m": m}, {"g": given}, Precision.uniform("binary64"), steps=30).state["w"]
        w = torch.tensor(start["w"], requires_grad=True)
        stepper = torch.optim.SGD([w], momentum=0.8, **options)
        for g in given:
            w.grad = torch.from_numpy(g.copy())
            stepper.step()
        np.testing.assert_allclose(ours, w.detach().numpy(), rtol=1e-12)


# Descent


def parabola(w: Array) -> tuple[float, Array]:
    curvature, away = np.array([1.0, 0.5, 0.25, 2.0]), w - np.array([0.3, -0.7, 0.1, 0.9])
    return float(np.sum(curvature * away**2) / 2), curvature * away


def rosenbrock(w: Array) -> tuple[float, Array]:
    """Two pairs (x, y), x first: (1 - x)^2 + 100 (y - x^2)^2."""
    x, y = w[:2], w[2:]
    across = y - x * x
    slope = np.concatenate([-2 * (1 - x) - 400 * x * across, 200 * across])
    return float(np.sum((1 - x) ** 2 + 100 * across**2)), slope


@pytest.mark.parametrize(("name", "wrapper"), EVERY)
def test_descends(name: str, wrapper: str) -> None:
    """A parabola and Rosenbrock's function, side by side in two lanes, in binary32."""
    program = of(name, wrapper)
    rates = (FAMILY[name].parabola, FAMILY[name].rosenbrock)
    program = program.bind(**({"max_norm": 100.0} if wrapper == "clip" else {}))
    program = program.bind(lr=rates, **{k: STEPS[name].hyperparameters[k] for k in FAMILY[name].settings if k != "lr"})
    own = {x: TALL[x] for x in TALL if any(x in program.shape(array) for array in program.inputs)}
    machine = Machine(program, [Precision.uniform("binary32")], 2, own, None, np.arange(2))
    w = np.array([[-0.5, 0.25, 1.0, -1.0], [-0.5, 0.25, 1.0, -1.0]]).T
    start = start_of(program, own, 2)
    machine.load(start | {"w": w.reshape(start["w"].shape)})
    first = [parabola(w[:, 0])[0], rosenbrock(w[:, 1])[0]]
    for _ in range(250):
        g = np.stack([parabola(w[:, 0])[1], rosenbrock(w[:, 1])[1]], axis=1)
        machine.run(1, {"g": g.reshape(1, *start["w"].shape)})
        w = machine.state("w").reshape(4, 2)
    assert parabola(w[:, 0])[0] < 0.1 * first[0]
    assert rosenbrock(w[:, 1])[0] < 0.1 * first[1]


# Machines, resuming, storing

FORMATS: list[tuple[str, Any]] = [
    ("float8_e4m3fn", "nearest_even"), ("float8_e5m2", Stochastic(8)), ("bfloat16", "toward_zero"),
    ("e4m3", "up"), ("bfloat16", Stochastic(16)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrapper"), EVERY)
def test_the_machine_is_the_exact_reader(name: str, wrapper: str) -> None:
    compare(name, wrapper, FORMATS[1:2] if wrapper else FORMATS, steps=3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wrapper"), EVERY)
def test_the_machine_is_the_exact_reader_in_more_formats(name: str, wrapper: str) -> None:
    formats = ("float8_e4m3fnuz", "float6_e2m3fn", "p3109_k8p4se", "binary16", "binary32", "binary64")
    compare(name, wrapper, [(fmt, mode) for fmt in formats for mode in (*CODES, Stochastic(24))], steps=4)


def compare(name: str, wrapper: str, formats: Sequence[tuple[str, Any]], steps: int) -> None:
    """All slots and states of both readers, in every step."""
    program, lengths = of(name, wrapper), {"n": 2, "k": 2, "d": 3}
    start, given = start_of(program, lengths, 2), gradients(program, lengths, steps, 2)
    given[1, ..., 0], given[2, ..., 1] = 0.0, 2.0**-9
    record = [operation.slot for operation in program.operations]
    for fmt, mode in formats:
        exact, machine = (
            fpsim.run(
                program, start, {"g": given}, Precision.uniform(fmt, mode), KEY, steps=steps, runs=[4, 9],
                record=record, device=device,
            )
            for device in ("exact", "cpu")
        )  # fmt: skip
        same(exact.state | exact.records, machine.state | machine.records)


@pytest.mark.parametrize(("name", "wrapper"), EVERY)
def test_a_run_resumes_from_what_was_stored(name: str, wrapper: str) -> None:
    """Through a file, and through the codes of the format."""
    program, lengths = of(name, wrapper), {"n": 2, "k": 3, "d": 5}
    start, given = start_of(program, lengths, 3), gradients(program, lengths, 6, 3)
    precision = Precision.uniform("bfloat16", "stochastic")

    def run(state: State, first: int, steps: int) -> State:
        now = {"g": given[first : first + steps]}
        return fpsim.run(program, state, now, precision, KEY, steps=steps, first_step=first).state

    whole, half = run(start, 0, 6), run(start, 0, 4)
    file = io.BytesIO()
    np.savez(file, **half)
    file.seek(0)
    with np.load(file) as stored:
        same(run(dict(stored), 4, 2), whole)
    fmt = fpsim.format("bfloat16")
    same({array: fpsim.decode(fpsim.encode(x, fmt), fmt) for array, x in half.items()}, half)


@pytest.mark.parametrize(("name", "wrapper"), EVERY)
def test_gradients_of_zero_leave_a_finite_state(name: str, wrapper: str) -> None:
    """Or, where the format turns an eps into 0 and 0/0 is computed, a warning names it."""
    program = WRAPPERS[wrapper](STEPS[name]) if wrapper else STEPS[name]
    lengths = {"n": 2, "k": 2, "d": 3}
    start = start_of(program, lengths, 2)
    for fmt in ("binary32", "bfloat16", "binary16", "float8_e4m3fn"):
        given = np.zeros_like(gradients(program, lengths, 1, 2))[0]
        result = fpsim.run(program, start, {"g": given}, Precision.uniform(fmt), steps=5)
        if all(np.isfinite(x).all() for x in result.state.values()):
            if not STEPS[name].hyperparameters.get("weight_decay"):
                np.testing.assert_array_equal(result.state["w"], fpsim.round(start["w"], fpsim.format(fmt)))
            continue
        assert fmt in ("binary16", "float8_e4m3fn")
        assert any(re.match(r"scalar\.(clip_)?eps1? = .* becomes 0", warning) for warning in result.header.warnings)


# Traps

TRAPS = {
    "beta1": (0.9999, "becomes 1"), "beta2": (0.9999, "becomes 1"), "eps": (1e-12, "becomes 0"),
    "eps1": (1e-30, "becomes 0"), "eps2": (1e-12, "becomes 0"), "lr": (1e-12, "becomes 0"),
    "weight_decay": (1e-12, "becomes 0"), "threshold": (1e-12, "becomes 0"),
}  # fmt: skip
SCHEDULED = {"decay", "momentum_decay"}  # exponents: what they make is tested below


@pytest.mark.parametrize(("name", "wrapper"), EVERY)
def test_hyperparameters_that_a_format_turns_into_others_are_named(name: str, wrapper: str) -> None:
    program = WRAPPERS[wrapper](STEPS[name]) if wrapper else STEPS[name]
    program = program.bind(**({"momentum_decay": 100.0} if name == "nadam" else {}))  # mu = beta1 from the start
    lengths = {"n": 2, "k": 2, "d": 3}
    start, given = start_of(program, lengths, 1), gradients(program, lengths, 1, 1)
    known = TRAPS | {"max_norm": (1e-12, "becomes 0"), "clip_eps": (1e-12, "becomes 0")}
    for hyperparameter in program.hyperparameters:
        if hyperparameter in SCHEDULED:
            continue
        value, becomes = known[hyperparameter]
        result = fpsim.run(
            program.bind(**{hyperparameter: value}), start, {"g": given[0]}, Precision.uniform("float8_e4m3fn"), steps=2
        )
        about = [s.name for s in program.scalars if hyperparameter in s.expression.symbols()]
        said = [w for w in result.header.warnings if any(w.startswith(f"{x} = ") for x in about)]
        assert any(becomes in warning for warning in said), (hyperparameter, result.header.warnings)


def test_scalars_that_become_others_on_the_way_are_named() -> None:
    """Of those that change the last step counts too; that a bias correction tends to 1 is no news."""
    bfloat16 = Precision.uniform("bfloat16")

    def said(program: Program, last: int) -> list[str]:
        return [entry.warning for entry in scalar_report(program, bfloat16, 0, last) if entry.warning]

    assert said(STEPS["adafactor"], 999) == []
    assert said(STEPS["adafactor"], 9999) == ["scalar.beta2_t = 0.999369 becomes 1 in step 10000"]
    patient = STEPS["nadam"].bind(beta1=0.9999, beta2=0.9)
    assert said(patient, 9) == []
    assert said(patient, 10**5) == [
        "scalar.mu = 0.9999 becomes 1 in step 100001", "scalar.mu_next = 0.9999 becomes 1 in step 100001",
    ]  # fmt: skip
    assert said(STEPS["adam"].bind(beta2=0.9), 10**4) == []
    assert said(STEPS["sgd"].bind(lr="2**(-t)"), 200) == ["scalar.lr = 3.11151e-61 becomes 0 in step 201"]
    start = {"w": np.ones(1)}
    result = fpsim.run(STEPS["sgd"].bind(lr="2**(-t)"), start, {"g": [1.0]}, bfloat16, steps=201)
    assert result.header.warnings == ("scalar.lr = 3.11151e-61 becomes 0 in step 201",)
