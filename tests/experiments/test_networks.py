"""Small networks and their training: what they are, and that a run has the same bits wherever it is made again."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from experiments import datasets, networks  # noqa: E402
from experiments.networks.optimizers import Optimizer  # noqa: E402
from experiments.networks.train import NOT_FINITE, STOPPED, train  # noqa: E402
from experiments.networks.training import Run, Training  # noqa: E402
from experiments.networks.transformer import Attention, rotations  # noqa: E402
from experiments.streams import MINIBATCH  # noqa: E402
from fpsim import Key  # noqa: E402
from fpsim.accumulator import Accumulator  # noqa: E402
from fpsim.cpu.threads import set_threads  # noqa: E402
from fpsim.formats import format as named_format  # noqa: E402
from fpsim.nn import NetworkPrecision  # noqa: E402
from fpsim.optim import STEPS  # noqa: E402
from fpsim.optim.matrix import METHODS  # noqa: E402
from fpsim.rounding import Stochastic  # noqa: E402

BF16 = NetworkPrecision.storage("bfloat16")
DITHERED = NetworkPrecision.storage("bfloat16", Stochastic(16))
SMALL = {"network_options": {"width": 16}, "batch": 16, "evaluation": 32}


def small(optimizer: str = "adam", precision: NetworkPrecision | None = BF16, **more: Any) -> Training:
    """A training of a small perceptron on the digits."""
    rate = more.pop("hyperparameters", {"lr": 2.0**-6})
    return Training("mlp", "digits", Optimizer(optimizer, rate), precision, **{"steps": 12} | SMALL | more)


def bits(run: Run) -> str:
    """A digest of everything that the next step depends on."""
    digest = hashlib.blake2b(digest_size=16)
    state = run.state()
    for name, x in sorted(state["weights"].items()):
        digest.update(name.encode() + x.numpy().tobytes())
    for saved in state["optimizers"]:
        for number, arrays in sorted(saved["state"].items()):
            for name, x in sorted(arrays.items()):
                digest.update(f"{number} {name}".encode() + x.numpy().tobytes())
    digest.update(repr((state["step"], state["calls"], state["loss"])).encode())
    return digest.hexdigest()


# The networks


@pytest.mark.parametrize("name", ["mlp-digits", "mlp-teacher", "cnn-digits", "logistic-digits", "transformer-markov"])
def test_a_network_fits_its_data_and_its_weights_follow_from_the_key(name: str) -> None:
    network, dataset = networks.PROBLEMS[name]
    data = datasets.make(dataset)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    made, again, other = (networks.make(network, data, Key(k)) for k in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())  # PyTorch's generator is not asked
    x, _ = data.batch(Key(0), 0, 3)
    scores = made(torch.from_numpy(x))
    last = (data.outputs,) if network != "transformer" else (data.inputs[0], data.outputs)
    assert scores.shape == (3, *last) and scores.dtype == torch.float32
    same = [torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True)]
    differ = [torch.equal(a, b) for a, b in zip(made.parameters(), other.parameters(), strict=True)]
    assert all(same) and (network == "logistic" or not all(differ))


def test_starting_weights_have_the_deviations_of_their_law() -> None:
    net = networks.make("mlp", datasets.make("digits"), Key(0))
    sizes = dict(net.named_parameters())
    for name, fan, factor in (("1.weight", 64, 2.0), ("3.weight", 256, 2.0), ("7.weight", 256, 1.0)):
        w = sizes[name].detach().double()
        assert w.std().item() == pytest.approx(math.sqrt(factor / fan), rel=4 / math.sqrt(2 * w.numel()))
        assert abs(w.mean().item()) < 4 * math.sqrt(factor / fan / w.numel())
    assert all(float(p.detach().abs().max()) == 0.0 for name, p in sizes.items() if name.endswith("bias"))
    assert sizes["1.weight"][0, :2].tolist() == [-0.1830163151025772, 0.20130367577075958]  # frozen


def test_the_transformer_sees_no_later_token_and_ties_its_embedding() -> None:
    data = datasets.make("markov")
    net = networks.make("transformer", data, Key(1)).double()
    x = torch.from_numpy(data.batch(Key(0), 0, 2)[0])
    changed = x.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % data.outputs
    before, after = net(x), net(changed)
    assert torch.equal(before[:, :20], after[:, :20]) and not torch.allclose(before[:, 20:], after[:, 20:])
    names = [name for name, _ in net.named_parameters()]
    assert "embedding.weight" in names and not any("bias" in name for name in names)
    residual = net.embedding(x)
    block = net.blocks[0]
    out = block.attention_norm(block.attention(residual))
    square = (out / block.attention_norm.weight).square().mean(-1)
    assert torch.allclose(square, torch.ones_like(square), rtol=5e-2)  # what is added to the residual is normed


def test_rotary_positions_make_scores_depend_on_distances_only() -> None:
    layer = Attention(8, 2, 16).double()
    q, k = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k = (layer._rotated(x.expand(1, 1, 16, 4)) for x in (q, k))
    scores = (q @ k.mT)[0, 0]
    for distance in (0, 3, 7):
        diagonal = scores.diagonal(-distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-6)
    cos, sin = rotations(5, 4)
    assert cos[0].tolist() == [1.0, 1.0] and sin[3, 1].item() == pytest.approx(math.sin(0.03), rel=1e-6)


def test_unknown_networks_kinds_and_options() -> None:
    data = datasets.make("digits")
    with pytest.raises(ValueError, match="network='resnet'; admissible: mlp, cnn, transformer, logistic"):
        networks.make("resnet", data, Key())
    with pytest.raises(
        ValueError, match="'transformer' with dataset 'digits', whose kind is classes; admissible: tokens"
    ):
        networks.make("transformer", data, Key())
    with pytest.raises(ValueError, match="option 'size' of network 'mlp'; admissible: width, depth"):
        networks.make("mlp", data, Key(), size=3)
    with pytest.raises(ValueError, match=r"width=30 with heads=4; admissible: a multiple of twice the heads"):
        networks.make("transformer", datasets.make("markov"), Key(), width=30, heads=4)
    assert set(networks.OPTIMIZERS) | {"muon"} == set(METHODS) and not set(networks.OPTIMIZERS) & set(STEPS)


# A training


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_bits_depend_neither_on_threads_nor_on_where_a_run_was_resumed(optimizer: str, tmp_path: Path) -> None:
    training = small(optimizer, DITHERED, hyperparameters={"lr": "2^-6 / sqrt(t)".replace("2^-6", "0.015625")})
    whole = train(training)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        set_threads(1)  # of the array functions and machines
        again = train(training)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
        set_threads(None)
    assert bits(again.run) == bits(whole.run) and again.measures == whole.measures
    file = tmp_path / "run.pt"
    calls = iter(range(100))
    first = train(training, checkpoint=file, stop=lambda: next(calls) == 7)
    assert first.outcome == STOPPED and first.steps == 7
    rest = train(training, checkpoint=file)
    assert bits(rest.run) == bits(whole.run) and rest.measures == whole.measures
    assert bits(train(replace(training, run=1)).run) != bits(whole.run)


def test_an_emulated_run_is_resumed_to_the_bit(tmp_path: Path) -> None:
    sums = Accumulator("binary32", "binary32")
    precision = NetworkPrecision.uniform("bfloat16", Stochastic(8), accumulator=sums)
    training = Training("mlp", "teacher", Optimizer("adam"), precision, steps=4, batch=4, evaluation=8,
                        network_options={"width": 8}, passthrough=("mse_loss",))  # fmt: skip
    whole = train(training)
    calls = iter(range(100))
    train(training, checkpoint=tmp_path / "run.pt", stop=lambda: next(calls) == 2)
    assert bits(train(training, checkpoint=tmp_path / "run.pt").run) == bits(whole.run)


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    training, file = small(steps=9), tmp_path / "run.pt"

    def killed(step: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(training, checkpoint=file, every=3, progress=killed)
    steps: list[int] = []
    rest = train(training, checkpoint=file, progress=lambda step, loss: steps.append(step))
    assert steps == [7, 8, 9] and bits(rest.run) == bits(train(training).run)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    train(small(steps=2), checkpoint=file)
    with pytest.raises(ValueError, match=r"state of training \w+; admissible: \w+, the same one"):
        train(small(steps=3), checkpoint=file)
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"checkpoint .*run.pt cannot be read"):
        train(small(steps=2), checkpoint=file)


def test_every_cell_sees_the_same_samples() -> None:
    runs = [Run(small("sgd", BF16)), Run(small("muon", DITHERED)), Run(small("adam", None))]
    assert len({run._batches for run in runs}) == 1
    assert runs[0]._batches == Key(0).fold(0x54524E52).fold(0).fold(MINIBATCH)


def test_without_rounding_it_is_an_ordinary_training() -> None:
    training = small("sgd", None, carrier="float64", hyperparameters={"lr": 0.125}, steps=5)
    run = Run(training)
    net = torch.nn.Sequential(*run.plain.network)
    weights = [p.detach().clone().requires_grad_() for p in net.parameters()]
    names = [name for name, _ in net.named_parameters()]
    for step in range(5):
        x, y = (torch.from_numpy(part) for part in run.data.batch(run._batches, step, 16))
        scores = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x.double(),))
        grads = torch.autograd.grad(torch.nn.functional.cross_entropy(scores, y), weights)
        weights = [(w - 0.125 * g).detach().requires_grad_() for w, g in zip(weights, grads, strict=True)]
        run.advance()
    for mine, theirs in zip(run.plain.parameters(), weights, strict=True):
        assert torch.equal(mine, theirs)


def test_measures_are_those_of_the_formulas() -> None:
    run = Run(replace(small("sgd", BF16, network_options={}), network="logistic"))
    run.advance()
    measure = run.measure()
    x, y = run.data.evaluation(32)
    x = x.reshape(32, 64).astype(float)
    w, b = (p.detach().double().numpy() for p in run.plain.parameters())
    scores = x @ w.T + b
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    residual = (p - np.eye(10)[y]) / 32
    assert measure.loss == pytest.approx(-np.log(p[np.arange(32), y]).mean(), rel=1e-12)
    assert measure.gradient == pytest.approx(math.hypot(*(residual.T @ x).ravel(), *residual.sum(axis=0)), rel=1e-12)
    assert measure.accuracy == np.mean(scores.argmax(axis=1) == y) and measure.step == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "shampoo"])
def test_what_is_stored_is_on_its_grid(optimizer: str) -> None:
    run = Run(small(optimizer, BF16))
    fmt = named_format("bfloat16")
    for _ in range(2):
        run.advance()
        for group in run.groups:
            for parameter in group.parameters.values():
                for x in (parameter.detach(), *group.arrays(parameter).values()):
                    assert torch.equal(x.float(), x.float().bfloat16().float()) and fmt.name == "e8m7"
    assert run.loss == run.loss


def test_an_optimizer_of_matrices_leaves_vectors_and_embeddings_to_another() -> None:
    run = Run(Training("transformer", "markov", Optimizer("muon"), BF16, batch=2, evaluation=2))
    mine, others = ({*group.parameters} for group in run.groups)
    assert "network.embedding.weight" in others and "network.blocks.0.gate.weight" in mine
    assert all(run.parameters[name].ndim == 2 for name in mine)
    run.advance()
    assert run.finite(states=True) and run.loss == pytest.approx(math.log(16), rel=0.1)


def test_loss_scaling_keeps_gradients_that_binary16_loses() -> None:
    half = NetworkPrecision.storage("binary16").replace(master="binary32", state="binary32", update="binary32")
    plain, scaled = (
        Run(small("adam", half.replace(loss_scale=scale), network_options={"width": 64}, batch=64, steps=200))
        for scale in (None, 2.0**12)
    )
    for _ in range(40):
        plain.advance()
    with torch.no_grad():
        plain.parameters["network.7.weight"] *= 4.0  # surer of its answers: small gradients
    scaled.plain.load_state_dict(plain.plain.state_dict())
    scaled.step = plain.step
    lost = []
    for run in (plain, scaled):
        run.gradients()
        lost.append(sum(int((p.grad == 0).sum()) for p in run.plain.parameters()))
    assert lost[1] < lost[0]
    scaled.update()
    assert scaled.scaler.get_scale() == 2.0**12
    assert all(bool(torch.isfinite(p).all()) for p in scaled.plain.parameters())


# Numbers that are not finite


def test_an_overflow_is_traced_to_its_step_and_operation() -> None:
    done = train(small("sgd", BF16, hyperparameters={"lr": 2.0**100}, steps=40))
    assert done.outcome == NOT_FINITE and done.origin is not None
    assert done.origin.step == done.steps - 1 and done.origin.slot.startswith("forward network.")
    assert done.origin.slot.endswith(": round")
    before = train(small("sgd", BF16, hyperparameters={"lr": 2.0**100}, steps=40), stop=iter_stop(done.origin.step))
    assert before.run.finite(states=True)


def iter_stop(steps: int) -> Any:
    calls = iter(range(1000))
    return lambda: next(calls) == steps


def test_an_emulated_overflow_is_traced_to_its_layer() -> None:
    sums = Accumulator("binary32", "binary32")
    precision = NetworkPrecision.uniform("bfloat16", accumulator=sums)
    training = Training("mlp", "teacher", Optimizer("sgd", {"lr": 2.0**100}), precision, steps=9, batch=4, evaluation=8,
                        network_options={"width": 8}, passthrough=("mse_loss",))  # fmt: skip
    done = train(training)
    assert done.outcome == NOT_FINITE and done.origin is not None
    way, _, rest = done.origin.slot.partition(" ")
    assert way in ("forward", "backward") and rest.partition(":")[0] in {f"network.{i}" for i in range(8)}


def test_a_division_by_zero_in_the_optimizer_is_traced_to_its_slot() -> None:
    tiny = NetworkPrecision.storage("e5m2")  # eps becomes 0, and so do squares of small gradients
    done = train(small("adam", tiny, hyperparameters={"lr": 2.0**-6, "eps": 1e-8}))
    assert done.outcome == NOT_FINITE and done.origin is not None and done.origin.step == 0
    assert done.origin.slot.startswith("adam update.div of network.")
    assert any("eps = 1e-08 becomes 0" in text for text in done.warnings)


def test_a_state_that_overflows_long_before_the_loss_is_the_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    training = small("adam", BF16, steps=200)
    step = Run.update

    def poisoned(run: Run) -> None:
        step(run)
        if run.step == 70:
            for group in run.groups:
                for parameter in group.parameters.values():
                    group.arrays(parameter)["v"].reshape(-1)[0] = math.inf

    monkeypatch.setattr(Run, "update", poisoned)
    done = train(training)
    assert done.outcome == "finished" and done.origin is not None and done.origin.step == 69


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, r"steps=0 is outside 1\.\.1000000000"),
        ({"batch": 0}, r"batch=0 is outside 1\.\.65536"),
        ({"carrier": "float16"}, "carrier='float16'; admissible: float32, float64"),
        ({"vectors": Optimizer("muon")}, "vectors='muon'; admissible: an optimizer of vectors"),
    ],
)
def test_bad_trainings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**change)


def test_bad_optimizers_and_functions() -> None:
    with pytest.raises(ValueError, match="optimizer='adamm'; admissible: sgd, momentum"):
        Optimizer("adamm")
    with pytest.raises(ValueError, match="hyperparameter 'beta1' of sgd; admissible: lr"):
        Optimizer("sgd", {"beta1": 0.5})
    with pytest.raises(ValueError, match="passthrough='softmaxx'; admissible: a function"):
        Run(small(passthrough=("softmaxx",)))
    with pytest.raises(TypeError, match="precision='bfloat16'; admissible: NetworkPrecision, None"):
        small(precision="bfloat16")
