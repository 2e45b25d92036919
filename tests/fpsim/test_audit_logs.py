"""The log of an audit: failures, files, long runs, followed entries, and the classes of fpsim."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_runs import OPTIMIZERS, UNKNOWN, audited, network, share, train

import fpsim
from fpsim import audit_measure
from fpsim.audit import audit
from fpsim.audit_log import AuditLog


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from threads, and wait for them where processors are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_failing_measurement_warns_and_lets_training_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("before", "measure"):
        monkeypatch.undo()
        monkeypatch.setattr(audit_measure, place, lambda *_: 1 / 0)
        w = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.5)
        w.grad = torch.ones_like(w)
        log = audit(optimizer, 2)
        optimizer.step()
        with pytest.warns(RuntimeWarning, match="fpsim.audit stopped at step .*ZeroDivisionError"):
            optimizer.step()
        optimizer.step()
        assert w.tolist() == [-0.5] * 3
        assert not log.attached and len(log.errors) == 1 and "stopped" in str(log)


def test_copies_are_freed() -> None:
    w = torch.ones(50, requires_grad=True)
    optimizer = torch.optim.Adam([w])
    w.grad = torch.ones_like(w)
    optimizer.step()

    def alive() -> int:
        gc.collect()
        return sum(type(x) is torch.Tensor for x in gc.get_objects())

    before = alive()
    log = audit(optimizer, 2)
    for _ in range(4):
        optimizer.step()
    assert alive() == before
    log.detach()
    assert len(optimizer._optimizer_step_pre_hooks) == len(optimizer._optimizer_step_post_hooks) == 0


def test_saved_and_read_again(tmp_path: Path) -> None:
    log = audited(torch.bfloat16)
    path = log.save(tmp_path / "log.json")
    assert [x.name for x in tmp_path.iterdir()] == ["log.json"]
    again = AuditLog.load(path)
    assert again.record == log.record and str(again) == str(log) and not again.attached
    with pytest.raises(ValueError, match="closed"), again:
        pass
    log.detach()  # twice is no mistake
    assert "No step was measured yet: every 100 steps, of which 40" in str(audited(torch.float32, every=100))


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        AuditLog.load(tmp_path / "none.json")
    for text, reason in (
        ("{", "no log of an audit"),
        ("[]", "no log of an audit"),
        (json.dumps({"kind": "fpsim audit", "version": 99}), "has version 99; admissible: 1"),
        (json.dumps({"kind": "fpsim audit", "version": 1, "samples": []}), "elements, errors, every, .* is missing"),
    ):
        (tmp_path / "log.json").write_text(text)
        with pytest.raises(ValueError, match=reason):
            AuditLog.load(tmp_path / "log.json")


def test_bad_input() -> None:
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.5)
    with pytest.raises(TypeError, match=r"optimizer: list; admissible: a torch\.optim\.Optimizer"):
        audit([w])
    for every in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=r"every=.*admissible: whole numbers from 1"):
            audit(optimizer, every)  # type: ignore[arg-type]
    for name in ("elements", "follow"):
        with pytest.raises(ValueError, match=f"{name}=-1"):
            audit(optimizer, **{name: -1})
    log = audit(optimizer)
    with pytest.raises(KeyError, match="nothing yet"):
        log.last("w")
    assert math.isfinite(log.steps)


def test_followed_entries_show_how_much_too_long_the_steps_are() -> None:
    """bfloat16, beta2 = 0.999 and a constant |g|: T15 says sqrt(u/2c) to sqrt(u/c)."""
    w = torch.zeros(30, dtype=torch.bfloat16, requires_grad=True)
    optimizer = torch.optim.RMSprop([w], lr=1e-6, alpha=0.999)
    w.grad = torch.linspace(1, 2, 30).bfloat16()
    with audit(optimizer, 1000, {"w": w}, follow=20) as log:
        for _ in range(6000):
            optimizer.step()
    first, last = (log.record["samples"][i]["tensors"]["w"] for i in (0, -1))
    assert last["g_constant"] == [20, 20] and last["v_from_zero"] is True
    assert 1.39 < last["lr_factor"] < 1.99 and first["lr_factor"] < last["lr_factor"]
    g, v = w.grad.double(), optimizer.state[w]["square_avg"].double()
    chosen = audit_measure.choose(30, 20, "cpu")
    settled = (g * g * (1 - 0.999**6000) / v).sqrt()[chosen].median()
    assert last["lr_factor"] == pytest.approx(float(settled), rel=1e-9)


@pytest.mark.parametrize("which", ["adam, amsgrad, L2", "rmsprop", "adagrad", "nadam", "sgd", "adadelta"])
def test_in_binary64_followed_and_stored_agree(which: str) -> None:
    net = network(torch.float64)
    kind, options = OPTIMIZERS[which]
    optimizer = kind(net.parameters(), **options)
    train(net, optimizer, 3)
    with audit(optimizer, 5, net.named_parameters(), follow=7) as log:
        train(net, optimizer, 10)
    for name in log.names:
        x = log.last(name)
        if which in ("sgd", UNKNOWN):
            assert "lr_factor" not in x
        else:
            assert x["lr_factor"] == pytest.approx(1, rel=1e-12) and x["v_from_zero"] is False
            assert x["g_constant"][0] == 0


def test_the_classes_of_fpsim_are_understood() -> None:
    """By default they have torch's bits, and so the same log."""
    pytest.importorskip("fpsim.optim.torch_face", reason="fpsim.optim has no classes for PyTorch")
    for name in ("Adam", "AdamW", "RMSprop", "NAdam", "Adagrad", "SGD"):
        records = []
        for where in (torch.optim, fpsim.optim):
            net = network(torch.bfloat16)
            optimizer = getattr(where, name)(net.parameters(), lr=1e-2)
            with audit(optimizer, 3, net.named_parameters()) as log:
                train(net, optimizer, 6)
            assert log.understood and not log.errors
            samples = [x for sample in log.record["samples"] for x in sample["tensors"].values()]
            records.append([{**x, "t": None} for x in samples])  # torch's SGD does not count its steps
        assert records[0] == records[1], name


def test_of_a_precision_of_ones_own_the_step_itself_is_asked() -> None:
    pytest.importorskip("fpsim.optim.torch_face", reason="fpsim.optim has no classes for PyTorch")
    for v, share_ in (("bfloat16", 1.0), ("e8m14", 0.0)):
        precision = fpsim.Precision.uniform("e8m20").replace({"v*": v})
        net = network(torch.float32)
        optimizer = fpsim.optim.Adam(net.parameters(), weight_decay=0.1, precision=precision)
        with audit(optimizer, 3, net.named_parameters()) as log:
            train(net, optimizer, 6)
        x = log.last("0.weight")
        assert not log.errors and share(x["v_stuck"]) == share_ and "g2_underflow" not in x
        assert x["beta2_effective"] == pytest.approx(0.999 if share_ == 0 else 1.0, rel=2**-14)
        assert log.record["tensors"]["0.weight"]["arithmetic"] == "own"
    random = fpsim.Precision.uniform("bfloat16", "stochastic")
    optimizer = fpsim.optim.Adam(net.parameters(), betas=(0.9, 0.9), precision=random, key=0)
    with audit(optimizer, 1, net.named_parameters()) as log:
        train(net, optimizer, 2)
    assert not log.errors and "v_stuck" not in log.last("0.weight") and "w_frozen" in log.last("0.weight")


def test_a_long_run_keeps_samples_from_all_of_it() -> None:
    w = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=1e-3)
    w.grad = torch.ones(1)
    with audit(optimizer, 1, {"w": w}) as log:
        for _ in range(700):
            optimizer.step()
    steps = [sample["step"] for sample in log.record["samples"]]
    assert 128 <= len(steps) <= 256 and steps[0] == 1 and steps[-1] == 700 and steps == sorted(steps)
    assert max(np.diff(steps)) <= 16
