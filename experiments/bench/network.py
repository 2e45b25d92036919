"""Training steps of small networks: with every operation rounded, and at storage level beside PyTorch's own step.

The network of the first rows is 64-256-256-256-10 with batches of 128, in bfloat16 with products and sums in binary32,
cross entropy and Adam; that of storage level has 1.1 million parameters. Each is measured in a process of its own,
because the number of PyTorch's threads cannot be changed well in one that has begun.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from experiments.bench.measure import Job, Row, Settings, WrongResult, interleaved

BATCH = 128
STEPS = 3000
STEP_SECONDS, STORAGE_RATIO = 0.1, 1.5
WHOLE_SECONDS = {"operation": 180.0, "storage": 30.0}
CORES = 4
LR = 2.0**-24  # so small that the batch is not learned: vanishing gradients have subnormal squares, which are slow
WIDTHS = (512, 1024, 512, 10)  # of the network at storage level


def jobs(settings: Settings) -> list[Job]:
    listed = [Job("network, every operation", _operation)]
    listed += [Job(f"network, storage level, threads: {threads}", partial(_storage, threads)) for threads in (1, CORES)]
    listed += [
        Job(f"network, {steps} steps, {level} level", partial(_whole, level, steps))
        for steps in settings.sizes or (STEPS,)
        for level in WHOLE_SECONDS
    ]
    return listed


def _operation(settings: Settings) -> list[Row]:
    seconds = _measured("step", 1, settings.repeats)
    return [
        Row("network", "step, every operation bfloat16", BATCH, seconds["emulated"] * 1e3, "ms", "PyTorch's step",
            seconds["emulated"] / seconds["plain"], STEP_SECONDS * 1e3, target_is_value=True)
    ]  # fmt: skip


def _storage(threads: int, settings: Settings) -> list[Row]:
    name = f"step, storage level, threads: {threads}"
    if (os.cpu_count() or 1) < threads:
        return [Row("network", name, BATCH, None, skipped=f"{os.cpu_count()} cores")]
    seconds = _measured("storage", threads, settings.repeats)
    return [
        Row("network", name, BATCH, seconds["emulated"] * 1e3, "ms", "PyTorch's step",
            seconds["emulated"] / seconds["plain"], STORAGE_RATIO)
    ]  # fmt: skip


def _whole(level: str, steps: int, settings: Settings) -> list[Row]:
    name = f"{steps} steps, {level} level, on {CORES} cores: wall"
    if (os.cpu_count() or 1) < CORES:
        return [Row("network", name, steps, None, skipped=f"{os.cpu_count()} cores")]
    seconds = _measured(f"whole {level}", CORES, steps)["whole"]
    target = WHOLE_SECONDS[level] if steps == STEPS else None
    return [Row("network", name, steps, seconds, "s", target=target, target_is_value=True)]


def _measured(what: str, threads: int, count: int) -> dict[str, float]:
    """What a process with so many threads prints."""
    command = [sys.executable, "-m", "experiments.bench.network", what, str(threads), str(count)]
    free = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    done = subprocess.run(command, env=os.environ | free, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongResult(f"{what}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout))


def main(what: str, threads: int, count: int) -> dict[str, float]:
    """Measure in this process: seconds of a step, emulated and plain, or of ``count`` steps."""
    import torch

    import fpsim

    if threads > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    torch.set_num_threads(threads)
    fpsim.set_threads(threads)
    warnings.simplefilter("ignore")  # scalars that a format changes
    if what.startswith("whole "):
        return {"whole": _trained(what.removeprefix("whole "), count)}
    level = "operation" if what == "step" else "storage"
    widths = (64, 256, 256, 256, 10) if what == "step" else WIDTHS
    calls = {"plain": _step(None, widths), "emulated": _step(level, widths)}
    return interleaved(calls, count)


def _step(level: str | None, widths: tuple[int, ...]) -> Callable[[], object]:
    """A training step with cross entropy and Adam; at storage level both have PyTorch's Adam."""
    import torch

    import fpsim
    from experiments.datasets import CLASSES
    from experiments.networks.losses import WithLoss
    from experiments.networks.mlp import mlp
    from fpsim.nn import emulate, network_precision

    key = fpsim.Key(1)
    network = mlp((widths[0],), widths[-1], key, width=widths[1], depth=len(widths) - 1)
    if level == "storage":
        layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        network = torch.nn.Sequential(*(x for layer in layers for x in (layer, torch.nn.ReLU())))[:-1]
    model: Any = WithLoss(network, CLASSES)
    optimizer: Any = torch.optim.Adam(model.parameters(), lr=LR)
    if level is not None:
        precision = network_precision("bf16").replace(level=level)
        model = emulate(model, precision)
        if level == "operation":
            optimizer = fpsim.optim.TextbookAdam(model.parameters(), lr=LR, precision=precision.optimizer())
    x = torch.randn(BATCH, widths[0], generator=torch.Generator().manual_seed(1))
    target = torch.arange(BATCH) % widths[-1]

    def step() -> None:
        optimizer.zero_grad()
        model(x, target).backward()
        optimizer.step()

    return step


def _trained(level: str, steps: int) -> float:
    from experiments.networks.optimizers import Optimizer
    from experiments.networks.train import train
    from experiments.networks.training import Training
    from fpsim.nn import network_precision

    precision = network_precision("bf16").replace(level=level)
    training = Training("mlp", "digits", Optimizer("adam", {"lr": 2.0**-12}), precision, steps=steps, batch=BATCH)
    started = time.perf_counter()
    done = train(training)
    if done.outcome != "finished":
        raise WrongResult(f"training ended {done.outcome}")
    return time.perf_counter() - started


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
