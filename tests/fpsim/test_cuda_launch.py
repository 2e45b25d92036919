"""What only streams of a card do in ``triton_launch``, with objects in the place of torch's streams."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fpsim.cuda import triton_launch


class Stream:
    """Writes down what waits for it and for what it waits."""

    def __init__(self, device: Any = None, name: str = "side") -> None:
        self.name = name

    def wait_stream(self, other: Any) -> None:
        said.append(f"{self.name} after {other.name}")

    def __enter__(self) -> None:
        said.append("entered")

    def __exit__(self, *_: Any) -> None:
        said.append("left")


said: list[str] = []


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    said.clear()
    now = Stream(name="now")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: now)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)


def test_kernels_side_by_side_are_joined_even_if_one_is_not_started() -> None:
    def fails() -> None:
        raise RuntimeError("out of resources")

    abreast = triton_launch.Abreast(torch.device("cuda"))
    with pytest.raises(RuntimeError, match="out of resources"):
        abreast([lambda: said.append("first"), fails])
    each = ["side after now", "entered", "left"]
    assert said == [*each[:2], "first", *each[2:], *each, "now after side", "now after side"]


def test_what_a_cache_may_drop_outlives_the_kernels_that_read_it() -> None:
    used: list[Any] = []
    tensor: Any = SimpleNamespace(device=torch.device("cuda"), record_stream=lambda stream: used.append(stream.name))
    assert triton_launch.lent(tensor) is tensor and used == ["now"]
    plain = torch.zeros(1)
    assert triton_launch.lent(plain) is plain
