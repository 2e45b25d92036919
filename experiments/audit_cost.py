"""What ``fpsim.audit`` costs on this machine: a network of 10^6 parameters, audited and not, in turns."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

WIDTHS = (1000, 700, 400, 50)  # 1 001 150 parameters in six tensors
EVERY = 100
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {},
    "Adam fused": {"fused": True},
    "AdamW": {},
    "RMSprop": {},
    "SGD momentum": {"momentum": 0.9},
}


@dataclass(frozen=True)
class Cost:
    """Seconds of one step, medians over the rounds.

    ``optimizer``: ``optimizer.step()`` alone; ``training``: with the forward and backward pass of a batch of 64;
    ``audit``: the median of what auditing added to a step in each round.
    """

    name: str
    dtype: str
    optimizer: float
    training: float
    audit: float


def measure(rounds: int, dtypes: tuple[str, ...] = ("float32", "bfloat16"), every: int = EVERY) -> Iterator[Cost]:
    """Time ``every`` steps of the optimizer, plain and audited, ``rounds`` times."""
    import torch

    import fpsim

    for dtype in dtypes:
        for name, options in OPTIMIZERS.items():
            torch.manual_seed(0)
            layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(WIDTHS)]
            net = torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.ReLU())))
            net = net.to(getattr(torch, dtype))
            optimizer = getattr(torch.optim, name.split()[0])(net.parameters(), lr=1e-5, **options)
            x = torch.randn(64, WIDTHS[0]).to(net[0].weight.dtype)

            def train(net: Any = net, optimizer: Any = optimizer, x: Any = x) -> None:
                optimizer.zero_grad()
                (net(x) ** 2).mean().backward()
                optimizer.step()

            training = _seconds(train, 20)
            plain, added = [], []
            for _ in range(rounds):
                plain.append(_seconds(optimizer.step, every))
                with fpsim.audit(optimizer, every):
                    audited = _seconds(optimizer.step, every)
                added.append(audited - plain[-1])
            yield Cost(name, dtype, statistics.median(plain), training, statistics.median(added))


def lines(costs: Iterator[Cost], every: int = EVERY) -> Iterator[str]:
    """A line of text for each."""
    yield f"{'optimizer':14}{'dtype':>10}{'optimizer.step':>16}{'+ audit':>9}{'training step':>15}{'+ audit':>9}"
    for cost in costs:
        alone, whole = cost.audit / cost.optimizer, cost.audit / cost.training
        yield (
            f"{cost.name:14}{cost.dtype:>10}{1e3 * cost.optimizer:13.3f} ms{100 * alone:7.1f} %"
            f"{1e3 * cost.training:12.2f} ms{100 * whole:7.1f} %"
        )
    yield f"every {every} steps, {sum(a * b + b for a, b in itertools.pairwise(WIDTHS))} parameters"


def _seconds(step: Callable[[], Any], count: int) -> float:
    step()
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count
