"""Small networks that are trained and audited, for the tests of the audit."""

from __future__ import annotations

from typing import Any

import torch

from fpsim.audit import audit
from fpsim.audit_log import AuditLog

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"lr": 1e-2}),
    "adam, amsgrad, L2": (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True, "weight_decay": 0.1}),
    "adam, fused": (torch.optim.Adam, {"lr": 1e-2, "fused": True}),
    "adam, foreach, maximize": (torch.optim.Adam, {"lr": 1e-4, "foreach": True, "maximize": True}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-2}),
    "nadam": (torch.optim.NAdam, {"lr": 1e-2, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3}),
    "rmsprop, centered, momentum": (torch.optim.RMSprop, {"lr": 1e-3, "centered": True, "momentum": 0.5}),
    "rmsprop, centered": (torch.optim.RMSprop, {"lr": 1e-3, "centered": True, "weight_decay": 0.1}),
    "adagrad": (torch.optim.Adagrad, {"lr": 1e-2, "lr_decay": 1e-3}),
    "sgd": (torch.optim.SGD, {"lr": 1e-2, "maximize": True, "weight_decay": 0.1}),
    "sgd, momentum": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "dampening": 0.1}),
    "sgd, nesterov": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "nesterov": True}),
    "adadelta": (torch.optim.Adadelta, {}),
}
UNKNOWN = "adadelta"


def network(dtype: torch.dtype) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 24), torch.nn.Tanh(), torch.nn.Linear(24, 1)).to(dtype)


def train(net: torch.nn.Module, optimizer: Any, steps: int) -> None:
    """Minibatches drawn from torch's global generator, so that a hook that draws is seen."""
    dtype = next(net.parameters()).dtype
    inputs = torch.linspace(-1, 1, 8 * 64).reshape(64, 8)
    for _ in range(steps):
        x = inputs[torch.randint(64, (16,))].to(dtype)
        loss = ((net(x) - torch.sin(3 * x.sum(1, keepdim=True))) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def audited(dtype: torch.dtype, which: str = "adam", steps: int = 40, every: int = 10, **more: Any) -> AuditLog:
    net = network(dtype)
    kind, options = OPTIMIZERS[which]
    optimizer = kind(net.parameters(), **{**options, **more})
    with audit(optimizer, every, net.named_parameters()) as log:
        train(net, optimizer, steps)
    return log


def share(pair: list[int]) -> float:
    return pair[0] / pair[1]
