"""``fpsim audit``: table, theorems and figure of a log, and input that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiers import slow_but

import fpsim
from experiments import audit_cost
from experiments.cli import main


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Of Adam's defaults in bfloat16."""
    w = torch.linspace(1, 2, 20).bfloat16().requires_grad_()
    optimizer = torch.optim.Adam([w])
    with fpsim.audit(optimizer, 5, {"layer.weight": w}) as found:
        for _ in range(10):
            w.grad = w.detach() / 8
            optimizer.step()
    return found.save(tmp_path / "log.json")


def test_table_and_theorems(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(log)]) == 0
    said = capsys.readouterr().out
    for part in (
        "layer.weight",
        "v stuck",
        "1 (0.999)",
        "T14: in bfloat16 with beta2 = 0.999, no v ever",
        "Floor: none",
    ):
        assert part in said
    assert main(["audit", str(log), "--no-theorems"]) == 0
    assert "T14" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", slow_but(["png", "pdf", "svg"], "svg"))
def test_the_figure(kind: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"drawn.{kind}"
    assert main(["audit", str(log), "--figure", str(file)]) == 0
    assert f"wrote {file}" in capsys.readouterr().out and file.stat().st_size > 1000


def test_a_contradiction_is_a_failure(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(log.read_text())
    record["samples"][-1]["tensors"]["layer.weight"]["v_stuck"] = [0, 20]
    log.write_text(json.dumps(record))
    assert main(["audit", str(log)]) == 1
    assert "CONTRADICTED: T14" in capsys.readouterr().out


def test_bad_input(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    w = torch.ones(1, requires_grad=True)
    fpsim.audit(torch.optim.SGD([w])).save(tmp_path / "empty.json")
    for words, says in (
        ([], "LOG.json is missing"),
        ([str(tmp_path / "none.json")], "there is no such file"),
        ([str(tmp_path / "other.json")], "no log of an audit"),
        ([str(tmp_path / "deep.json")], "no log of an audit"),
        ([str(log), "--figure", "x.gif"], "names that end in .png, .pdf, .svg"),
        ([str(log), "--figure", str(tmp_path / "no" / "x.png")], "no folder that can be written to"),
        ([str(tmp_path / "empty.json"), "--figure", str(tmp_path / "x.png")], "nothing to draw"),
        ([str(log), "--cost"], "without a log"),
        (["--cost", "--rounds", "0"], "whole numbers from 1"),
    ):
        assert main(["audit", *words]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1
    assert main(["audit", str(tmp_path / "empty.json")]) == 0
    assert "No step was measured yet" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["tensors", "samples", "groups"])
def test_a_damaged_log_is_one_line(part: str, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(log.read_text())
    if part == "groups":
        record["samples"][-1]["groups"] = []
    else:
        record[part] = {"layer.weight": {}} if part == "tensors" else [{"step": 3}]
    log.write_text(json.dumps(record))
    assert main(["audit", str(log)]) == 2
    said = capsys.readouterr().err
    assert "is a damaged log of an audit" in said and said.count("\n") == 1


@pytest.mark.slow
def test_the_cost_is_measured() -> None:
    """No time is asserted: ``fpsim audit --cost`` prints them."""
    found = list(audit_cost.measure(1, ("float32",), every=2))
    assert [cost.name for cost in found] == list(audit_cost.OPTIMIZERS)
    assert all(cost.optimizer > 0 and cost.training > 0 for cost in found)
    assert len(list(audit_cost.lines(iter(found)))) == len(found) + 2
