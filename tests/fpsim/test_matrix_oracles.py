"""The matrix optimizers against libraries, and what they are made of: factorizations, draws, a schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from matrix_oracles import ORACLES, STEPS, TABLE, VERSION, start, step_inputs, theirs

from fpsim import Key, Precision
from fpsim.optim import matrix
from fpsim.optim.matrix import factorizations
from fpsim.optim.matrix.arithmetic import Arithmetic
from fpsim.optim.matrix.kron import refreshes

KEY = Key(11)
WIDE = Precision.uniform("binary64")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small products on all of a machine's cores wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_muon_is_that_of_pytorch_up_to_lerp(shape: tuple[int, int]) -> None:
    """torch.optim.Muon of float32 weights, its iteration in bfloat16 with products added up in float32.

    Measured with torch 2.13 on these shapes: at most 8e-9 apart after one step, 2e-4 after twenty, of 0.02 each. The
    lerp of its averages and the order of float32 additions turn single bfloat16 digits; without bfloat16 in the slots
    ns.* it is 2e-4 after one step and 1e-3 after twenty.
    """
    random = np.random.default_rng(0)
    first = random.standard_normal(shape).astype(np.float32)
    w = torch.tensor(first, requires_grad=True)
    theirs = torch.optim.Muon([w], lr=0.02, weight_decay=0.1)
    wide = ("ns.square_sum", "ns.square", "ns.linear", "ns.quadratic", "ns.apply", "ns.keep")
    precision = Precision.uniform("binary32").replace({"ns.*": "bfloat16", **dict.fromkeys(wide, "binary32")})
    method = matrix.muon().bind(lr=0.02, decay=0.1)
    state = method.start(first, precision)
    apart = []
    for step in range(20):
        gradient = random.standard_normal(shape).astype(np.float32)
        w.grad = torch.tensor(gradient)
        theirs.step()
        state = method.step(state, gradient, precision, step=step, accumulators={"ns.*": "binary32"})
        apart.append(np.abs(state["w"] - w.detach().numpy()))
    assert np.median(apart[0]) <= 1e-7
    assert np.max(apart) <= 4e-4


def after_oracle_steps(name: str) -> np.ndarray:
    oracle = ORACLES[name]
    method = oracle.ours.bind(**oracle.values)
    state = method.start(start(), WIDE)
    for step in range(STEPS):
        gradient, draws = step_inputs(step)
        state = method.step(state, gradient, WIDE, step=step, draws=draws if method.draws else {})
    return state["w"]


@pytest.mark.parametrize("name", ORACLES)
def test_the_library_computed_the_same(name: str) -> None:
    expected = np.array(json.loads(TABLE.read_text())[name])
    assert np.abs(after_oracle_steps(name) - expected).max() <= ORACLES[name].tolerance
    assert np.abs(expected - start()).max() > 0.05


@pytest.mark.usefixtures("one_thread")
def test_the_library_computes_the_same() -> None:
    pytest.importorskip("pytorch_optimizer", reason=f"pip install pytorch-optimizer=={VERSION}: it made the table")
    for name, oracle in ORACLES.items():
        assert np.abs(after_oracle_steps(name) - theirs(name)).max() <= oracle.tolerance, name


def test_shampoo_is_adam_before_its_first_factorization() -> None:
    """With decay in the gradient's place: AdamW's w - lr decay w - lr P is what Shampoo subtracts at once."""
    method = matrix.shampoo(frequency=STEPS + 1).bind(lr=0.01, decay=0.1, eps=1e-3)
    state = method.start(start(), WIDE)
    w = torch.tensor(start(), requires_grad=True)
    adam = torch.optim.AdamW([w], lr=0.01, betas=(0.95, 0.95), eps=1e-3, weight_decay=0.1)
    for step in range(STEPS):
        gradient, _ = step_inputs(step)
        state = method.step(state, gradient, WIDE, step=step)
        w.grad = torch.tensor(gradient)
        adam.step()
    np.testing.assert_allclose(state["w"], w.detach().numpy(), rtol=1e-13, atol=1e-13)


def test_an_inverse_root_undoes_its_power() -> None:
    a = np.random.default_rng(2).standard_normal((5, 5))
    m = a @ a.T
    root = factorizations.inverse_root(m, 1e-3, 4)
    np.testing.assert_allclose(np.linalg.matrix_power(root, 4) @ (m + 1e-3 * np.eye(5)), np.eye(5), atol=1e-9)
    shifted = factorizations.inverse_root(np.diag([-1.0, 1.0]), 2.0**-4, 4)  # to 2^-4 and 2 + 2^-4
    np.testing.assert_allclose(np.diag(shifted), [2.0, (2 + 2.0**-4) ** -0.25], rtol=1e-14)


def test_kron_updates_its_factors_as_the_counter_says() -> None:
    """The counter itself, step by step, against the table with its period."""
    since = 0
    for n in range(6000):
        since += 1
        due = since >= 1 / min(max(np.exp(-0.001 * (n - 500)), 0.03), 1.0)
        assert refreshes(n) == due, n
        since = 0 if due else since


def test_draws_are_normal_and_a_function_of_key_and_step() -> None:
    numbers = Arithmetic({}, {}, {}, KEY, 0, ["noise"]).normal("noise", (400, 100))
    assert abs(numbers.mean()) < 0.02 and abs(numbers.var() - 1) < 0.03 and abs((numbers**4).mean() - 3) < 0.2
    again = Arithmetic({}, {}, {}, KEY, 0, ["noise"]).normal("noise", (400, 100))
    later = Arithmetic({}, {}, {}, KEY, 1, ["noise"]).normal("noise", (400, 100))
    assert np.array_equal(numbers, again)
    assert abs(np.mean(numbers * later)) < 0.02


def test_five_newton_schulz_steps_lift_singular_values() -> None:
    """As the module's docstring says, of a matrix whose norm is taken up by one singular value."""
    values = np.array([1.0, 0.003, 0.01, 0.03, 0.1])
    method = matrix.muon(nesterov=False).bind(lr=1, beta1=0, eps=0)
    w = method.step(method.start(np.zeros((5, 5)), WIDE), np.diag(values), WIDE)["w"]
    lifted = -np.diag(w)
    assert lifted.min() > 0.68 and lifted.max() < 1.21


@pytest.mark.parametrize("m", [np.zeros((3, 2)), np.outer([1.0, 2.0], [3.0, 4.0, 5.0])])
def test_a_polar_factor_leaves_out_what_the_matrix_lacks(m: np.ndarray) -> None:
    singular = np.linalg.svd(factorizations.polar(m), compute_uv=False)
    rank = np.linalg.matrix_rank(m)
    np.testing.assert_allclose(singular, [1.0] * rank + [0.0] * (2 - rank), atol=1e-14)


@pytest.mark.parametrize("function", ["polar", "eigenbasis", "inverse_root", "power_basis", "solve_both"])
def test_a_factorization_of_what_is_not_finite_is_nan(function: str) -> None:
    bad, one = np.array([[1.0, np.inf], [0.0, 1.0]]), np.eye(2)
    given = {"inverse_root": (bad, 0.0, 4), "power_basis": (one, bad), "solve_both": (one, one, bad)}.get(
        function, (bad,)
    )
    result = getattr(factorizations, function)(*given)
    assert np.isnan(result[0] if isinstance(result, tuple) else result).all()
    assert np.isnan(factorizations.solve_both(np.zeros((2, 2)), one, one)).all()
