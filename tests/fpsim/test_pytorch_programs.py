"""The programs of fpsim.optim.pytorch, their precision, and the runner for those with MKL's square root."""

from __future__ import annotations

import numpy as np
import pytest
from tiers import slow_but

import fpsim
from fpsim import Precision
from fpsim.optim.pytorch import (
    Kernels,
    adagrad,
    adam,
    capability,
    kernels_of,
    mkl_sqrt,
    nadam,
    plan_of,
    rmsprop,
    root,
    sgd,
    simulate,
    tail_of,
)
from fpsim.precision import scalar_report

DTYPES = ("float32", "bfloat16", "float16")
PROGRAMS = [
    sgd(momentum=True, nesterov=True, weight_decay=True, maximize=True),
    adam(amsgrad=True, weight_decay=True, maximize=True),
    adam(weight_decay=True, decoupled=True, far_lerp=True, kernels=Kernels(contract=False, tail=True, foreach=True)),
    rmsprop(centered=True, momentum=True),
    adagrad(kernels=Kernels(fused_add=False, foreach=True)),
    nadam(weight_decay=True),
]


def given(program, steps, d=5, seed=0):
    rng = np.random.default_rng(seed)
    state = {name: rng.normal(size=d) ** 2 for name in program.state}
    if "mu_product" in state:
        state["mu_product"] = np.array(0.9)
    return state, {"g": rng.normal(size=(steps, d, 1))}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_exact_reader_and_the_machine_agree(program, dtype):
    state, inputs = given(program, 3)
    results = [
        fpsim.run(program, state, inputs, Precision.torch(dtype), steps=3, device=device) for device in ("cpu", "exact")
    ]
    for name in program.state:
        assert np.array_equal(results[0].state[name], results[1].state[name], equal_nan=True), name


def test_formats_of_slots():
    slots = Precision.torch("float16").resolve(nadam())
    expected = {"w": 10, "v.decay": 10, "v.decay.wide": 23, "mu_product": 23, "step_g.python": 52, "scalar.eps": 10}
    expected["scalar.beta2.wide"] = 23
    assert {name: slots[name][0].mantissa_bits for name in expected} == expected


def test_programs_without_wide_slots_are_rounded_to_the_dtype():
    torch = pytest.importorskip("torch")
    slots = Precision.torch(torch.bfloat16).resolve(fpsim.optim.adam)
    assert {fmt for fmt, _ in slots.values()} == {fpsim.format("bfloat16")}


def test_what_is_replaced_must_still_exist():
    precision = Precision.torch("bfloat16").replace({"w.addcdiv": ("bfloat16", "toward_zero")})
    assert precision.resolve(adam())["w.addcdiv"][1] == "toward_zero"
    with pytest.raises(ValueError, match=r"slot 'w\.addcdiv' is not in program 'SGD'"):
        precision.resolve(sgd())


@pytest.mark.parametrize("dtype", ["float64", "torch.float8_e4m3fn", 16])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="admissible: float32, bfloat16, float16"):
        Precision.torch(dtype)
    with pytest.raises(ValueError, match="admissible: float32, bfloat16, float16"):
        kernels_of(dtype, capability="AVX2", root="exact")


def test_numbers_of_python_are_cast_twice():
    near_tie = 1 + 2.0**-8 + 2.0**-40
    (report,) = scalar_report(sgd().bind(lr=near_tie), Precision.torch("bfloat16"))
    assert report.effective == -1.0
    assert fpsim.round(near_tie, "bfloat16") == 1 + 2.0**-7
    (report,) = scalar_report(sgd().bind(lr=1e-50), Precision.torch("float32"))
    assert report.effective == 0.0 and np.signbit(report.effective)


def test_options_that_exclude_each_other():
    with pytest.raises(ValueError, match="nesterov=True, first=False without momentum"):
        sgd(nesterov=True)
    with pytest.raises(ValueError, match="capability='NEON'; admissible: DEFAULT, AVX2, AVX512"):
        kernels_of("float32", capability="NEON", root="exact")


def test_optimizers_that_are_not_these_programs_are_refused():
    torch = pytest.importorskip("torch")
    path = {"dtype": "float32", "capability": "AVX2", "root": "exact"}
    w = [torch.zeros(2)]
    with pytest.raises(ValueError, match="ASGD; admissible: SGD, Adam, AdamW, RMSprop, Adagrad, NAdam of"):
        plan_of(torch.optim.ASGD(w), **path)
    with pytest.raises(ValueError, match="fused=True; admissible: False"):
        plan_of(torch.optim.Adam(w, fused=True), **path)
    with pytest.raises(ValueError, match="capturable=True; admissible: False"):
        plan_of(torch.optim.NAdam(w, capturable=True), **path)
    with pytest.raises(ValueError, match=r"lr=tensor.*; admissible: a number of Python"):
        plan_of(torch.optim.Adam(w, lr=torch.tensor(0.1)), **path)


def _split(program):
    """The same program with its square root as an opaque operation."""
    return [adam(kernels=Kernels(root="mkl")), nadam(kernels=Kernels(root="mkl"))][program]


@pytest.mark.parametrize("number", [0, 1])
def test_a_step_in_two_parts_is_the_step(number, monkeypatch):
    def correct(x):
        with np.errstate(invalid="ignore"):
            return np.sqrt(x.astype(np.float32)).astype(np.float64)

    from fpsim.optim.pytorch.simulate import FUNCTIONS

    monkeypatch.setitem(FUNCTIONS, "mkl_sqrt", correct)
    whole, split = [adam(), nadam()][number], _split(number)
    state, inputs = given(whole, 7)
    precision = Precision.torch("float32")
    record = ("w", "m", "v.addcmul")
    one = simulate(whole, state, inputs, precision, steps=7, record=record)
    two = simulate(split, state, inputs, precision, steps=7, record=record)
    for name in record:
        assert np.array_equal(one.records[name], two.records[name]), name
    first = simulate(split, state, {"g": inputs["g"][:3]}, precision, steps=3)
    resumed = simulate(split, first.state, {"g": inputs["g"][3:]}, precision, steps=4, first_step=3)
    for name in whole.state:
        assert np.array_equal(one.state[name], two.state[name]) and np.array_equal(resumed.state[name], one.state[name])
    none = simulate(split, state, {"g": inputs["g"][:0]}, precision, steps=0)
    assert np.array_equal(none.state["w"][:, 0], state["w"].astype(np.float32))
    stochastic = precision.replace({"w.addcdiv*": ("bfloat16", fpsim.Stochastic(8)), "w": "bfloat16"})
    several = {"g": np.repeat(inputs["g"], 3, axis=2)}
    drawn = [simulate(split, state, several, stochastic, fpsim.Key(seed), steps=7).state["w"] for seed in (5, 5, 6)]
    assert drawn[0].shape == (5, 3) and len(np.unique(drawn[0], axis=1).T) > 1
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("programs", [[sgd(momentum=True, first=True), sgd(momentum=True)], [_split(0)], [adam()]])
def test_a_run_goes_on_with_elements_that_are_not_numbers(programs):
    """SGD has two programs, so that its second step starts from what the first one made of the gradient."""
    state, inputs = given(programs[-1], 4)
    inputs["g"][0, 2] = np.nan
    precision = Precision.torch("bfloat16" if len(programs) == 2 else "float32")
    whole = simulate(programs, state, inputs, precision, steps=4).state
    first = simulate(programs, state, {"g": inputs["g"][:2]}, precision, steps=2).state
    resumed = simulate(programs, first, {"g": inputs["g"][2:]}, precision, steps=2, first_step=2).state
    finite = simulate(programs, state, {"g": np.where(np.isnan(inputs["g"]), 0.0, inputs["g"])}, precision, steps=4)
    for name in state:
        expected = finite.state[name].copy()
        expected[2] = np.nan
        assert np.array_equal(whole[name], expected, equal_nan=True), name
        assert np.array_equal(resumed[name], expected, equal_nan=True), name
    with pytest.raises(ValueError, match="start state 'w' is NaN"):
        simulate(programs, {**state, "w": np.full(5, np.nan)}, inputs, precision, steps=4)


def test_what_the_runner_refuses():
    state, inputs = given(adam(), 4)
    with pytest.raises(ValueError, match="array 'g' has 4 steps; admissible: 5"):
        simulate(_split(0), state, inputs, Precision.torch("float32"), steps=5)
    from fpsim.tracing import opaque

    other = fpsim.step(lambda w: {"w": opaque("cbrt", w)}, name="other")
    with pytest.raises(ValueError, match=r"cbrt.*admissible functions: mkl_sqrt, torch_sqrt"):
        simulate(other, {"w": [1.0]}, {}, Precision.torch("float32"))


def test_the_error_of_mkl_s_square_root():
    x = np.random.default_rng(3).uniform(1, 4, 200_000).astype(np.float32).astype(np.float64)
    found = mkl_sqrt(x)
    errors = (found - np.sqrt(x)) / 2.0**-23
    assert 0.7 < np.abs(errors).max() < 0.75
    assert 0.19 < (found != np.sqrt(x.astype(np.float32))).mean() < 0.21


def test_pytorch_can_be_asked_for_its_square_root():
    pytest.importorskip("torch")
    state, inputs = given(adam(), 4)
    found = [
        simulate(adam(kernels=Kernels(root=known)), state, inputs, Precision.torch("float32"), steps=4).state["w"]
        for known in ("torch", root())
    ]
    assert np.array_equal(*found)


def _adding(kernels):
    return lambda w, g: {"w": kernels.add("w.add", w, g, "alpha", 0.3)}


@pytest.mark.parametrize(
    ("elements", "threads"), slow_but([(70_001, 3), (32_771, 4), (40_001, 1), (131_100, 2)], (32_771, 4))
)
def test_every_thread_has_a_tail(elements, threads):
    """a + alpha b of bfloat16 rounds its product in tails only, but under DEFAULT."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    rng = np.random.default_rng(4)
    a, b = (torch.from_numpy(rng.normal(size=elements)).bfloat16() for _ in range(2))
    torch.set_num_threads(threads)
    try:
        found = a.add(b, alpha=0.3).double().numpy()
    finally:
        torch.set_num_threads(before)
    tail = tail_of(elements, "bfloat16", threads=threads)
    for where in (False, True):
        kernels = kernels_of("bfloat16", tail=where, capability=capability(), root="exact")
        program = fpsim.step(_adding(kernels), name="add")
        own = tail == where
        state, inputs = {"w": a.double().numpy()[own]}, {"g": b.double().numpy()[own]}
        result = simulate(program, state, inputs, Precision.torch("bfloat16"))
        assert np.array_equal(result.state["w"][:, 0], found[own])
