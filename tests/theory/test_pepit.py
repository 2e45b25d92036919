"""The one-step lemma of gradient descent: attained, and found again by a semidefinite program."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

from theory.theorems import _one_step as lemma

SETTINGS = [(0.0, 1.0), (0.1, 1.0), (0.3, 0.5), (0.6, 0.25), (0.9, 1.0), (0.99, 0.1)]  # (q, alpha L)


def decrease(q: float, alpha: float, smoothness: float) -> float:
    """What the lemma's statement takes off F for |grad F| = 1."""
    values = {lemma.q: q, lemma.alpha: alpha, lemma.L: smoothness, lemma.G: 1, lemma.f: 0}
    return -float(lemma.one_step.statement.right.subs({k: sp.Float(v) for k, v in values.items()}))


def test_cauchy_schwarz() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 1000, 3))
    y[:100] = -x[:100]  # equality
    inner = np.sum(x * y, axis=1)
    product = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    assert np.all(inner >= -product * (1 + 1e-15))
    assert np.allclose(inner[:100], -product[:100])


@pytest.mark.parametrize(("q", "step"), SETTINGS)
def test_attained_by_a_parabola_and_never_beaten_at_random(q: float, step: float) -> None:
    smoothness, alpha = 2.0, step / 2.0
    w = 1 / smoothness  # grad = 1
    moved = w - alpha * (1 - q)
    assert smoothness / 2 * (moved**2 - w**2) == pytest.approx(-decrease(q, alpha, smoothness), rel=1e-12)
    draw = np.random.default_rng(1)
    for _ in range(200):  # L-smooth, not convex: eigenvalues in [-L, L]
        a = np.linalg.qr(draw.normal(size=(4, 4)))[0]
        hessian = a @ np.diag(draw.uniform(-smoothness, smoothness, 4)) @ a.T
        x, e = draw.normal(size=4), draw.normal(size=4)
        gradient = hessian @ x
        s = -alpha * (gradient + q * np.linalg.norm(gradient) * e / np.linalg.norm(e))
        change = gradient @ s + s @ hessian @ s / 2
        assert change <= -decrease(q, alpha, smoothness) * (gradient @ gradient) * (1 - 1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the solver's own
@pytest.mark.parametrize(("q", "step"), SETTINGS)
def test_pepit_finds_the_same_worst_case(q: float, step: float) -> None:
    pepit = pytest.importorskip("PEPit", reason="PEPit, of the extra `dev`, solves the semidefinite program")
    from PEPit.functions import SmoothFunction
    from PEPit.primitive_steps import inexact_gradient_step

    smoothness, alpha = 2.0, step / 2.0
    problem = pepit.PEP()
    function = problem.declare_function(SmoothFunction, L=smoothness)
    start = problem.set_initial_point()
    new, _, value = inexact_gradient_step(start, function, gamma=alpha, epsilon=q, notion="relative")
    problem.set_initial_condition(function.gradient(start) ** 2 == 1)
    problem.set_performance_metric(function(new) - value)
    worst = problem.solve(verbose=0)
    assert worst == pytest.approx(-decrease(q, alpha, smoothness), abs=1e-4)
