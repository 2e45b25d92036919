"""Tracing, slots and their numbers, joining, and the errors of programs that are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fpsim.optim import STEPS, adam, sgd
from fpsim.program import Operation, Program, Scalar
from fpsim.scalars import ScalarExpression
from fpsim.tracing import absolute, fma, maximum, minimum, scalar, slot, sqrt, step, total


@step
def quadratic(w, curvature, center):
    """Gradient of a separable quadratic."""
    return {"g": slot("scale", curvature * slot("difference", w - center))}


def test_every_operation_is_traced_in_order() -> None:
    @step
    def everything(a, b, *, c=0.5):
        first = slot("first", a + b)
        second = slot("second", fma(first, c, b))
        third = slot("third", maximum(second, absolute(a)))
        return {"a": sqrt(-third / 2), "s": total(minimum(third, b)) - 1}

    assert [(o.kind, o.slot, o.operands) for o in everything.operations] == [
        ("add", "first", ("a", "b")),
        ("fma", "second", ("first", "scalar.c", "b")),
        ("abs", "abs", ("a",)),
        ("max", "third", ("second", "abs")),
        ("neg", "neg", ("third",)),
        ("div", "div", ("neg", "scalar.two")),
        ("sqrt", "sqrt", ("div",)),
        ("min", "min", ("third", "b")),
        ("sum", "sum", ("min",)),
        ("sub", "sub", ("sum", "scalar.one")),
    ]
    # Slots: rounded operations in order, then arrays, then scalars; exact operations have none.
    assert everything.slots == (
        *("first", "second", "div", "sqrt", "sum", "sub"),
        *("a", "b"),
        *("scalar.c", "scalar.two", "scalar.one"),
    )
    assert everything.outputs == (("a", "sqrt"), ("s", "sub"))
    assert everything.state == ("a",)
    assert everything.name == "everything"


def test_swapped_operands_keep_their_order() -> None:
    @step
    def swapped(a, *, c=3.0):
        return {"a": slot("d", c / slot("s", c - slot("m", c * slot("p", c + a))))}

    assert [o.operands for o in swapped.operations] == [
        ("scalar.c", "a"),
        ("scalar.c", "p"),
        ("scalar.c", "m"),
        ("scalar.c", "s"),
    ]


def test_unnamed_operations_get_names_of_their_own() -> None:
    @step
    def unnamed(a):
        return {"a": a + a + a + a}

    assert [o.slot for o in unnamed.operations] == ["add", "add_1", "add_2"]


def test_scalars_in_order_of_first_use() -> None:
    assert [s.name for s in adam.scalars] == [
        f"scalar.{name}"
        for name in ("beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "correction1", "correction2", "eps", "lr")
    ]
    assert [s.name for s in adam.scalars if s.per_step] == ["scalar.correction1", "scalar.correction2"]
    assert str(adam.scalars[4].expression) == "(1 - (beta1**t))"


def test_slots_are_frozen() -> None:
    """The position of a slot numbers its random bits: a change here changes every stochastic result."""
    assert sgd.slots == ("update.scale", "w.sub", "w", "g", "scalar.lr")
    assert adam.slots[:14] == (
        *("m.decay", "m.inject", "m.add", "v.decay", "v.square", "v.inject", "v.add"),
        *("update.m_hat", "update.v_hat", "update.sqrt", "update.eps", "update.div", "update.scale", "w.sub"),
    )
    assert adam.slots[14:18] == ("w", "m", "v", "g")
    assert STEPS["rmsprop"].slots[:9] == (
        *(
            "v.decay",
            "v.square",
            "v.inject",
            "v.add",
            "update.sqrt",
            "update.eps",
            "update.div",
            "update.scale",
            "w.sub",
        ),
    )
    assert STEPS["momentum"].slots[:5] == ("m.decay", "m.inject", "m.add", "update.scale", "w.sub")


def test_joining_a_gradient() -> None:
    joined = quadratic >> sgd
    assert [(o.kind, o.slot, o.operands) for o in joined.operations] == [
        ("round", "gradient.w", ("w",)),
        ("sub", "gradient.difference", ("gradient.w", "center")),
        ("mul", "gradient.scale", ("curvature", "gradient.difference")),
        ("round", "g", ("gradient.scale",)),
        ("mul", "update.scale", ("scalar.lr", "g")),
        ("sub", "w.sub", ("w", "update.scale")),
    ]
    assert joined.inputs == ("w", "curvature", "center")
    assert joined.outputs == sgd.outputs
    assert joined.state == ("w",)
    assert joined.name == "quadratic >> sgd"
    assert joined.hyperparameters == {"lr": 0.1}
    assert joined.variant == sgd.variant
    assert joined.slots == (
        *("gradient.w", "gradient.difference", "gradient.scale", "g", "update.scale", "w.sub"),
        *("w", "curvature", "center"),
        "scalar.lr",
    )


def test_joining_shares_scalars_and_inputs() -> None:
    @step
    def damped(w, noise, *, lr=0.1):
        return {"g": slot("sum", lr * w + noise)}

    joined = damped >> sgd
    assert [s.name for s in joined.scalars] == ["scalar.lr"]
    assert joined.inputs == ("w", "noise")

    @step
    def shifted(w, shift, g):
        return {"w": w - slot("scaled", g * shift)}

    @step
    def along(shift, w):
        return {"g": slot("product", w * shift)}

    # An input that both read and neither writes is read by both without a slot in between.
    assert [o.slot for o in (along >> shifted).operations] == ["gradient.w", "gradient.product", "g", "scaled", "sub"]


def test_joining_three() -> None:
    @step
    def difference(w, center):
        return {"z": slot("shift", w - center)}

    @step
    def scaled(z, curvature):
        return {"g": slot("scale", curvature * z)}

    joined = difference >> (scaled >> sgd)
    assert [(o.slot, o.operands) for o in joined.operations] == [
        ("gradient.w", ("w",)),
        ("gradient.shift", ("gradient.w", "center")),
        ("z", ("gradient.shift",)),
        ("gradient.scale", ("curvature", "z")),
        ("g", ("gradient.scale",)),
        ("update.scale", ("scalar.lr", "g")),
        ("w.sub", ("w", "update.scale")),
    ]
    assert joined.inputs == ("w", "curvature", "center")

    @step
    def clip(g, *, most=1.0):
        return {"g": minimum(g, most)}

    clipped = clip >> sgd
    assert clipped.inputs == ("w", "g")
    assert [(o.slot, o.operands) for o in clipped.operations] == [
        ("gradient.min", ("g", "scalar.most")),
        ("gradient.g", ("gradient.min",)),
        ("update.scale", ("scalar.lr", "gradient.g")),
        ("w.sub", ("w", "update.scale")),
    ]
    assert [o.slot for o in (scaled >> clipped).operations][1:4] == ["g", "gradient.min", "gradient.g"]
    with pytest.raises(ValueError, match=r"names used twice in program 'clip >> clip >> sgd': gradient\.g"):
        clip >> clipped


def test_joining_what_does_not_fit_raises() -> None:
    with pytest.raises(ValueError, match="no output of the first is an input of the second"):
        sgd.bind(lr=0.2) >> quadratic.__class__(
            name="other", inputs=("z",), outputs=(("z", "z"),), scalars=(), operations=()
        )
    with pytest.raises(ValueError, match="hyperparameter 'lr' has two declared values"):
        _with_lr(0.2) >> sgd

    @step
    def other_expression(w, *, beta=0.5):
        return {"g": scalar("lr", 1 - beta) * w}

    with pytest.raises(ValueError, match=r"scalar\.lr stands for two expressions"):
        other_expression >> sgd

    @step
    def stateful(w, s):
        return {"g": slot("sum", w + s), "s": slot("half", s / 2)}

    with pytest.raises(ValueError, match="'stateful' >> 'sgd': state s of the first would be lost"):
        stateful >> sgd


def _with_lr(value: float) -> Program:
    @step
    def scaled(w, *, lr=value):
        return {"g": lr * w}

    return scaled


def test_declared_values() -> None:
    assert sgd.bind(lr=0.25).hyperparameters == {"lr": 0.25}
    assert sgd.hyperparameters == {"lr": 0.1}
    with pytest.raises(ValueError, match="hyperparameter 'lrr' is unknown; did you mean lr"):
        sgd.bind(lrr=1)
    with pytest.raises(ValueError, match="hyperparameter 'x' is unknown; known: lr, beta1, beta2, eps"):
        adam.bind(x=1)
    per_run = sgd.bind(lr=np.array([0.1, 0.2]))
    assert per_run.hyperparameters["lr"] == (0.1, 0.2)
    assert per_run == sgd.bind(lr=[0.1, 0.2])
    assert per_run != sgd
    assert sgd.bind(lr=Fraction(1, 3)).hyperparameters["lr"] == Fraction(1, 3)
    assert sgd.bind(lr=np.float32(0.5)) == sgd.bind(lr=0.5)
    assert hash(per_run) == hash(sgd)  # equal programs hash alike; so do those that differ in declared values only


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", None, True, [], [[0.1]], [0.1, float("nan")], 1j])
def test_what_is_no_declared_value_raises(value: object) -> None:
    with pytest.raises(ValueError, match=r"hyperparameter lr=.*: a finite number is needed, or one per run"):
        sgd.bind(lr=value)


def test_a_hyperparameter_needs_a_declared_value() -> None:
    with pytest.raises(ValueError, match="hyperparameter 'rate' needs a default, its declared value"):

        @step
        def undeclared(w, g, *, rate):
            return {"w": w - rate * g}

    broken = (Scalar("scalar.rate", ScalarExpression.symbol("rate")),)
    with pytest.raises(ValueError, match=r"scalar\.rate: hyperparameters without a declared value: rate"):
        replace(sgd, scalars=(*sgd.scalars, *broken))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"operations": (Operation("add", "x", ("w", "nothing")),)},
            "x: operand 'nothing' is not defined before it is used",
        ),
        ({"operations": (Operation("add", "x", ("w",)),)}, "x: add takes 2 operands, 1 given"),
        ({"operations": (Operation("cube", "x", ("w",)),)}, "x: kind 'cube'; admissible: add, sub"),
        ({"operations": (Operation("neg", "g", ("w",)),), "outputs": ()}, "names used twice in program 'sgd': g"),
        (
            {"operations": (Operation("neg", "y", ("z",)), Operation("neg", "z", ("w",)))},
            "y: operand 'z' is not defined",
        ),
        ({"outputs": (("w", "later"),)}, "output 'w': value 'later' is not defined"),
        ({"inputs": ("w", "g", "w")}, "names used twice in program 'sgd': w"),
    ],
)
def test_broken_programs_raise(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(sgd, **changes)  # type: ignore[arg-type]


def _twice(w, g):
    return {"w": slot("same", w + slot("same", w + g))}


def _late(w, g):
    first, _ = w + g, w - g
    return {"w": slot("late", first)}


def _unnamed_scalar(w, g, *, lr=0.1):
    return {"w": w + (lr / 7) * g}


def _two_expressions(w, g, *, lr=0.1):
    return {"w": scalar("c", lr) * w + scalar("c", 1 - lr) * g}


def _branch(w, g):
    return {"w": w if w else g}


def _text(w, g):
    return {"w": w + "1"}


def _foreign(w, g):
    leak = []
    step(lambda x: leak.append(x) or {"x": x + x})
    return {"w": w + leak[0]}


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (_twice, ValueError, "slot 'same' is used twice"),
        (_late, ValueError, "slot 'late': name a value in the expression that computes it"),
        (_unnamed_scalar, ValueError, r"scalar expression \(lr / 7\): give it a name with scalar\(NAME, expression\)"),
        (_two_expressions, ValueError, "scalar.c stands for two expressions"),
        (_branch, TypeError, "a branch on data is not a program"),
        (_text, TypeError, "operand '1': a traced array, a hyperparameter or a number is needed"),
        (_foreign, ValueError, "'x' belongs to another step"),
    ],
)
def test_functions_that_are_no_step_raise(
    function: Callable[..., object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        step(function)  # type: ignore[arg-type]


def test_a_program_prints_itself() -> None:
    assert str(quadratic >> sgd).splitlines() == [
        "program quadratic >> sgd: w, curvature, center",
        "  scalar.lr = lr",
        "  gradient.w = round(w)",
        "  gradient.difference = sub(gradient.w, center)",
        "  gradient.scale = mul(curvature, gradient.difference)",
        "  g = round(gradient.scale)",
        "  update.scale = mul(scalar.lr, g)",
        "  w.sub = sub(w, update.scale)",
        "  w <- w.sub",
    ]
    assert step(lambda w: {"w": w + w}, name="double").name == "double"


def test_looking_up_an_operation() -> None:
    assert adam.operation("v.square").operands == ("g", "g")
    with pytest.raises(KeyError, match="nothing"):
        adam.operation("nothing")


@pytest.mark.parametrize("name", STEPS)
def test_every_step_names_its_variant_and_state(name: str) -> None:
    program = STEPS[name]
    assert len(program.variant) > 50
    moments = tuple(array for array in ("w", "m", "v") if array in program.inputs)
    assert program.state[: len(moments)] == moments
    assert program.inputs == (*program.state, "g")
    assert program.operations[-1].slot == "w.sub"


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (lambda w, g: w - g, TypeError, "the step returns .*; a dict is needed"),
        (lambda w, g: {"w": 3.0}, TypeError, "the step returns .*; a dict is needed"),
        (lambda w, g: {}, ValueError, "it stores nothing"),
        (lambda w, *g: {"w": w}, ValueError, "parameter .g: every array"),
        (lambda w, g, lr=0.1: {"w": w - lr * g}, ValueError, "parameter lr=0.1: arrays have no default"),
        (lambda w, g: {"w": w - slot("x", 3.0)}, TypeError, "slot 'x': 3.0 is not a traced value"),
    ],
)
def test_what_is_no_step_says_why(function: Callable[..., Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        step(function, name="wrong")
