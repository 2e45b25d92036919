"""Networks with every operation rounded: against PyTorch in binary64, against the specification, and in a study."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments import datasets, networks
from experiments.networks.losses import WithLoss
from experiments.networks.optimizers import Optimizer
from experiments.networks.train import NOT_FINITE, train
from experiments.networks.training import Training
from experiments.simulate import run_batch
from experiments.study import Study
from fpsim import Key
from fpsim.accumulator import Accumulator
from fpsim.cpu.threads import set_threads
from fpsim.nn import NetworkPrecision, emulate, network_precision
from fpsim.number_format import Format
from fpsim.rounding import Stochastic

TINY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mlp-digits": ({"width": 4, "depth": 2}, {}),
    "mlp-teacher": ({"width": 4}, {"inputs": 3, "samples": 8}),
    "cnn-digits": ({"width": 1}, {}),
    "transformer-markov": ({"width": 4, "heads": 1, "depth": 1, "hidden": 8}, {"tokens": 3, "length": 3}),
    "logistic-digits": ({}, {}),
}


def made(name: str, dtype: torch.dtype) -> tuple[WithLoss, tuple[torch.Tensor, torch.Tensor]]:
    """A tiny network with its loss, and a batch of two samples."""
    network, dataset = networks.PROBLEMS[name]
    data = datasets.make(dataset, **TINY[name][1])
    x, y = (torch.from_numpy(part) for part in data.batch(Key(1), 0, 2))
    module = WithLoss(networks.make(network, data, Key(2), **TINY[name][0]), data.kind).to(dtype)
    return module, tuple(part.to(dtype) if part.is_floating_point() else part for part in (x, y))


def gradients(module: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
    """The loss and its gradients."""
    for parameter in module.parameters():
        parameter.grad = None
    loss = module(*batch)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in module.parameters())]


@pytest.mark.parametrize("name", TINY)
def test_in_binary64_they_are_what_pytorch_computes(name: str) -> None:
    module, batch = made(name, torch.float64)
    expected = gradients(module, batch)
    found = gradients(emulate(module, NetworkPrecision.uniform(Format(11, 52))), batch)
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).abs().max()) <= 1e-12 * max(1e-3, float(b.abs().max()))


@pytest.mark.parametrize("name", ["mlp-teacher", "transformer-markov"])
def test_the_machines_agree_with_the_specification(name: str) -> None:
    module, batch = made(name, torch.float32)
    sums = Accumulator("bfloat16", "binary32")
    precision = NetworkPrecision.uniform("bfloat16", Stochastic(8), accumulator=sums)
    fast, exact = (
        gradients(emulate(module, precision, key=Key(3), arithmetic=how), batch) for how in ("fast", "exact")
    )
    for a, b in zip(fast, exact, strict=True):
        assert torch.equal(a, b)


def test_a_transformer_goes_on_to_the_bit(tmp_path: Any) -> None:
    of_network, of_data = TINY["transformer-markov"]
    precision = NetworkPrecision.uniform("bfloat16", Stochastic(8), accumulator=Accumulator("binary32", "binary32"))
    training = Training("transformer", "markov", Optimizer("muon"), precision, steps=4, batch=2, evaluation=2,
                        network_options=of_network, dataset_options=of_data)  # fmt: skip
    whole, calls = train(training), iter(range(100))
    train(training, checkpoint=tmp_path / "run.pt", stop=lambda: next(calls) == 2)
    rest = train(training, checkpoint=tmp_path / "run.pt")
    assert rest.measures == whole.measures and rest.run.loss == whole.run.loss
    for a, b in zip(rest.run.plain.parameters(), whole.run.plain.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["mlp-digits", "transformer-markov"])
def test_bits_do_not_depend_on_the_number_of_threads(name: str) -> None:
    network, data = networks.PROBLEMS[name]
    precision = NetworkPrecision.uniform("bfloat16", Stochastic(8), accumulator=Accumulator("binary32", "binary32"))
    options = {"width": 32} if network == "transformer" else {}
    training = Training(network, data, Optimizer("adam"), precision, steps=2, batch=16, evaluation=2,
                        network_options=options)  # fmt: skip
    found = []
    try:
        for count in (1, 3):
            set_threads(count)
            done = train(training)
            found.append((done.measures, done.run.loss, [p.detach().clone() for p in done.run.plain.parameters()]))
    finally:
        set_threads(None)
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(a, b) for a, b in zip(found[0][2], found[1][2], strict=True))


@pytest.mark.parametrize(
    ("network", "data", "place"),
    [("transformer", "markov", "forward network.blocks.0.attention"), ("cnn", "digits", "forward network.")],
)
def test_an_overflow_names_the_layer(network: str, data: str, place: str) -> None:
    of_network, of_data = TINY[f"{network}-{data}"]
    training = Training(network, data, Optimizer("sgd", {"lr": 2.0**110}), network_precision("bf16"), steps=9, batch=2,
                        evaluation=2, network_options=of_network, dataset_options=of_data)  # fmt: skip
    done = train(training)
    assert done.outcome == NOT_FINITE and done.origin is not None and done.origin.slot.startswith(place)
    assert done.origin.step == done.steps - 1


def test_the_mask_of_attention_is_no_news() -> None:
    """Infinities of every step are not what made the loss infinite: the optimizer divided 0 by 0."""
    of_network, of_data = TINY["transformer-markov"]
    training = Training("transformer", "markov", Optimizer("adam", {"eps": 0.0}), network_precision("bf16"), steps=3,
                        batch=2, evaluation=2, network_options=of_network, dataset_options=of_data)  # fmt: skip
    done = train(training)
    assert done.outcome == NOT_FINITE and done.origin is not None
    assert done.origin.slot.startswith("adam update.div of network.")


def test_a_study_rounds_every_operation_of_each() -> None:
    for name, (of_network, of_data) in TINY.items():
        asked = Study(optimizer="adam", problem=name, mantissa=7, rounding="stochastic", seeds=1, steps=3, batch=2,
                      gradient="rounded", options={**of_network, **of_data, "evaluation": 4})  # fmt: skip
        asked.check(asked.cells())
        row = run_batch([asked.cells()[0]])[0]
        assert row["outcome"] in ("floor", "moving") and row["gradient"] == "rounded" and row["loss"] > 0, name
