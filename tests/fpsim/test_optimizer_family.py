"""Every optimizer and every wrapper in one suite: a new optimizer is one row of ``FAMILY``."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optimizer_formulas as formulas
import pytest
import torch

import fpsim
from fpsim.cpu.machine import Machine
from fpsim.optim import STEPS, clip_by_norm, error_feedback, kahan
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.rounding import CODES, Stochastic
from fpsim.tracing import fma, slot

Array = np.ndarray
State = dict[str, Array]


@dataclass(frozen=True)
class Row:
    """An optimizer and what its suite needs.

    settings : hyperparameters of all tests but those of descent
    formula : a generator of weights, in NumPy, from the published formulas
    torch : the optimizer of torch.optim that computes the same up to roundings, and its arguments
    parabola, rosenbrock : step sizes of the descents
    """

    settings: dict[str, float]
    formula: Callable[..., Iterator[Array]]
    parabola: float
    rosenbrock: float
    torch: tuple[Any, dict[str, Any]] | None = None


BETAS = {"beta1": 0.8, "beta2": 0.95}
ADAPTIVE = {"lr": 0.01, **BETAS, "eps": 1e-3}
EPS = {"lr": 0.1, "eps": 1e-3}
PAIR = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3}
RELATIVE = {"lr": 0.02, "decay": 0.7, "eps1": 1e-30, "eps2": 1e-2, "threshold": 1.0625}
ADAFACTOR = (torch.optim.Adafactor, {"lr": 0.02, "beta2_decay": -0.7, "eps": (1e-30, 1e-2), "d": 1.0625})
FAMILY = {
    "sgd": Row({"lr": 0.05}, formulas.sgd, 0.1, 1e-3, (torch.optim.SGD, {"lr": 0.05})),
    "momentum": Row({"lr": 0.05, "beta1": 0.8}, formulas.momentum, 0.1, 1e-3),
    "heavy_ball": Row(
        {"lr": 0.05, "beta1": 0.8}, formulas.heavy_ball, 0.02, 2e-4, (torch.optim.SGD, {"lr": 0.05, "momentum": 0.8})
    ),
    "nesterov": Row(
        {"lr": 0.05, "beta1": 0.8}, formulas.nesterov, 0.02, 2e-4,
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    ),
    "sign_sgd": Row({"lr": 0.05}, formulas.sign_sgd, 0.01, 0.01),
    "signum": Row({"lr": 0.05, "beta1": 0.8}, formulas.signum, 0.01, 0.01),
    "lion": Row({"lr": 0.05, **BETAS, "weight_decay": 0.1}, formulas.lion, 0.01, 0.01),
    "adagrad": Row(EPS, formulas.adagrad, 0.3, 0.1, (torch.optim.Adagrad, EPS)),
    "rmsprop": Row(
        {"lr": 0.01, "beta2": 0.95, "eps": 1e-3}, formulas.rmsprop, 0.01, 5e-3,
        (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.95, "eps": 1e-3}),
    ),
    "rmsprop_centered": Row(
        {"lr": 0.01, "beta2": 0.95, "eps": 1e-3}, formulas.rmsprop_centered, 0.005, 2e-3,
        (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.95, "eps": 1e-3, "centered": True}),
    ),
    "adam": Row(ADAPTIVE, formulas.adam, 0.02, 0.02, (torch.optim.Adam, PAIR)),
    "adam_sums": Row(ADAPTIVE, formulas.adam_sums, 0.02, 0.02),
    "adamw": Row(
        {**ADAPTIVE, "weight_decay": 0.1}, formulas.adamw, 0.02, 0.02,
        (torch.optim.AdamW, {**PAIR, "weight_decay": 0.1}),
    ),
    "amsgrad": Row(ADAPTIVE, formulas.amsgrad, 0.01, 0.02),
    "nadam": Row({**ADAPTIVE, "momentum_decay": 0.01}, formulas.nadam, 0.02, 0.02),
    "adafactor": Row(RELATIVE, formulas.adafactor, 0.05, 0.02, ADAFACTOR),
    "adafactor_vector": Row(RELATIVE, formulas.adafactor_vector, 0.05, 0.02, ADAFACTOR),
}  # fmt: skip
WRAPPERS: dict[str, Callable[[Program], Program]] = {
    "kahan": kahan,
    "error_feedback": error_feedback,
    "clip": lambda program: clip_by_norm(0.75, shape=program.shape("g")) >> program,
}
EVERY = [(name, "") for name in FAMILY] + [(name, wrapper) for name in FAMILY for wrapper in WRAPPERS]
TALL = {"n": 2, "k": 2, "d": 4}


def of(name: str, wrapper: str = "", **values: Any) -> Program:
    program = STEPS[name].bind(**(FAMILY[name].settings | values))
    return WRAPPERS[wrapper](program) if wrapper else program


def start_of(program: Program, lengths: dict[str, int], runs: int, seed: int = 0) -> State:
    """Weights at random, and everything else as an optimizer starts."""
    draw = np.random.default_rng(seed)
    shapes = {name: tuple(lengths[str(d)] for d in program.shape(name)) for name in program.state}
    return {name: np.zeros((*shape, runs)) for name, shape in shapes.items()} | {
        "w": draw.standard_normal((*shapes["w"], runs))
    }


def gradients(program: Program, lengths: dict[str, int], steps: int, runs: int, seed: int = 1) -> Array:
    shape = tuple(lengths[str(d)] for d in program.shape("g"))
    return np.random.default_rng(seed).standard_normal((steps, *shape, runs))


def bits(x: Array) -> Array:
    return np.ascontiguousarray(x, dtype=np.float64).view(np.uint64)


def same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name, x in one.items():
        np.testing.assert_array_equal(bits(x), bits(other[name]), err_msg=name)


def test_every_optimizer_has_a_row() -> None:
    assert FAMILY.keys() == STEPS.keys()
    assert all(STEPS[name].name == name for name in STEPS)
    assert all(row.settings.keys() == STEPS[name].hyperparameters.keys() for name, row in FAMILY.items())


def test_declared_defaults() -> None:
    """Those of the papers or, where these leave them open, of torch."""
    adam = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    relative = {"lr": 0.01, "decay": 0.8, "eps1": 1e-30, "eps2": 1e-3, "threshold": 1.0}
    assert {name: dict(program.hyperparameters) for name, program in STEPS.items()} == {
        "sgd": {"lr": 0.1},
        "momentum": {"lr": 0.1, "beta1": 0.9},
        "heavy_ball": {"lr": 0.01, "beta1": 0.9},
        "nesterov": {"lr": 0.01, "beta1": 0.9},
        "sign_sgd": {"lr": 1e-3},
        "signum": {"lr": 1e-3, "beta1": 0.9},
        "lion": {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0},
        "adagrad": {"lr": 0.01, "eps": 1e-10},
        "rmsprop": {"lr": 0.01, "beta2": 0.99, "eps": 1e-8},
        "rmsprop_centered": {"lr": 0.01, "beta2": 0.99, "eps": 1e-8},
        "adam": adam,
        "adam_sums": adam,
        "adamw": adam | {"weight_decay": 0.01},
        "amsgrad": adam,
        "nadam": adam | {"lr": 2e-3, "momentum_decay": 0.004},
        "adafactor": relative,
        "adafactor_vector": relative,
    }


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
KEY = fpsim.Key(3)


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
SCHEDULED = {"decay", "momentum_decay"}  # exponents: what they make is no hyperparameter of its own


@pytest.mark.parametrize(("name", "wrapper"), EVERY)
def test_hyperparameters_that_a_format_turns_into_others_are_named(name: str, wrapper: str) -> None:
    program = WRAPPERS[wrapper](STEPS[name]) if wrapper else STEPS[name]
    lengths = {"n": 2, "k": 2, "d": 3}
    start, given = start_of(program, lengths, 1), gradients(program, lengths, 1, 1)
    known = TRAPS | {"max_norm": (1e-12, "becomes 0"), "clip_eps": (1e-12, "becomes 0")}
    for hyperparameter in program.hyperparameters:
        if hyperparameter in SCHEDULED:
            continue
        value, becomes = known[hyperparameter]
        result = fpsim.run(
            program.bind(**{hyperparameter: value}), start, {"g": given}, Precision.uniform("float8_e4m3fn"),
            first_step=10**6,
        )  # fmt: skip
        about = [s.name for s in program.scalars if hyperparameter in s.expression.symbols()]
        said = [w for w in result.header.warnings if any(w.startswith(f"{x} = ") for x in about)]
        assert any(becomes in warning for warning in said), (hyperparameter, result.header.warnings)


# Wrappers


@pytest.mark.parametrize("name", FAMILY)
def test_compensated_weights_follow_the_wide_ones(name: str) -> None:
    """In bfloat16 every update is lost, or its larger part; with the compensation nothing is."""
    lengths, steps = {"n": 2, "k": 2, "d": 4}, 64
    plain = STEPS[name].bind(lr=2.0**-11)
    draw = np.random.default_rng(5)
    narrow = {"w.sub": fpsim.format("bfloat16"), "w": fpsim.format("bfloat16")}
    given = {"g": draw.uniform(0.5, 1.0, size=gradients(plain, lengths, steps, 1).shape)}
    start = start_of(plain, lengths, 1) | {"w": fpsim.round(start_of(plain, lengths, 1)["w"] + 4.0, narrow["w"])}
    wide = Precision.uniform("binary32")
    reference = fpsim.run(plain, start, given, wide, steps=steps).state["w"]
    lost = fpsim.run(plain, start, given, wide.replace(narrow), steps=steps).state["w"]
    program = kahan(plain)
    kept = fpsim.run(program, start | {"c": np.zeros_like(start["w"])}, given, wide.replace(narrow), steps=steps).state
    moved = np.abs(reference - start["w"]).min()
    assert moved > 2.0**-8
    assert np.abs(lost - reference).max() > 0.5 * moved
    assert np.abs(kept["w"] - kept["c"] - reference).max() < 1e-3 * moved
    assert np.abs(kept["w"] - reference).max() <= 2.0**-6  # half a spacing of bfloat16 at 4..8


@pytest.mark.parametrize("name", FAMILY)
def test_error_feedback_applies_the_whole_of_all_updates(name: str) -> None:
    lengths, steps = {"n": 2, "k": 2, "d": 4}, 64
    plain = of(name, weight_decay=0.0) if "weight_decay" in STEPS[name].hyperparameters else of(name)
    start, given = start_of(plain, lengths, 1), {"g": gradients(plain, lengths, steps, 1) + 0.5}
    wide = Precision.uniform("binary64")
    narrow = {"update.sent": ("e8m1", "toward_zero")}
    reference = fpsim.run(plain, start, given, wide, steps=steps).state["w"]
    lost = fpsim.run(plain, start, given, wide.replace({"update.scale": ("e8m1", "toward_zero")}), steps=steps)
    start["e"] = np.zeros_like(start["w"])
    kept = fpsim.run(error_feedback(plain), start, given, wide.replace(narrow), steps=steps).state
    if name.startswith("adafactor"):  # its steps depend on w
        assert np.abs(kept["w"] - kept["e"] - reference).max() < 0.1 * np.abs(lost.state["w"] - reference).max()
        return
    np.testing.assert_allclose(kept["w"] - kept["e"], reference, rtol=1e-12, atol=1e-12)
    assert np.abs(kept["w"] - reference).max() < np.abs(lost.state["w"] - reference).max()


def test_stochastic_weights_are_a_choice_of_precision() -> None:
    """The mean of 512 runs moves as the wide run does, where to nearest nothing moves."""
    program, bfloat16 = STEPS["adam"].bind(lr=2.0**-11), fpsim.format("bfloat16")
    start = {"w": np.full((1, 512), 4.0), "m": np.zeros((1, 512)), "v": np.zeros((1, 512))}
    wide = Precision.uniform("binary32")
    drawn = wide.replace({"w.sub": (bfloat16, "stochastic"), "w": (bfloat16, "stochastic")})
    nearest = wide.replace({"w.sub": bfloat16, "w": bfloat16})
    w = {
        name: fpsim.run(program, start, {"g": [1.0]}, precision, KEY, steps=64).state["w"]
        for name, precision in (("drawn", drawn), ("nearest", nearest), ("wide", wide))
    }
    assert set(w["nearest"].ravel()) == {4.0}
    error = w["drawn"].std(ddof=1) / np.sqrt(512)
    assert abs(w["drawn"].mean() - w["wide"][0, 0]) < 4 * error < 0.5 * (4.0 - w["wide"][0, 0])


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1,)])
def test_clipping_is_that_of_torch(shape: tuple[int, ...]) -> None:
    symbols = ("d",) if len(shape) == 1 else ("n", "k")
    clip = clip_by_norm(0.75, 1e-6, shape=symbols)
    for size in (1e-3, 0.1, 1.0, 30.0):
        g = np.random.default_rng(2).standard_normal(shape) * size
        ours = fpsim.run(clip, {"g": g}, {}, Precision.uniform("binary64")).state["g"][..., 0]
        theirs = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        theirs.grad = torch.from_numpy(g.copy())
        torch.nn.utils.clip_grad_norm_([theirs], 0.75)
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-12)
        assert np.linalg.norm(ours) <= 0.75
        if np.linalg.norm(g) < 0.74:
            np.testing.assert_array_equal(ours, g)


@pytest.mark.parametrize("name", FAMILY)
def test_a_short_gradient_is_not_clipped(name: str) -> None:
    lengths = {"n": 2, "k": 3, "d": 5}
    start, given = start_of(of(name), lengths, 2), gradients(of(name), lengths, 4, 2) * 0.1
    both = [
        fpsim.run(program, start, {"g": given}, Precision.uniform("bfloat16"), steps=4).state
        for program in (of(name), of(name, "clip"))
    ]
    same(*both)


@fpsim.step
def fused(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
    return {"w": slot("w.fma", fma(g, lr, w))}


@fpsim.step
def stateless(x: Any, g: Any) -> Any:
    return {"x": x - g}


@pytest.mark.parametrize("wrapper", [kahan, error_feedback])
def test_wrappers_name_what_a_step_lacks(wrapper: Callable[[Program], Program]) -> None:
    name = wrapper.__name__
    with pytest.raises(ValueError, match=rf"{name}\(fused\): w is stored from 'w.fma', fma\(.*needed: a slot that sub"):
        wrapper(fused)
    with pytest.raises(ValueError, match=rf"{name}\(stateless\): no state 'w'.*It stores x"):
        wrapper(stateless)
    with pytest.raises(ValueError, match=r"the program has .* already; wrap it once"):
        wrapper(wrapper(STEPS["adam"]))
    assert wrapper(STEPS["adam"]).hyperparameters == STEPS["adam"].hyperparameters


def test_wrappers_go_together() -> None:
    program = error_feedback(kahan(clip_by_norm() >> STEPS["adamw"]))
    assert program.name == "error_feedback(kahan(clip >> adamw))"
    assert program.state == ("w", "m", "v", "c", "e")
    assert program.operation("w.sub").operands == ("w", "update.sent")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"max_norm": 0.0}, "max_norm=0.0"), ({"max_norm": np.inf}, "max_norm=inf"), ({"eps": -1.0}, "eps=-1.0"),
     ({"eps": np.nan}, "eps=nan"), ({"shape": ()}, r"shape=\[\]")],
)  # fmt: skip
def test_clipping_names_what_it_does_not_take(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"{says}; admissible: "):
        clip_by_norm(**arguments)
