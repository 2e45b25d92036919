"""The figure of an audit: written whole, the same bytes every time, for logs of every shape."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from tiers import slow_but

pytest.importorskip("matplotlib")

from fpsim.audit_log import AuditLog
from paper_figures import audit


def record(tensors: int = 2) -> dict[str, Any]:
    """As a log of Adam in float16 could be."""
    x = {
        "entries": 10,
        "w_frozen": [3, 10],
        "v_stuck": [9, 10],
        "v_swamped": [5, 10],
        "g2_underflow": [0, 10],
        "lr_effective": 8e-4,
        "headroom": {"w": [14, 3], "g": [18, -2], "m": [18, -1], "v": [30, -8]},
    }
    names = [f"encoder.layers.{i}.attention.projection.weight" for i in range(tensors)]
    about = {"shape": [10], "dtype": "float16", "moments": {"m": "float16", "v": "float32"}, "group": 0}
    found = AuditLog.empty("Adam", "adam", 10, None, "2.13.0").record
    found["tensors"] = dict.fromkeys(names, about)
    for step in (10, 20):
        tensors_ = {name: copy.deepcopy(x) | {"w_frozen": [i % 11, 10]} for i, name in enumerate(names)}
        found["samples"].append({"step": step, "groups": [{"lr": 1e-3}], "tensors": tensors_})
    return found


@pytest.mark.parametrize("tensors", slow_but([1, 2, 40], 2))
def test_it_is_written_and_repeats(tensors: int, tmp_path: Path) -> None:
    log = AuditLog(record(tensors))
    paths = audit.build(log, tmp_path)
    assert [path.name for path in paths] == ["audit.pdf", "audit.png"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in audit.build(log, tmp_path)] == first


def test_too_many_tensors_are_the_worst_ones() -> None:
    log = AuditLog(record(40))
    for sample in log.record["samples"]:
        for x in sample["tensors"].values():
            x["v_stuck"] = x["v_swamped"] = [0, 10]
    names, left_out = audit._rows(log)
    assert len(names) == audit.MOST_ROWS and left_out == 40 - audit.MOST_ROWS
    shown = [log.last(name)["w_frozen"][0] for name in names]
    assert min(shown) >= 4 and names == [name for name in log.names if name in names]


def test_a_log_of_weights_alone(tmp_path: Path) -> None:
    log = AuditLog(record())
    for sample in log.record["samples"]:
        sample["groups"] = [{}]
        for name in sample["tensors"]:
            sample["tensors"][name] = {"entries": 10, "w_unmoved": [1, 10], "headroom": {}}
    assert len(audit.build(log, tmp_path, formats=("png",))) == 1


def test_without_a_sample(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no measured step"):
        audit.build(AuditLog.empty("Adam", "adam", 10, None, "2.13.0"), tmp_path)
    assert not list(tmp_path.iterdir())
