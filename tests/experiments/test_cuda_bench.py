"""The script that times the card: what it says where there is none, and its check in Triton's interpreter."""

from __future__ import annotations

import sys

import pytest
import torch
from triton_session import DEVICE

from experiments import cuda_bench


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a card")
def test_without_a_card_it_says_so_and_times_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda_bench.main([]) == 1
    said = capsys.readouterr()
    assert said.err == "cuda_bench: torch sees no CUDA device; nothing was timed\n" and not said.out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux only")
def test_its_check_passes_and_fails_on_one_wrong_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_bench, "MODES", cuda_bench.MODES[::5])
    assert cuda_bench.check(DEVICE, 64) == 5 * 2 * 7 * 64 + 2 * 2 * 4 * 257 * 3
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    other = (x + torch.tensor([0.0, 2.0**-50])).numpy()
    with pytest.raises(cuda_bench.WrongResult, match="case: 1 of 2 results are not those of the CPU machine"):
        cuda_bench._same("case", x, other)
