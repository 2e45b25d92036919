"""Time on a card by device events, or by the wall clock in Triton's interpreter; and how much fits into memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from experiments.cuda_bench.rows import Skipped

_WARM = 2  # calls of each that are not counted
_KEPT = 0.85  # of the free memory, at most


class Clock:
    """Times calls on one device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def wait(self) -> None:
        """Until the device has done all it was given; raises what went wrong there."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def first(self, call: Callable[[], object]) -> float:
        """Seconds of one call by the wall clock, all compilation included."""
        self.wait()
        begin = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - begin

    def medians(
        self, calls: Mapping[str, Callable[[], object]], repeats: int, before: Callable[[], object] = lambda: None
    ) -> dict[str, float]:
        """Median seconds of calls that take turns; ``before`` each of them, outside its time, come fresh numbers."""
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(repeats + _WARM):
            for name, call in calls.items():
                before()
                taken = self._one(call)
                if turn >= _WARM:
                    samples[name].append(taken)
        return {name: statistics.median(found) for name, found in samples.items()}

    def _one(self, call: Callable[[], object]) -> float:
        if self.device != "cuda":
            return self.first(call)
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def fitting(self, wanted: int, bytes_each: float, least: int) -> int:
        """The largest ``wanted / 2^k`` elements that free memory holds.

        Raises
        ------
        Skipped
            They are fewer than ``least``.
        """
        free = self.free()
        size = wanted
        while size * bytes_each > _KEPT * free and size >= least:
            size //= 2
        if size < least:
            raise Skipped(f"{least} elements of {bytes_each:g} bytes do not fit into {free} free bytes")
        return size

    def free(self) -> int:
        """Free bytes of the device."""
        if self.device == "cuda":
            import torch

            torch.cuda.empty_cache()
            return int(torch.cuda.mem_get_info()[0])
        return 1 << 30
