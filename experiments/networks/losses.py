"""A network together with the loss of its data, as one module: what is emulated as a whole."""

from __future__ import annotations

import torch
from torch.nn import functional

from experiments.datasets import CLASSES, REGRESSION


class WithLoss(torch.nn.Module):
    """``forward(x, y)`` is the mean loss of a batch: cross-entropy in nats, or the mean squared error."""

    def __init__(self, network: torch.nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss_of(self.network(x), y, self.kind)


def loss_of(scores: torch.Tensor, y: torch.Tensor, kind: str) -> torch.Tensor:
    """The mean loss of scores ``[batch, .., classes]`` or predictions ``[batch, outputs]``."""
    if kind == REGRESSION:
        return functional.mse_loss(scores, y)
    if kind == CLASSES:
        return functional.cross_entropy(scores, y)
    return functional.cross_entropy(scores.flatten(0, 1), y.flatten())
