"""One's own programs and problems: from Python, from installed packages, and what theory says about them."""

import importlib
import pickle
import sys
import textwrap
from dataclasses import dataclass, replace
from fractions import Fraction

import msgspec
import numpy as np
import polars as pl
import pytest

import fpsim
from experiments import Study, StudyError, registry, simulate, store
from experiments.problems import PROBLEMS
from experiments.problems.base import Problem, gamma, outward
from experiments.problems.linear import column_sums
from experiments.registry import Own
from fpsim import optim, plugins
from fpsim.tracing import maximum, slot, sqrt, step
from theory.theorems import theorem
from theory.verdict import verdict

SMALL = {"problem": "quadratic", "rounding": "nearest_even", "mantissa": "6,12", "steps": 300, "seeds": 3}


@step
def plain_adam(w, m, v, g, *, lr=2.0**-7, beta1=0.9, beta2=0.99, eps=1e-8):
    m = slot("m.add", slot("m.decay", beta1 * m) + slot("m.inject", (1 - beta1) * g))
    v = slot("v.add", slot("v.decay", beta2 * v) + slot("v.inject", (1 - beta2) * slot("v.square", g * g)))
    update = slot("update.div", m / slot("update.eps", slot("update.sqrt", sqrt(v)) + eps))
    return {"w": slot("w.sub", w - slot("update.scale", lr * update)), "m": m, "v": v}


@step
def decayed(w, g, *, lr=2.0**-4, decay=0.125):
    """Weight decay: it stops where the gradient plus decay * w is small, which is no stationary point."""
    total = slot("update.add", g + slot("update.decay", decay * w))
    return {"w": slot("w.sub", w - slot("update.scale", lr * total))}


@step
def halved(w, g, *, lr=2.0**-4, half=0.5):
    """It stops where half the gradient is small."""
    return {"w": slot("w.sub", w - slot("update.scale", lr * slot("update.half", half * g)))}


@step
def projected(w, g, *, lr=2.0**-4):
    """The stored weight is not what the subtraction gives."""
    moved = slot("w.sub", w - slot("update.scale", lr * g))
    return {"w": slot("w.clip", maximum(moved, 2.0))}


@dataclass(frozen=True, eq=False, kw_only=True)
class Bowl(Problem):
    """sum (w_i - 1/3)^2 / 2, with no program of its own."""

    def gradient(self, w, out=None):
        out = self._arrays(w, out)
        return np.subtract(w, 1 / 3, out=out)

    def gradient_error(self, w_abs_max):
        return outward(gamma(1) * (w_abs_max + 1))

    def gradient_bound(self, w_abs_max):
        return outward(w_abs_max + 1)

    def loss_gap(self, w):
        return 0.5 * column_sums((w - 1 / 3) ** 2)


def bowl(dimension=4, *, height=1.0):
    return Bowl(name="bowl", dimension=dimension, smoothness=1.0, strong_convexity=1.0, curvature=np.ones(dimension))


def test_an_optimizer_of_ones_own_is_scanned_and_verified():
    table = Study(optimizer=[plain_adam, "adam"], **SMALL).run(engine="serial")
    assert isinstance(table, pl.DataFrame) and table.schema == pl.Schema(store.SCHEMA)
    own = table.filter(optimizer="plain_adam")
    assert own["verdict"].to_list() == ["holds", "holds"]
    assert own["theorem"].to_list() == ["T21"] * 2 and own["ratio"].min() >= 1.0
    assert own["lr"].to_list() == [2.0**-7] * 2
    assert (
        len(own["program_digest"][0]) == 32 and table.filter(optimizer="adam")["program_digest"].to_list() == [""] * 2
    )


@pytest.mark.parametrize("gradient", ["exact", "rounded"])
@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
@pytest.mark.parametrize("program", [decayed, halved, projected])
def test_no_theorem_is_applied_to_a_step_that_it_does_not_know(program, rounding, gradient):
    study = SMALL | {"rounding": rounding, "gradient": gradient, "noise": "none", "steps": 3000, "mantissa": "6"}
    (row,) = Study(optimizer=[program], **study).run(engine="serial").to_dicts()
    assert row["verdict"] == "not applicable"
    if program.name == "projected":  # as far from the one theorem as from the other
        assert row["reason"].startswith(("one subtraction updates the only state w", "w <- w - lr g is the only"))
        return
    assert row["theorem"] == ("T25" if rounding == "stochastic" else "T6")
    if rounding == "stochastic":
        assert row["reason"] == "Gaussian noise: none, sigma = 0.0"
    else:
        reasons = {
            "decayed": "the step is an exact value times a factor",
            "halved": "the step is lr times the gradient",
        }
        assert row["reason"].startswith(reasons[program.name])


def test_what_its_author_declared_holds_unless_the_study_says_otherwise():
    declared = plain_adam.bind(lr="0.01/sqrt(t)", beta1=Fraction(1, 3), eps=0)
    (cell,) = Study(optimizer=[declared], **SMALL | {"mantissa": 6}).cells()
    assert cell.hyperparameters == {"lr": "0.01 / sqrt(t)", "beta1": "1/3", "beta2": 0.99, "eps": 0.0}
    bound = registry.bound(declared, cell).hyperparameters["beta1"]
    assert abs(bound - Fraction(1, 3)) < Fraction(1, 2**250)
    (cell,) = Study(optimizer=[declared], lr=0.5, **SMALL | {"mantissa": 6}).cells()
    assert cell.hyperparameters["lr"] == 0.5


def test_rmsprop_that_stores_something_else_is_not_rmsprop():
    other = replace(optim.rmsprop, name="other", outputs=(("w", "w.sub"), ("v", "v.inject")))
    study = SMALL | {"mantissa": "12"}
    (row,) = Study(optimizer=[other], lr=2.0**-7, **study).run(engine="serial").to_dicts()
    assert (row["theorem"], row["verdict"]) == ("T27", "not applicable")
    assert row["reason"].startswith("step and v are those of RMSprop"), row["reason"]


def test_a_problem_of_ones_own(tmp_path):
    for given in (bowl(3), bowl):
        study = Study(optimizer="sgd", **SMALL | {"problem": [given, "quadratic"], "steps": 2000, "dimension": 3})
        table = study.run(tmp_path / type(given).__name__, engine="threads", workers=2)
        own = table.filter(problem="bowl")
        assert own["verdict"].to_list() == ["holds", "holds"]
        assert own["gradient"].to_list() == ["exact", "exact"]
    again = study.run(tmp_path / type(given).__name__)
    assert again.equals(table)  # nothing was computed again: seconds are those of the first run


def test_a_folder_tells_ones_own_by_content():
    def key(**study):
        return Study(**SMALL | study).cells()[0].key

    assert key(optimizer=[plain_adam]) == key(optimizer=[pickle.loads(pickle.dumps(plain_adam))])
    other = replace(plain_adam, operations=plain_adam.operations[::-1][::-1][:-1] + plain_adam.operations[-1:])
    assert key(optimizer=[plain_adam]) == key(optimizer=[other])
    swapped = replace(plain_adam, outputs=(("w", "w.sub"), ("m", "m.add"), ("v", "v.inject")))
    assert key(optimizer=[plain_adam]) != key(optimizer=[swapped])
    assert key(optimizer="sgd", problem=[bowl(3)]) == key(optimizer="sgd", problem=[bowl(3)])
    assert key(optimizer="sgd", problem=[bowl(3)]) != key(optimizer="sgd", problem=[replace(bowl(3), smoothness=2.0)])
    assert key(optimizer="sgd", problem=[bowl], options={"height": 2.0}) != key(optimizer="sgd", problem=[bowl])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"optimizer": [3]}, "optimizer: 3 is not admissible; a name or a Program is needed"),
        ({"problem": [3]}, "problem: 3 is not admissible; a name, a Problem or a factory"),
        ({"optimizer": [replace(plain_adam, name="adam")]}, "optimizer: 'adam' is the name of fpsim's own; give yours"),
        ({"optimizer": [optim.adam.bind(lr=0.5)]}, "optimizer: 'adam' is the name of fpsim's own; give its hyper"),
        ({"optimizer": [plain_adam, plain_adam.bind(lr=1.0)]}, "optimizer: two of the name 'plain_adam'"),
        ({"problem": [lambda dimension: bowl(dimension)]}, "problem: <function <lambda>"),
        ({"optimizer": [fpsim.step(lambda x, g: {"x": x - g}, name="odd")]}, "optimizer: 'odd' reads x, g and"),
        ({"optimizer": [plain_adam.bind(lr=[0.1, 0.2])]}, "optimizer: hyperparameter lr has one value per run"),
        ({"optimizer": "sgd", "problem": [bowl(3)], "dimension": 4}, "dimension: 4 is not that of 'bowl'; admiss"),
        ({"optimizer": "sgd", "problem": [bowl(3)], "gradient": "rounded"}, "gradient: 'rounded' is not to be had"),
        ({"optimizer": "sgd", "problem": [bowl(3)], "noise": "minibatch", "batch": 2}, "noise: 'minibatch' needs"),
    ],
)  # fmt: skip
def test_refusals(given, says):
    with pytest.raises(StudyError) as caught:
        Study(**SMALL | given).run(engine="serial")
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_processes_take_what_can_be_sent_and_refuse_the_rest_before_any_work():
    class Local(Bowl):
        pass

    local = Local(name="local", dimension=2, smoothness=1.0, strong_convexity=1.0)
    with pytest.raises(StudyError, match=r"problem: 'local' cannot be sent to a process .* use the engine 'threads'"):
        Study(optimizer="sgd", **SMALL | {"problem": [local]}).run(engine="processes")
    home = replace(local)
    Local.__module__ = "__main__"
    with pytest.raises(StudyError, match="lives in __main__"):
        Own({}, {"local": home}).check_portable("processes")
    study = Study(optimizer=[plain_adam], **SMALL)
    serial, processes = (study.run(engine=name, workers=2) for name in ("serial", "processes"))
    assert serial.drop("seconds").equals(processes.drop("seconds"))


PLUGIN = """
    from fpsim.tracing import slot, step
    from experiments.problems.quadratic import quadratic

    @step
    def signless(w, g, *, lr=0.0625):
        return {"w": slot("w.sub", w - slot("update.scale", lr * g))}

    steep = lambda dimension=8, *, condition=4.0: quadratic(dimension, condition=condition)
    number = 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a distribution with these entry points, for the duration of a test."""

    def install(name, optimizers=(), problems=(), source=PLUGIN):
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        groups = {"fpsim.optimizers": optimizers, "fpsim.problems": problems}
        lines = [f"[{group}]\n" + "".join(f"{k} = {module}:{v}\n" for k, v in rows) for group, rows in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return install


def test_installed_packages_add_optimizers_and_problems(package):
    package("fpsim-more", [("signless", "signless"), ("sgd", "number")], [("steep", "steep")])
    assert "signless" in optim.available() and optim.find("signless")[1] == "fpsim-more 1.5"
    assert optim.find("sgd")[0] is optim.sgd  # a name of fpsim's stays its own
    changed = {"problem": "steep,quadratic", "steps": 3000, "mantissa": 6, "dimension": 8, "noise": "none"}
    study = Study(optimizer="signless,sgd", **SMALL | changed)
    table = study.run(engine="serial")
    assert set(table["verdict"]) == {"holds"}
    assert all(table.filter(optimizer="signless")["program_digest"] != "")
    assert all(table.filter(problem="steep")["problem_digest"] != "")
    given = Study(optimizer="sgd", **SMALL | {"problem": "steep"}, options={"condition": [2.0, 4.0]}).cells()
    assert {cell.options["condition"] for cell in given} == {2.0, 4.0}
    assert len({cell.problem_digest for cell in given}) == 2
    stale = msgspec.structs.replace(given[0], problem_digest="0" * 32)
    with pytest.raises(RuntimeError, match=r"'steep' of fpsim-more 1\.5 is not that of the driver"):
        simulate.run_batch([stale])
    assert plugins.claims(optim.GROUP, optim.STEPS) == ["fpsim-more 1.5 registers 'sgd' too, which stays fpsim's own"]


@pytest.mark.parametrize(
    ("optimizers", "source", "says"),
    [
        ([("bad", "bad")], "raise OSError('no\\nlicence')", "'bad' of package broken 1.5 (broken:bad) cannot be load"),
        ([("bad", "absent")], PLUGIN, "'bad' of package broken 1.5 (broken:absent) cannot be loaded: AttributeError"),
        ([("bad", "number")], PLUGIN, "'bad' of package broken 1.5 is a int; a Program"),
    ],
)  # fmt: skip
def test_a_broken_package_is_one_line_that_names_it(package, optimizers, source, says):
    package("broken", optimizers, source=source)
    assert len(Study(optimizer="sgd", **SMALL).cells()) == 2  # nobody asked for it
    with pytest.raises(StudyError, match="unknown"):
        Study(optimizer="worse", **SMALL)
    with pytest.raises(StudyError) as caught:
        Study(optimizer="bad", **SMALL).cells()
    assert str(caught.value).startswith(f"optimizer: {says}")
    assert "\n" not in str(caught.value)


def test_two_packages_with_one_name_are_both_named(package):
    package("one", [("same", "signless")])
    package("two", [("same", "signless")])
    with pytest.raises(StudyError, match=r"'same' is registered twice in fpsim.optimizers: by one 1.5 .* and two 1.5"):
        Study(optimizer="same", **SMALL).cells()


def test_a_package_whose_factory_makes_no_problem(package):
    package("odd", problems=[("odd", "odd")], source="def odd(dimension=3): return 3")
    with pytest.raises(StudyError, match=r"'odd' of odd 1\.5 makes a int; a Problem is needed"):
        Study(optimizer="sgd", **SMALL | {"problem": "odd"}).cells()


def test_our_own_objects_are_our_own_names():
    study = Study(optimizer=[optim.sgd], **SMALL | {"problem": [PROBLEMS["quadratic"]]})
    assert not study.own and study.optimizer == ("sgd",)
    assert registry.problem_source("quadratic")[0] is PROBLEMS["quadratic"]


@step
def named_freely(w, m, v, g, *, lr=0.02, beta1=0.9, beta2=0.99):
    """It climbs, so that gradients grow; no slot of a moment is called after it."""
    m = slot("first", slot("kept", beta1 * m) + slot("added", (1 - beta1) * g))
    v = slot("second", slot("older", beta2 * v) + slot("newer", (1 - beta2) * slot("size", g * g)))
    return {"w": slot("w.add", w + slot("update.scale", lr * g)), "m": m, "v": v}


@dataclass(frozen=True, eq=False, kw_only=True)
class Cone(Bowl):
    """The gradient is w, from 1/32 on."""

    def start(self, key, runs):
        return np.full((self.dimension, len(runs)), 0.03125)

    def gradient(self, w, out=None):
        out = self._arrays(w, out)
        out[:] = w
        return out

    def loss_gap(self, w):
        return np.ones(w.shape[1])


def test_ratios_after_an_underflow_do_not_count_whatever_the_slots_are_called():
    """g^2 / 100 underflows at first: v = 0 beside m > 0, of which T5 says nothing; in the window nothing underflows."""
    cone = Cone(name="cone", dimension=1, smoothness=1.0, strong_convexity=0.0)
    study = Study(
        optimizer=named_freely, problem=cone, exponent=4, mantissa=8, rounding="up,nearest_even", steps=280, seeds=1,
        window=0.05,
    )  # fmt: skip
    for one in study.cells():
        (window,) = simulate.windows([one], study.own)
        bound = theorem("T5").evaluate(window)
        found = verdict(theorem("T5").measured(window), bound)
        assert found.status == "holds", found.reason
        assert bound.upper < 10.0
