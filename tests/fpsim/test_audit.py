"""The audit of a training loop of one's own: what it finds, that each count is exact, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from audit_runs import OPTIMIZERS, UNKNOWN, audited, network, share, train

import fpsim
from fpsim import audit_measure, exact
from fpsim.audit import audit
from fpsim.audit_rules import ADAM, rule_of
from fpsim.formats import format
from theory.theorems.t14_frozen_decay import frozen


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from threads, and wait for them where processors are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_it_finds_the_frozen_second_moment_of_adams_defaults_in_bfloat16() -> None:
    found = audited(torch.bfloat16)
    assert found.names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for name in found.names:
        x = found.last(name)
        assert share(x["v_stuck"]) == 1.0 and x["v_fell"] == 0
        assert x["beta2_effective"] == 1.0
    assert all(x["v_fell"] == 0 for sample in found.record["samples"] for x in sample["tensors"].values())


@pytest.mark.parametrize(("dtype", "beta2"), [(torch.bfloat16, 0.9), (torch.float32, 0.999)])
def test_and_does_not_where_there_is_none(dtype: torch.dtype, beta2: float) -> None:
    found = audited(dtype, betas=(0.9, beta2))
    for name in found.names:
        x = found.last(name)
        assert share(x["v_stuck"]) == 0.0
        assert x["beta2_effective"] == pytest.approx(beta2, rel=2**-7)
    assert sum(found.last(name)["v_fell"] for name in found.names) > 0


def test_weights_freeze_in_bfloat16_and_the_step_is_shorter_than_declared() -> None:
    narrow, wide = (audited(dtype, lr=1e-4).last("0.weight") for dtype in (torch.bfloat16, torch.float32))
    assert share(narrow["w_frozen"]) > 0.5 and share(wide["w_frozen"]) < 0.05
    assert abs(narrow["lr_effective"] / 1e-4 - 1) > 0.1
    assert wide["lr_effective"] == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize("which", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_training_is_the_same_to_the_last_bit(which: str, dtype: torch.dtype) -> None:
    results = []
    for watched in (False, True):
        net = network(dtype)
        kind, options = OPTIMIZERS[which]
        optimizer = kind(net.parameters(), **options)
        elements, follow = (None, 0) if dtype is torch.float32 else (10, 3)
        log = audit(optimizer, every=2, elements=elements, follow=follow) if watched else None
        train(net, optimizer, 7)
        if log is not None:
            log.detach()
            assert not log.errors and len(log.record["samples"]) == 3
        results.append(([p.detach().clone() for p in net.parameters()], torch.get_rng_state(), optimizer.state_dict()))
    (plain, seed, state), (same, seed_, state_) = results
    assert all(torch.equal(x.view(torch.uint8), y.view(torch.uint8)) for x, y in zip(plain, same, strict=True))
    assert torch.equal(seed, seed_)
    for i, entries in state["state"].items():
        assert all(torch.equal(torch.as_tensor(x), torch.as_tensor(state_["state"][i][k])) for k, x in entries.items())


@pytest.mark.parametrize("which", [name for name in OPTIMIZERS if name != UNKNOWN])
def test_the_exact_change_is_what_torch_computes_in_binary64(which: str) -> None:
    """There rounding hardly matters, so that the projection of the moves on Delta is the declared rate."""
    log = audited(torch.float64, which)
    assert log.understood
    for name in log.names:
        x = log.last(name)
        assert x["w_frozen"][0] == 0 and x["w_frozen"][1] > 0
        lr = log.record["samples"][-1]["groups"][0]["lr"]
        assert x["lr_effective"] == pytest.approx(lr, rel=1e-9), name


def one_step(v: torch.Tensor, beta2: float, g: float = 0.0, **options: Any) -> dict[str, Any]:
    """The measurements of one step of Adam from a given second moment."""
    w = torch.ones_like(v, requires_grad=True)
    optimizer = torch.optim.Adam([w], betas=(0.9, beta2), **options)
    w.grad = torch.zeros_like(v)
    optimizer.step()
    optimizer.state[w]["exp_avg_sq"].copy_(v)
    w.grad = torch.full_like(v, g)
    log = audit(optimizer, every=1, names={"w": w}, elements=None)
    optimizer.step()
    return log.last("w")


@pytest.mark.parametrize("beta2", [0.9, 0.99, 0.997, 0.998, 0.9985, 0.999])
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_what_is_stuck_is_what_the_specification_says(name: str, beta2: float) -> None:
    """Every significand in two binades, and the subnormal end: torch multiplies in binary32 and rounds once more."""
    dtype, fmt = getattr(torch, name), format("binary16" if name == "float16" else name)
    codes = np.arange(1, 3 << (fmt.mantissa_bits - 2), 5, dtype=np.uint64)
    values = np.concatenate([1 + np.arange(1 << fmt.mantissa_bits) * fmt.eps, fpsim.decode(codes, fmt)])
    stored = float(np.float32(beta2))
    inner = [exact.operation("mul", (stored, float(v)), format("binary32"), "nearest_even") for v in values]
    twice = fpsim.round(np.array(inner), fmt)
    x = one_step(torch.tensor(values).to(dtype), beta2)
    assert x["v_stuck"] == [int(np.sum(twice >= values)), len(values)]
    assert x["beta2_effective"] == np.sort(twice / values)[(len(values) - 1) // 2]
    # and so say T14's formula and, there being no gradient, the step itself
    assert x["v_stuck"][0] == int(np.sum(frozen(values, stored, fmt, "nearest_even")))
    assert x["v_fell"] == len(values) - x["v_stuck"][0]


def test_squares_and_eps_underflow() -> None:
    tiny = one_step(torch.zeros(4, dtype=torch.float16), 0.999, g=2.0**-8)
    assert tiny["g2_underflow"] == [4, 4]  # 2^-16 * 0.001 is below half of 2^-24
    assert tiny["v_swamped"] == [4, 4]
    assert tiny["eps_stored"] == 0.0 and tiny["zero_denominator"] == 4
    assert tiny["nonfinite"]["w"] == 4
    enough = one_step(torch.zeros(4, dtype=torch.float16), 0.999, g=2.0**-7, eps=1e-4)
    assert enough["g2_underflow"] == [0, 4] and enough["zero_denominator"] == 0
    assert enough["eps_stored"] == float(np.float16(1e-4))
    assert one_step(torch.zeros(4), 0.999, g=1e-30)["g2_underflow"] == [4, 4]
    assert one_step(torch.zeros(4, dtype=torch.float16), 0.999, fused=True)["eps_stored"] == float(np.float32(1e-8))


def test_swamped_updates() -> None:
    """0.001 * 2^-6 is less than half the gap of 2^-8 below 1 and than that above 1.5."""
    x = one_step(torch.tensor([1.5, 2.0**-14]).bfloat16(), 0.999, g=2.0**-3)
    assert x["v_swamped"] == [1, 2]
    assert x["v_stuck"] == [2, 2]


def test_headroom_is_counted_in_binades() -> None:
    x = one_step(torch.tensor([2.0**3, 1.5 * 2.0**-20, 0.0]).half(), 0.5, eps=1e-4)
    assert x["headroom"]["v"] == [13, -7]  # v is halved: 4 is 13 binades below 2^15, 1.5 2^-21 is 7 below 2^-14
    assert x["largest"]["v"] == 4.0
    assert x["binades"] == {"0": 3} and x["zeros"] == 0


@pytest.mark.parametrize("count", [1, 2, 1000, 4096, 700 * 1000, 4096 * 4096, 2**20 + 7])
def test_the_chosen_entries_differ_and_have_no_period(count: int) -> None:
    most = 1000
    chosen = audit_measure.choose(count, most, "cpu")
    if count <= most:
        assert chosen is None
        return
    assert len(set(chosen.tolist())) == most and int(chosen.min()) >= 0 and int(chosen.max()) < count
    gaps = np.diff(np.sort(chosen.numpy()))
    assert gaps.max() <= 3 * count / most
    if count == 4096 * 4096:
        assert len(set((chosen % 4096).tolist())) > 700


def test_shares_of_chosen_entries_say_out_of_how_many() -> None:
    w = torch.ones(100, 50, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=1e-9)
    w.grad = torch.ones_like(w)
    with audit(optimizer, 1, [("w", w)], elements=200) as log:
        optimizer.step()
    assert log.last("w")["w_frozen"] == [200, 200] and log.last("w")["entries"] == 200
    assert "200 entries" in str(log)


def test_kinds_of_tensors() -> None:
    """Without gradient, empty, scalar, complex, not contiguous, sparse gradient, states of another dtype."""
    none, empty = torch.ones(3, requires_grad=True), torch.ones(0, requires_grad=True)
    scalar, parts = torch.tensor(1.0, requires_grad=True), torch.ones(4, dtype=torch.complex64, requires_grad=True)
    turned = torch.ones(4, 3).T.requires_grad_()
    params = [none, empty, scalar, parts, turned]
    optimizer = torch.optim.Adam(params)
    for p in params[1:]:
        p.grad = torch.ones_like(p)
    with audit(optimizer, 1, elements=5) as log:
        optimizer.step()
        optimizer.step()
    assert not log.errors
    assert list(log.record["samples"][0]["tensors"]) == [f"group 0, tensor {i}" for i in (2, 3, 4)]
    assert log.last("group 0, tensor 3")["entries"] == 8
    assert log.last("group 0, tensor 2")["lr_effective"] == pytest.approx(1e-3, rel=1e-3)

    rows = torch.nn.Embedding(10, 4, sparse=True)
    optimizer = torch.optim.SGD(rows.parameters(), lr=0.1)
    rows(torch.tensor([1, 2])).sum().backward()
    with audit(optimizer, 1) as log:
        optimizer.step()
    assert not log.errors and "w_frozen" not in log.last("group 0, tensor 0")

    w = torch.ones(6, dtype=torch.bfloat16, requires_grad=True)
    optimizer = torch.optim.RMSprop([w], lr=1e-5, alpha=0.999)
    optimizer.state[w] = {"step": torch.tensor(0.0), "square_avg": torch.zeros(6)}  # in binary32
    w.grad = torch.ones_like(w)
    with audit(optimizer, 1, {"w": w}) as log:
        optimizer.step()
        optimizer.step()
    assert log.record["tensors"]["w"]["moments"] == {"v": "float32"}
    assert log.last("w")["v_stuck"] == [0, 6] and log.last("w")["w_frozen"] == [6, 6]


def test_closures_schedules_and_rates_that_are_tensors() -> None:
    w = torch.ones(5, requires_grad=True)
    optimizer = torch.optim.Adam([("weights", w)], lr=torch.tensor(0.1))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    with audit(optimizer, 1) as log:
        for _ in range(3):
            optimizer.step(closure)
            schedule.step()
    assert [s["groups"][0]["lr"] for s in log.record["samples"]] == pytest.approx([0.1, 0.05, 0.025])
    assert log.last("weights")["lr_effective"] == pytest.approx(0.025, rel=1e-5)


def test_decoupled_decay_that_does_nothing() -> None:
    w = torch.ones(5, dtype=torch.bfloat16, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=1e-3, weight_decay=0.01)
    w.grad = torch.zeros_like(w)
    with audit(optimizer, 1, {"w": w}) as log:
        optimizer.step()
    assert log.last("w")["w_decay_frozen"] == [5, 5] and log.last("w")["w_frozen"] == [5, 5]


def test_an_optimizer_with_another_step_is_not_understood() -> None:
    class Same(torch.optim.Adam):
        pass

    class Other(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    w = torch.ones(3, requires_grad=True)
    assert rule_of(Same([w])) is ADAM and rule_of(torch.optim.AdamW([w])) is ADAM
    assert rule_of(Other([w])) is None and rule_of(torch.optim.RAdam([w])) is None
    log = audited(torch.bfloat16, UNKNOWN)
    assert not log.understood and "w_unmoved" in log.last("0.weight") and "not understood" in str(log)
