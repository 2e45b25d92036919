"""Kahan's compensation, error feedback, stochastic rounding and clipping around the weight update of any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from optimizer_family import FAMILY, gradients, of, same, start_of

import fpsim
from fpsim.optim import STEPS, clip_by_norm, error_feedback, kahan
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.tracing import fma, slot

KEY = fpsim.Key(3)


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


@pytest.mark.parametrize("name", FAMILY)
def test_a_compensated_subtraction_loses_nothing(name: str) -> None:
    """To nearest w' - c' = w - (c + u) exactly, for the c + u that is stored, where it is not larger than w."""
    program, lengths, steps = kahan(STEPS[name].bind(lr=2.0**-9)), {"n": 2, "k": 2, "d": 4}, 24
    start, given = start_of(program, lengths, 2), gradients(program, lengths, steps, 2)
    start["w"] += np.copysign(4.0, start["w"])
    record = ["c.add", "w", "c"]
    seen = fpsim.run(program, start, {"g": given}, Precision.uniform("bfloat16"), steps=steps, record=record).records
    before = np.concatenate([fpsim.round(start["w"], fpsim.format("bfloat16"))[np.newaxis], seen["w"][:-1]])
    assert np.all(np.abs(seen["c.add"]) <= np.abs(before))
    np.testing.assert_array_equal(before - seen["c.add"], seen["w"] - seen["c"])
    assert np.any(seen["c"] != 0)


def test_only_what_the_subtraction_rounds_away_is_compensated() -> None:
    """Where only the storage of w rounds, w.sub needs its format."""
    start, storage = {"w": [1.0], "c": [0.0]}, Precision.storage(w="bfloat16")
    program = kahan(STEPS["sgd"].bind(lr=2.0**-10))
    for precision, end in ((storage, 1.0), (storage.replace({"w.sub": "bfloat16"}), 0.5)):
        assert fpsim.run(program, start, {"g": [1.0]}, precision, steps=512).state["w"].item() == end


def test_a_centered_moment_that_rounds_below_zero_is_nan() -> None:
    start, program = dict.fromkeys("wmv", np.zeros(1)), STEPS["rmsprop_centered"]
    result = fpsim.run(program, start, {"g": [0.0371]}, Precision.uniform("binary32"), steps=1200, record=["w"])
    assert np.flatnonzero(np.isnan(result.records["w"]))[0] + 1 == 1176


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
