"""What ``fpsim advise`` says of moments that underflow, of scalars that float32 does not hold, and of its own fixes."""

import shlex
from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but

import fpsim
from experiments.advise import first_step, floor, second_moment, underflow, weights
from experiments.advise.advice import advise, confirm
from experiments.advise.finding import Finding
from experiments.advise.machine import Machine
from experiments.advise.setting import build
from experiments.advise.target import solve
from experiments.fields import StudyError

HIDDEN = {"format": "float8_e4m3fn", "w": "bfloat16", "v": "bfloat16", "g": "float8_e5m2"}

UNDERFLOWS: list[tuple[dict[str, Any], str]] = [
    ({"m": "float8_e4m3fn"}, "first moment"),
    ({"optimizer": "momentum", "format": "float8_e4m3fn", "gradients": 0.008}, "first moment"),
    (HIDDEN, "denominator"),
    ({"format": "float32", "beta2": 0.99999999}, "hyperparameters"),
]


def of_v(raw: dict[str, Any]) -> dict[str, Finding]:
    return {x.topic: x for x in second_moment.findings(Machine(build(raw)))}


@pytest.mark.parametrize(
    ("raw", "topic"),
    slow_but(
        UNDERFLOWS,
        (HIDDEN, "denominator"),
    ),
    ids=str,
)
def test_what_underflows_is_said_and_simulated(raw: dict[str, Any], topic: str) -> None:
    found = advise(build(raw))
    assert {x.level for x in found if x.topic == topic} == {"problem"}
    assert not any(
        x.topic in ("weights", "floor") and x.numbers for x in found if topic in ("first moment", "denominator")
    )
    seen = dict(zip((x.topic for x in found), confirm(found), strict=True))
    assert seen[topic] is not None
    assert all(x is None or x.ok is not False for x in seen.values())


@pytest.mark.parametrize(("optimizer", "fmt"), [("adam", "float8_e4m3fn"), ("heavy_ball", "float8_e5m2")])
def test_the_border_below_which_m_stays_zero(optimizer: str, fmt: str) -> None:
    machine = Machine(build({"optimizer": optimizer, "m": fmt}))
    border = underflow.silent_m(machine)
    for g, moves in ((border * 0.99, False), (border * 1.02, True)):
        start = {name: np.ones(1) if name == "w" else np.zeros(1) for name in machine.program.state}
        ran = fpsim.run(machine.program, start, {"g": np.full(1, g)}, machine.precision, steps=50)
        assert (ran.state["m"].item() != 0) == moves


def test_nothing_underflows_where_nothing_does() -> None:
    for raw in (
        {},
        {"optimizer": "sgd"},
        {"format": "float16", "gradients": 0.064, "eps": 6.1e-5},
        {"v": "stochastic"},
    ):
        assert underflow.findings(Machine(build(raw))) == []


def test_changes_of_v_remove_what_they_are_said_to_remove() -> None:
    for finding in of_v({}).values():
        assert finding.fixes
        for fix in finding.fixes:
            words = shlex.split(fix.flags)
            changes = {words[k].removeprefix("--"): words[k + 1] for k in range(0, len(words), 2)}
            after = of_v(changes)
            assert after["second moment"].level != "problem", fix
            assert "learning rate" not in after, fix


def test_the_smaller_beta2_that_is_advised_is_small_enough_for_torch() -> None:
    """Where v settles in torch's own Adam, in bfloat16: 1.7 times too long steps with 0.9961, where v can decay too."""
    (flags,) = (x.flags for x in of_v({})["second moment"].fixes if "beta2" in x.flags)
    largest = {}
    for beta2 in (float(flags.split()[1]), 0.9961):
        w = torch.nn.Parameter(torch.zeros(64, dtype=torch.bfloat16))
        optimizer = torch.optim.Adam([w], betas=(0.9, beta2))
        w.grad = (torch.linspace(2 / 3, 4 / 3, 64) * 1e-3).bfloat16()
        for _ in range(2500):
            optimizer.step()
        largest[beta2] = float((w.grad.double() / optimizer.state[w]["exp_avg_sq"].double().sqrt()).max())
    assert max(largest) == 0.9961
    assert largest[0.9961] > 1.6
    assert largest[min(largest)] < 2**0.5


def test_noise_in_coarse_formats_lengthens_steps() -> None:
    found = of_v({"v": "float8_e5m2", "gradients": 100})["learning rate"]
    assert "the opposite" not in found.text
    assert "times what it should be" in found.text
    assert "does the opposite" in of_v({})["learning rate"].text


def test_sums_of_squares_get_the_same_changes_as_averages() -> None:
    flags = [x.flags.split()[0] for x in of_v({"optimizer": "adam_sums"})["second moment"].fixes]
    assert flags == ["--v", "--beta2", "--v"]


def test_the_largest_v_does_not_shrink_by_itself() -> None:
    assert "for ever" not in of_v({"optimizer": "amsgrad"})["second moment"].text
    assert "for ever" in of_v({})["second moment"].text


def test_directed_roundings_are_named() -> None:
    assert of_v({"rounding": "toward_zero"})["second moment"].text.startswith("v is rounded toward_zero.")
    assert of_v({"arithmetic": "fused"})["second moment"].text.startswith("v is rounded once in a step")


@pytest.mark.parametrize(
    ("optimizer", "border"), [("sgd", 2.0), ("heavy_ball", 3.8), ("momentum", 38.0), ("nesterov", 2 * 1.9 / 2.8)]
)
def test_no_floor_is_promised_where_training_diverges(optimizer: str, border: float) -> None:
    """The borders of lr times curvature are the classical ones: 2, 2 (1 + beta), and so on, for beta = 0.9."""
    raw = {"optimizer": optimizer, "lr": 1.0, "noise": 0}
    below, above = (Machine(build(raw | {"curvature": border * x})) for x in (0.999, 1.001))
    assert floor.growth_of_error(below) < 1 < floor.growth_of_error(above)
    found = floor.floor_of(above)
    assert np.isnan(found.bound)
    assert "lr is too large for a curvature of" in found.reason
    assert "lr is too large" not in floor.floor_of(below).reason


@pytest.mark.parametrize("v", ["float16", "float16 stochastic"])
def test_first_steps_that_are_far_too_long(v: str) -> None:
    """Where squares underflow and gradients do not, some first steps are divided by eps alone."""
    machine = Machine(build({"v": v, "gradients": 0.1}))
    (finding,) = first_step.findings(machine)
    assert finding.numbers["share"] > 1e-6
    assert next(confirm([finding])).ok
    noise = np.random.default_rng(0).normal(0.1, 0.1, (1, 40_000, 1))
    start = {name: np.zeros(40_000) for name in machine.program.state}
    ran = fpsim.run(machine.program, start, {"g": noise}, machine.precision, fpsim.Key(1))
    measured = float(np.mean(np.abs(ran.state["w"]) > 16e-3))
    assert measured <= 1.2 * finding.numbers["share"] + 1e-4
    assert measured > 0
    assert np.isnan(floor.floor_of(machine).bound)
    assert "no gradients whatever" not in weights.findings(machine)[0].text
    for fix in finding.fixes:
        words = shlex.split(fix.flags)
        assert first_step.findings(Machine(build({"v": v, "gradients": 0.1} | {words[0][2:]: words[1]}))) == []


def test_first_steps_of_bfloat16_are_not_too_long() -> None:
    for raw in ({}, {"optimizer": "rmsprop"}, {"optimizer": "sgd"}, {"format": "float16"}, {"v": "stochastic"}):
        assert first_step.findings(Machine(build(raw))) == []
    assert not first_step.jumps(Machine(build({})))


def test_a_bound_that_needs_small_gradients_says_so() -> None:
    """With noise 1000 times the gradient a run leaves the sizes that T21's bound was computed for."""
    (finding,) = floor.findings(Machine(build({"noise": 1})))
    assert "0.00138 for each weight, as long as no gradient exceeds 0.001 [T21]" in finding.text
    assert "without such a condition" in finding.text
    assert "next to nothing" not in finding.text
    (plain,) = floor.findings(Machine(build({"format": "float32"})))
    assert "as long as" not in plain.text


# Programs without a theorem about their weights.
UNBOUNDED = ("adafactor_vector", "adagrad", "amsgrad", "lion", "nadam", "rmsprop_centered")


@pytest.mark.parametrize("name", slow_but(UNBOUNDED, "adagrad", "lion"))
def test_every_step_of_one_weight_gets_advice(name: str) -> None:
    assert all(
        x.text
        for part in (underflow, second_moment, weights)
        for x in part.findings(Machine(build({"optimizer": name})))
    )


def test_a_wider_w_that_still_loses_the_usual_weight_is_no_change_that_helps() -> None:
    for size, wanted in ((0.02, ["stochastic", "e8m15", "float32", "e8m15"]), (1000.0, ["stochastic", "float32"])):
        (finding,) = weights.findings(Machine(build({"weights": size})))
        assert [x.flags.split()[1] for x in finding.fixes] == wanted


def test_steps_of_matrices_are_refused() -> None:
    with pytest.raises(StudyError, match="'adafactor' is a step of matrices"):
        build({"optimizer": "adafactor"})


@pytest.mark.slow
def test_a_target_is_promised_without_conditions() -> None:
    found = solve(build({}), 7e-4)
    assert found.together is not None
    assert found.together[1].consistent
    assert all(x.floor.consistent for x in found.alone)
    (v,) = (x for x in found.alone if (x.array, x.rounding) == ("v", "nearest_even"))
    assert v.bits == 12
    narrower = floor.floor_of(Machine(build({"format": "float32", "v": "e8m11"})))
    assert not (narrower.consistent and narrower.bound < 7e-4)
