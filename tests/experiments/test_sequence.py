"""Given gradients: reproducible, what they say they are, and recorded for theorems about single steps."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

import fpsim
from experiments import simulate
from experiments.history import GIVEN_SEEDS
from experiments.problems import PROBLEMS
from experiments.problems.base import Problem
from experiments.problems.sequence import KINDS
from experiments.study import Study, StudyError
from theory.theorems import theorem, theorems
from theory.verdict import verdict
from theory.window import Window

FIELDS: dict[str, Any] = {"optimizer": "adam", "problem": "sequence", "rounding": "nearest_even", "beta2": 0.99,
                          "steps": 48, "window": 1.0, "dimension": 4, "seeds": 6, "mantissa": "4,7"}  # fmt: skip


def windows(kind: str = "normal", **changed: Any) -> list[Window]:
    options = {"kind": kind, **changed.pop("options", {})}
    return simulate.windows(Study(**{**FIELDS, "options": options, **changed}).cells())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_depend_on_step_coordinate_and_run_only(kind: str) -> None:
    """Fewer seeds, one width alone and a longer run see the same gradients; where the state counts, the same state."""
    wide, narrow = windows(kind, steps=64), windows(kind, seeds=2, steps=64)
    alone = windows(kind, mantissa="7", steps=64)
    for name in ("g", "w", "v"):
        assert np.array_equal(wide[1].history[name][..., :2], narrow[1].history[name])
        assert np.array_equal(wide[1].history[name], alone[0].history[name])
    (longer,) = windows(kind, mantissa="7", steps=128)
    assert np.array_equal(longer.history["g"][:64], alone[0].history["g"])


def test_all_steps_and_many_seeds_are_kept() -> None:
    window = windows(seeds=GIVEN_SEEDS + 8, steps=320, mantissa="7")[0]
    assert window.history["v"].shape == (257, 4, GIVEN_SEEDS)
    assert window.history_first == 0
    assert not np.any(window.history["v"][0])


def test_what_the_kinds_are() -> None:
    g = {kind: windows(kind, mantissa="23", options={"period": 16})[0].history["g"] for kind in KINDS}
    assert np.all(g["constant"] == g["constant"][0])
    assert np.all((np.abs(g["constant"]) >= 1) & (np.abs(g["constant"]) <= 2))
    assert np.array_equal(g["alternating"][1:], -g["alternating"][:-1])
    assert abs(np.std(g["normal"]) - 1) < 0.15
    assert np.max(np.abs(g["heavy"])) > 6
    assert 0.02 < np.mean(g["sparse"] != 0) < 0.12
    assert np.all(g["stop"][:16] != 0)
    assert not np.any(g["stop"][16:])
    growth = g["geometric"][1:16] / g["geometric"][:15]
    assert growth == pytest.approx(np.full_like(growth, 0.99 / 0.9), rel=1e-6)
    assert np.array_equal(g["geometric"][16:32], g["geometric"][:16])
    assert np.max(np.abs(g["tiny"])) < 1e-17
    for kind in ("up", "down"):
        assert np.all((np.abs(g[kind]) >= 1) & (np.abs(g[kind]) <= 2))


def test_growth_takes_the_stored_betas_of_each_width() -> None:
    coarse, fine = windows("geometric", mantissa="4,10", options={"period": 48})
    for window in (coarse, fine):
        b1, b2 = window.scalars["scalar.beta1"], window.scalars["scalar.beta2"]
        quotient = np.abs(window.history["g"][-1] / window.history["g"][0]) ** (1 / 47)
        assert quotient == pytest.approx(np.full_like(quotient, b2 / b1), rel=2e-3)
    (given,) = windows("geometric", mantissa="23", options={"ratio": 1.25, "period": 32})
    assert np.abs(given.history["g"][1] / given.history["g"][0]) == pytest.approx(np.full((4, 6), 0.8), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "sgd"])
def test_the_adversary_pushes(optimizer: str) -> None:
    """The stored second moment, or first moment, or weight, lies above what exact arithmetic makes of the same g."""
    beta = {"beta2": 0.99} if optimizer == "adam" else {"beta2": None}
    ends = {}
    for kind in ("up", "normal", "down"):
        (window,) = windows(kind, optimizer=optimizer, mantissa="7", seeds=16, steps=64, **beta)
        h, s = window.history, window.scalars
        g = h["g"]
        if optimizer == "sgd":
            errors = h["w"][1:] - (h["w"][:-1] - s["scalar.lr"] * g)
            ends[kind] = errors.mean() / np.abs(h["w"]).mean()
            continue
        name, b, c, x = ("v", "beta2", "one_minus_beta2", g * g) if optimizer == "adam" else (
            "m", "beta1", "one_minus_beta1", g)  # fmt: skip
        exact = np.zeros(g.shape[1:])
        for k in range(64):
            exact = s[f"scalar.{b}"] * exact + s[f"scalar.{c}"] * x[k]
        ends[kind] = np.median(np.abs(h[name][64]) / np.abs(exact)) - 1
    assert ends["down"] < ends["normal"] < ends["up"], ends
    assert ends["down"] < 0 < ends["up"]


def test_theorems_about_averages_do_not_apply_and_say_why() -> None:
    for optimizer, rounding in (("sgd", "nearest_even"), ("sgd", "stochastic"), ("rmsprop", "stochastic")):
        beta = {"beta2": 0.99} if optimizer == "rmsprop" else {"beta2": None}
        for kind in ("constant", "normal"):
            for window in windows(kind, optimizer=optimizer, rounding=rounding, **beta):
                assert window.outcome == "given"
                for identifier, known in theorems().items():
                    if known.floor:
                        found = known.evaluate(window)
                        assert not found.applicable, identifier
                        told = any("sequence" in h.detail for h in found.hypotheses if not h.ok)
                        assert told or optimizer not in known.optimizers
    study = Study(optimizer="sgd", problem="sequence", rounding="nearest_even", steps=40, mantissa=7, seeds=2)
    (row,) = simulate.run_batch(study.cells())
    assert (row["outcome"], row["verdict"]) == ("given", "not applicable")
    assert "sequence" in row["reason"]


def test_growing_gradients_attain_t5() -> None:
    (window,) = windows("geometric", mantissa="10", steps=64)
    found = verdict(theorem("T5").measured(window), theorem("T5").evaluate(window))
    assert found.status == "holds"
    assert found.ratio < 1.02


def test_the_machine_rounds_what_is_given() -> None:
    (window,) = windows("normal", mantissa="4", rounding="down")
    problem = PROBLEMS["sequence"](dimension=4)
    assert isinstance(problem, Problem)
    assert np.array_equal(window.history["g"], fpsim.round(window.history["g"], "e8m4"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"kind": "strange"}, "kind='strange'"), ({"period": 0}, "period"), ({"scale": -1.0}, "scale"),
     ({"ratio": 2.0, "period": 2000}, "leaves"), ({"start": 0.0}, "start")],
)  # fmt: skip
def test_bad_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PROBLEMS["sequence"](dimension=4, **options)


def test_a_program_of_the_gradient_is_not_to_be_had() -> None:
    study = Study(**{**FIELDS, "gradient": "rounded"})
    with pytest.raises(StudyError, match="no program"):
        study.check(study.cells())


def test_golden_bits() -> None:
    """Frozen: a change here changes trajectories."""
    found = {}
    for kind in KINDS:
        history = windows(kind, options={"period": 8}, mantissa="7", steps=16)[0].history
        found[kind] = hashlib.sha256(history["g"].tobytes() + history["v"].tobytes()).hexdigest()[:16]
    assert found == GOLDEN


GOLDEN = {
    "constant": "482f8f05f03a130d",
    "alternating": "435d204e73ab7a3c",
    "normal": "562914044d54f39f",
    "heavy": "7a1705c246745874",
    "sparse": "769153ef2168b994",
    "stop": "56e797c2d7f25162",
    "tiny": "dbe423e42331d0d9",
    "geometric": "29975574950ebd30",
    "up": "18d37705e89257d0",
    "down": "cf8d2daeb3dfb7fc",
}
