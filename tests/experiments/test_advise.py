"""What ``fpsim advise`` says before a run is what the run then shows: every prediction is simulated bit by bit."""

import functools
import json
import shlex
from typing import Any

import numpy as np
import pytest
from tiers import slow_but

import fpsim
from experiments.advise import floor, moments, noisy, scalars, second_moment, weights
from experiments.advise.advice import advise, confirm, record, reproduction
from experiments.advise.expected import SETTLED
from experiments.advise.finding import Finding
from experiments.advise.machine import Machine
from experiments.advise.setting import build
from experiments.advise.target import smallest, solve
from experiments.cli import Parser, main, scan
from experiments.simulate import windows
from experiments.study import Study
from fpsim.optim.kahan import kahan
from theory.theorems import theorem

# PyTorch's defaults of Adam, and in the formats that do not hold gradients of 0.001 a loss that was multiplied
DEFAULTS: list[dict[str, Any]] = [
    {"format": "bfloat16"},
    {"format": "float16"},
    {"format": "float8_e4m3fn"},
    {"format": "bfloat16", "arithmetic": "rounded"},
    {"format": "float16", "arithmetic": "rounded"},
    {"format": "float8_e4m3fn", "arithmetic": "rounded"},
    {"format": "bfloat16", "arithmetic": "fused"},
    {"format": "float16", "gradients": 0.064, "eps": 6.1e-5},
    {"format": "float8_e4m3fn", "gradients": 8.0, "noise": 0, "eps": 0.015625},
]
OTHERS: list[dict[str, Any]] = [
    {"v": "stochastic", "w": "stochastic"},
    {"v": "e8m15", "w": "e8m15"},
    {"beta2": 0.996},
    {"format": "float32"},
    {"optimizer": "rmsprop"},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "noise": 0},
    {"optimizer": "sgd", "noise": 0, "rounding": "stochastic", "arithmetic": "rounded"},
    {"optimizer": "momentum"},
    {"optimizer": "momentum", "noise": 0},
    {"optimizer": "signum"},
    {"optimizer": "adamw"},
    {"optimizer": "adagrad"},
    {"optimizer": "adam_sums"},
    {"rounding": "nearest_away", "beta2": 0.9999},
    {"format": "float16", "gradients": 3000.0},
]


@functools.cache
def of_defaults() -> list[Finding]:
    return advise(build({}))


def hold(found: list[Finding]) -> None:
    """Sentences name theorems, and simulations show what they say."""
    assert found
    for finding, seen in zip(found, confirm(found), strict=True):
        assert finding.topic == "floor" or "[T" in finding.text or "[R" in finding.text
        assert all("[" in fix.effect for fix in finding.fixes)
        assert seen is None or seen.ok, (finding.text, seen.measured)
    rows = record(found, [None] * len(found))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def by_topic(raw: dict[str, Any]) -> dict[str, Finding]:
    return {x.topic: x for x in (advise(build(raw)) if raw else of_defaults())}


@pytest.mark.parametrize("raw", slow_but(DEFAULTS, *DEFAULTS[:3]), ids=str)
def test_the_defaults_of_pytorch_do_what_is_predicted(raw: dict[str, Any]) -> None:
    hold(of_defaults() if raw == DEFAULTS[0] else advise(build(raw)))


@pytest.mark.slow
@pytest.mark.parametrize("raw", OTHERS, ids=str)
def test_other_settings_do_what_is_predicted(raw: dict[str, Any]) -> None:
    hold(advise(build(raw)))


def test_what_is_said_of_the_defaults_in_bfloat16() -> None:
    found = by_topic({})
    assert [x.level for x in found.values()] == ["problem"] * 4
    assert found["second moment"].numbers == {"lost": pytest.approx(0.001, rel=1e-3), "needed": 2.0**-9}
    assert "[T14" in found["second moment"].text
    # 2^ceil(log2(c g^2 / u)), by hand: 0.001 * 1e-6 * 2^8 = 2.56e-7 lies between 2^-22 and 2^-21
    assert found["learning rate"].numbers["v"] == 2.0**-21
    assert found["weights"].numbers == {"frozen_above": 1.0, "frozen_whatever_the_gradients": 2.0}
    assert found["floor"].theorems == ("T21",)


def test_eps_and_small_gradients_of_float16() -> None:
    found = by_topic({"format": "float16"})
    # g stays 0 in v while 0.001 g^2 <= 2^-25
    assert found["second moment"].numbers["silent_below"] == pytest.approx(np.sqrt(2.0**-25 / 0.001), rel=1e-3)
    assert found["eps"].level == "problem"
    assert "eps" not in by_topic({"format": "float16", "eps": 1e-4})
    assert "eps" not in by_topic({})


@pytest.mark.parametrize(("name", "g", "by_hand"), [("bfloat16", 0.001, 2.0**-21), ("float8_e4m3fn", 8.0, 2.0)])
def test_v_ends_where_t15_says(name: str, g: float, by_hand: float) -> None:
    """2^ceil(log2(c g^2 / u)): 0.001 * 1e-6 * 2^8 = 2.56e-7 and 0.001 * 64 * 2^4 = 1.024."""
    machine = Machine(build({"format": name, "gradients": g}))
    assert moments.predicted_v(machine, np.array([g]))[0] == by_hand
    state = {"w": [0.0], "m": [0.0], "v": [0.0]}
    left = fpsim.run(machine.program, state, {"g": [g]}, machine.precision, steps=1500)
    assert left.state["v"][0, 0] == by_hand


@pytest.mark.parametrize("g", [0.006, 0.005])
def test_the_border_below_which_v_stays_zero(g: float) -> None:
    machine = Machine(build({"format": "float16"}))
    state = {"w": [0.5], "m": [0.0], "v": [0.0]}
    left = fpsim.run(machine.program, state, {"g": [g]}, machine.precision, steps=5).state["v"]
    assert (left == 0).all() == (g < moments.silent_below(machine))


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e4m3fn"])
@pytest.mark.parametrize("arithmetic", ["eager", "rounded"])
def test_both_sides_of_the_weights_limit(name: str, arithmetic: str) -> None:
    """30 steps from settled moments: beyond the limit nothing moves, three binades below everything does."""
    raw = {"format": name, "arithmetic": arithmetic, "gradients": 8.0, "noise": 0, "eps": 0.015625}
    machine = Machine(build(raw))
    limit, _ = weights.steady_limit(machine)
    fmt = machine.slots["w"][0]
    w = np.array([1.25, 1.5, 1.75, 2.5, 3.0, 3.5])
    g = moments.stored(machine, 8.0)
    v = moments.least_v(machine, np.array([8.0]))[0]
    for scale, moves in ((limit, False), (limit / 8, True)):
        start = fpsim.round(scale * w, fmt, "nearest_even")
        state = {"w": start, "m": np.full(6, g), "v": np.full(6, v)}
        ran = fpsim.run(machine.program, state, {"g": np.full(6, g)}, machine.precision, first_step=SETTLED, steps=30)
        assert (ran.state["w"][:, 0] != start).all() == moves
        assert (ran.state["w"][:, 0] != start).any() == moves


def test_no_gradients_move_what_t16_calls_frozen() -> None:
    """The gradients that make |m|/sqrt(v) largest, from every start between the two limits."""
    machine = Machine(build({}))
    always, _ = weights.never_moved(machine)
    growth = (0.999 / 0.9) ** np.arange(200.0) * 1e-12
    w = fpsim.round(np.array([1.25, 1.5, 1.9]) * always, "bfloat16", "nearest_even")
    state = {"w": w, "m": np.zeros(3), "v": np.zeros(3)}
    ran = fpsim.run(
        machine.program, state, {"g": np.tile(growth[:, None, None], (1, 3, 1))}, machine.precision, steps=200
    )
    assert (ran.state["w"][:, 0] == w).all()


def test_the_decay_of_adamw_alone_moves_no_weight() -> None:
    found = by_topic({"optimizer": "adamw"})["weights"]
    assert "a weight without gradients does not decay" in found.text
    w = fpsim.round(np.linspace(0.01, 4.0, 64), "bfloat16", "nearest_even")
    state = {"w": w, "m": np.zeros(64), "v": np.ones(64)}
    machine = Machine(build({"optimizer": "adamw"}))
    ran = fpsim.run(machine.program, state, {"g": np.zeros(64)}, machine.precision, steps=50)
    assert (ran.state["w"][:, 0] == w).all()


def test_kahan_keeps_what_w_loses_as_the_advice_says() -> None:
    """Weights that bfloat16 freezes and that e8m15 would move: with Kahan's compensation they arrive."""
    machine = Machine(build({"noise": 0}))
    start = fpsim.round(np.array([1.5, 12.0, 50.0]), "bfloat16", "nearest_even")
    compensated = kahan(machine.program)
    g, steps = np.full(3, 1e-3), 600
    names = {"w": start, "m": g, "v": np.full(3, 2.0**-21), "c": np.zeros(3)}
    precision = machine.precision
    moved = []
    for program in (machine.program, compensated):
        state = {name: names[name] for name in program.state}
        ran = fpsim.run(program, state, {"g": g}, precision, first_step=SETTLED, steps=steps)
        left = ran.state["w"][:, 0] - (ran.state["c"][:, 0] if "c" in ran.state else 0.0)
        moved.append(start - left)
    assert (moved[0] == 0).all()
    assert moved[1] == pytest.approx(np.full(3, steps * 1e-3 * 1e-3 / 2.0**-10.5), rel=0.1)


def test_where_noise_leaves_a_frozen_v() -> None:
    machine = Machine(build({"steps": 4000}))
    stays = noisy.second_moment(machine)
    assert stays is not None
    noise = np.random.default_rng(1).normal(0.0, 1e-3, (4000, 64, 1))
    state = {"w": np.zeros(64), "m": np.zeros(64), "v": np.zeros(64)}
    ran = fpsim.run(machine.program, state, {"g": noise}, machine.precision, steps=4000)
    assert stays.low <= ran.state["v"].min() and ran.state["v"].max() <= stays.high


FINDERS = {"eps": scalars, "gradients": scalars, "second moment": second_moment, "learning rate": second_moment}
FINDERS |= {"weights": weights, "floor": floor}


@pytest.mark.slow
@pytest.mark.parametrize("raw", [{}, {"optimizer": "sgd"}, {"format": "float16"}, {"format": "float8_e4m3fn"}], ids=str)
def test_a_change_that_is_advised_removes_its_problem(raw: dict[str, Any]) -> None:
    for finding in advise(build(raw)):
        for fix in finding.fixes:
            words = shlex.split(fix.flags)
            changes = {words[k].removeprefix("--"): words[k + 1] for k in range(0, len(words), 2)}
            machine = Machine(build(raw | changes))
            after = {x.topic: x for x in FINDERS[finding.topic].findings(machine)}.get(finding.topic)
            worse = after is not None and after.text[:12] == finding.text[:12]
            if finding.topic == "floor":
                worse = after is None or not after.numbers["bound"] < finding.numbers["bound"]
            elif finding.topic == "weights" and after is not None and after.numbers:
                worse = not after.numbers["frozen_above"] >= 16 * finding.numbers["frozen_above"]
            assert not worse, (finding.topic, fix)


@pytest.mark.slow
def test_a_target_floor_asks_for_widths_that_keep_it() -> None:
    setting = build({})
    found = solve(setting, 4e-4)
    assert {(x.array, x.rounding) for x in found.alone} == {
        (array, mode) for array in "wmvg" for mode in ("nearest_even", "stochastic")
    }
    assert all(x.bits is not None and x.floor.bound < 4e-4 and x.floor.theorem == "T21" for x in found.alone)
    assert found.together is not None
    made, bound = found.together
    assert bound.bound < 4e-4
    window = windows(Study.build(floor.study_of(made)).cells())[0]
    measured = np.sqrt(np.mean(theorem("T21").measured(window)) / window.dimension)
    assert measured < 4e-4


@pytest.mark.slow
def test_a_target_below_what_float32_has_names_a_step_size() -> None:
    found = solve(build({}), 1e-4)
    assert found.alone == () and found.lr is not None and found.lr < 1e-3
    assert smallest(lambda bits: bits >= 23) == 23 and smallest(lambda bits: True) == 1


@pytest.mark.parametrize(
    "raw", [*DEFAULTS[1:3], {"optimizer": "signum"}, {"optimizer": "sgd", "w": "stochastic8"}], ids=str
)
def test_a_command_is_the_study_that_is_simulated(raw: dict[str, Any]) -> None:
    found = [x for x in advise(build(raw)) if x.study is not None]
    assert found
    for finding in found:
        words, *verify = [shlex.split(part) for part in reproduction(finding).split(" && ")]
        parser = Parser()
        scan.add_arguments(parser)
        args = parser.parse_args(words[2:])
        assert scan._study(args).cells() == Study.build(finding.study).cells()
        assert all(part[:2] == ["fpsim", "verify"] and part[2] == str(args.out) for part in verify)


@pytest.mark.slow
def test_the_commands_run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("paper_figures.floors.build", lambda rows, out: [])
    for finding in of_defaults():
        for words in reproduction(finding).split(" && "):
            assert main(shlex.split(words)[1:]) == 0, words
