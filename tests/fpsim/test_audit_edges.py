"""The audit where a training loop does what loops do: skip steps, load states, hook other things onto the optimizer."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from fpsim import audit_measure
from fpsim.audit import audit
from fpsim.audit_log import AuditLog


def parameter(n: int = 40) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.linspace(-1, 2, n))


def broken(*_: Any) -> Any:
    raise ZeroDivisionError("on purpose")


@pytest.mark.parametrize("function", ["before", "measure"])
def test_a_failure_leaves_the_hooks_that_come_later_alone(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w = parameter()
    optimizer = torch.optim.Adam([w])
    log, others = audit(optimizer, every=1), []
    optimizer.register_step_pre_hook(lambda *_: others.append("pre"))
    optimizer.register_step_post_hook(lambda *_: others.append("post"))
    monkeypatch.setattr(audit_measure, function, broken)
    w.grad = torch.ones_like(w)
    with pytest.warns(RuntimeWarning, match="training goes on: ZeroDivisionError: on purpose"):
        optimizer.step()
    monkeypatch.undo()
    optimizer.step()
    assert others == ["pre", "post"] * 2
    assert not log.attached
    assert log.record["samples"] == []
    assert float(optimizer.state[w]["step"]) == 2


def test_steps_that_a_gradient_scaler_skips_are_not_measured() -> None:
    w = parameter()
    optimizer = torch.optim.Adam([w], fused=True)
    log, scaler = audit(optimizer, every=1, follow=4), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor in (float("inf"), 1.0, 1.0, float("nan"), 1.0):
        optimizer.zero_grad()
        scaler.scale(factor * (w * w).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert log.errors == []
    assert [sample["step"] for sample in log.record["samples"]] == [1, 2, 3]
    found = log.last("group 0, tensor 0")
    assert found["t"] == 3
    assert found["lr_factor"] == pytest.approx(1, abs=1e-6)  # gradients are those after unscaling


@pytest.mark.parametrize("way", ["load", "clear"])
def test_a_state_that_is_replaced_is_followed_from_then_on(way: str) -> None:
    w = parameter()
    optimizer = torch.optim.Adam([w], betas=(0.9, 0.99))
    log = audit(optimizer, every=1, follow=8)
    torch.manual_seed(1)
    kept = None
    for step in range(30):
        if step == 5:
            kept = copy.deepcopy(optimizer.state_dict())
        if step == 20 and kept is not None:
            optimizer.load_state_dict(kept) if way == "load" else optimizer.state.clear()
        w.grad = torch.randn_like(w) * (10 if 5 < step < 20 else 1)
        optimizer.step()
    assert log.last("group 0, tensor 0")["lr_factor"] == pytest.approx(1, abs=1e-5)
    assert log.last("group 0, tensor 0")["v_from_zero"] == (way == "clear")


def test_names_are_pairs_and_one_parameter_has_each() -> None:
    w, other = parameter(), parameter()
    optimizer = torch.optim.Adam([w, other])
    bad: list[Any] = [[w, other], "ab", 5, [(3, w)], {w: "w"}, [("w", 1.0)]]
    for names in bad:
        with pytest.raises(TypeError, match="admissible: pairs"):
            audit(optimizer, names=names)
    with pytest.raises(ValueError, match="names: 'w' is the name of two parameters"):
        audit(optimizer, names=[("w", w), ("w", other)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log = audit(optimizer, every=1, names=[("w", w), ("tied", w), ("w", w)])
        w.grad = other.grad = torch.ones_like(w)
        optimizer.step()
    assert log.names == ["tied", "group 0, tensor 1"]


def test_save_replaces_files_and_nothing_else(tmp_path: Path) -> None:
    log = AuditLog.empty("Adam", "adam", 100, None, "2.13.0")
    target, link = tmp_path / "log.json", tmp_path / "link.json"
    link.symlink_to(target)
    assert log.save(link) == link
    assert link.is_symlink()
    assert AuditLog.load(target).record == log.record
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        log.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        log.save(tmp_path / "none" / "log.json")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log.save(pipe)
    assert os.read(reader, 9).startswith(b"{")
    os.close(reader)
    assert pipe.is_fifo()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["link.json", "log.json", "pipe"]
