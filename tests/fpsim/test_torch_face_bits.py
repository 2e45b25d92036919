"""Without a precision of one's own the classes have the bits of torch.optim, in a training loop and on bare tensors."""

from __future__ import annotations

import copy
import platform

import pytest
from tiers import slow_but

import fpsim
from fpsim.optim import pytorch
from fpsim.optim.torch_variants import VARIANTS, _kernels, _machine

torch = pytest.importorskip("torch")

CASES = {
    "SGD": [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
            {"momentum": 0.9, "dampening": 0.5, "maximize": True}],
    "Adam": [{}, {"lr": 0.01, "betas": (0.4, 0.9), "weight_decay": 0.1, "amsgrad": True}, {"maximize": True}],
    "AdamW": [{}, {"weight_decay": 0.0, "amsgrad": True}],
    "RMSprop": [{}, {"momentum": 0.9, "centered": True, "weight_decay": 0.01, "maximize": True}],
    "Adagrad": [{}, {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}],
    "NAdam": [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
}  # fmt: skip
EVERY = [(name, options) for name, cases in CASES.items() for options in cases]
# eps = 1e-8 is 0 in float16, here as in PyTorch
pytestmark = [
    pytest.mark.filterwarnings("ignore::fpsim.optim.torch_face.ScalarWarning"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="ATen was studied on x86"),
]
INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


@pytest.fixture(autouse=True)
def one_thread():
    """Tails depend on the number of threads; and on a busy machine they wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def codes(x):
    """Codes, with one for NaN: PyTorch's depend on the processor."""
    x = x.detach().masked_fill(x.isnan(), float("nan"))
    return x.contiguous().view(INTEGERS[x.dtype]).tolist() if x.dtype in INTEGERS else x.tolist()


def parameters(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in ((5, 11), (70,), (3,))]


def steps(optimizer, number, first=0):
    """Gradients of all magnitudes, some of them zero."""
    given = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(first, first + number):
        generator = torch.Generator().manual_seed(1000 + step)
        for p in given:
            scale = torch.exp2(torch.randint(-12, 3, p.shape, generator=generator))
            gradient = torch.randn(p.shape, generator=generator) * scale
            p.grad = torch.where(torch.rand(p.shape, generator=generator) < 0.1, 0.0, gradient).to(p.dtype)
        optimizer.step()


def everything(optimizer):
    given = [p for group in optimizer.param_groups for p in group["params"]]
    states = [{k: x for k, x in optimizer.state[p].items() if k != "step" and x is not None} for p in given]
    return [codes(p) for p in given], [{k: codes(x) for k, x in sorted(state.items())} for state in states]


def test_every_class_is_here():
    assert set(CASES) == set(VARIANTS)


@pytest.mark.parametrize("dtype", slow_but(INTEGERS, torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_bits_of_parameters_and_states(name, options, dtype):
    ours = getattr(fpsim.optim, name)(parameters(dtype), **options)
    theirs = getattr(torch.optim, name)(parameters(dtype), foreach=False, **options)
    for part in range(3):
        steps(ours, 5, first=5 * part)
        steps(theirs, 5, first=5 * part)
        assert everything(ours) == everything(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(INTEGERS), ids=str)
@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_bits_over_a_thousand_steps(name, options, dtype):
    ours = getattr(fpsim.optim, name)(parameters(dtype), **options)
    theirs = getattr(torch.optim, name)(parameters(dtype), foreach=False, **options)
    steps(ours, 1000)
    steps(theirs, 1000)
    assert everything(ours) == everything(theirs)


@pytest.mark.parametrize("dtype", list(INTEGERS), ids=str)
@pytest.mark.parametrize("name", list(CASES))
def test_a_run_changes_hands_in_both_directions(name, dtype):
    """torch.optim and fpsim.optim continue each other's checkpoints, with the bits of a run that one of them did."""
    options = CASES[name][1]
    whole = getattr(torch.optim, name)(parameters(dtype), foreach=False, **options)
    steps(whole, 9)
    first = getattr(torch.optim, name)(parameters(dtype), foreach=False, **options)
    steps(first, 3)
    second = getattr(fpsim.optim, name)(first.param_groups[0]["params"])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, 3, first=3)
    if (name, dtype) in [("NAdam", torch.bfloat16), ("NAdam", torch.float16)]:
        steps(second, 3, first=6)  # loading into PyTorch's would round mu_product to the dtype, from its own file too
        assert everything(second) == everything(whole)
        return
    third = getattr(torch.optim, name)(first.param_groups[0]["params"], foreach=False)
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    steps(third, 3, first=6)
    assert everything(third) == everything(whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_training_a_model_differs_by_one_line(dtype):
    results = []
    for library in (torch.optim, fpsim.optim):
        torch.manual_seed(3)
        model = torch.nn.Sequential(torch.nn.Linear(8, 33), torch.nn.GELU(), torch.nn.Linear(33, 2)).to(dtype)
        x, y = torch.randn(64, 8).to(dtype), torch.randn(64, 2).to(dtype)
        optimizer = library.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=40)
        for _ in range(40):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
        results.append([codes(p) for p in model.parameters()])
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", list(CASES))
def test_training_a_convolutional_network_differs_by_one_line(name, dtype, layout):
    nn = torch.nn
    results = []
    for library in (torch.optim, fpsim.optim):
        torch.manual_seed(4)
        model = nn.Sequential(
            nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(225, 10)
        ).to(dtype=dtype, memory_format=layout)
        data = torch.utils.data.TensorDataset(torch.randn(320, 3, 12, 12).to(dtype), torch.randint(0, 10, (320,)))
        batches = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
        optimizer = getattr(library, name)(model.parameters())
        losses = []
        for _ in range(20):
            for x, y in batches:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x.to(memory_format=layout)), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        results.append((losses, *everything(optimizer)))
    assert len(losses) == 200 and losses[-1] < losses[0]
    assert results[0] == results[1]


def test_a_precision_of_ones_own_is_one_program_for_all_elements():
    """Elements of vector tails have the bits of the others: the place of an element is no part of the emulation."""
    for dtype in (torch.bfloat16, torch.float32):
        precision = fpsim.Precision.torch(str(dtype)).replace({"v": "bfloat16", "v.addcmul": "bfloat16"})
        parameter = torch.nn.Parameter(torch.full((37,), 0.7, dtype=dtype))
        optimizer = fpsim.optim.Adam([parameter], lr=0.1, weight_decay=0.3, precision=precision)
        for _ in range(5):
            parameter.grad = torch.full_like(parameter, 0.3)
            optimizer.step()
        assert len(set(parameter.tolist())) == 1 and parameter[0] < 0.5


@pytest.mark.parametrize("threads", [1, 2])
def test_every_thread_has_a_tail(threads):
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(70_001, generator=generator).bfloat16()
    results = []
    for library in (torch.optim, fpsim.optim):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = library.SGD([parameter], lr=0.1, momentum=0.9)
        for _ in range(2):
            parameter.grad = start.square()
            optimizer.step()
        results.append(codes(parameter))
    assert results[0] == results[1]


def randn(generator, *shape):
    return torch.randn(shape, generator=generator).bfloat16()


LAYOUTS = {
    "in order": (lambda g: randn(g, 37, 41), lambda g: randn(g, 37, 41)),
    "transposed": (lambda g: randn(g, 37, 41).mT, lambda g: randn(g, 37, 41).mT),
    "a transposed gradient": (lambda g: randn(g, 41, 37), lambda g: randn(g, 37, 41).mT),
    "a transposed parameter": (lambda g: randn(g, 37, 41).mT, lambda g: randn(g, 41, 37)),
    "channels last": tuple(
        [lambda g: randn(g, 3, 5, 7, 11).to(memory_format=torch.channels_last)] * 2
    ),
    "axes of length 1": (lambda g: randn(g, 1, 70, 1).mT, lambda g: randn(g, 1, 1, 70)),
    "permuted": (lambda g: randn(g, 3, 7, 11).permute(1, 2, 0), lambda g: randn(g, 3, 7, 11).permute(1, 2, 0)),
    "gaps": (lambda g: randn(g, 37, 82)[:, ::2], lambda g: randn(g, 37, 82)[:, ::2]),
}  # fmt: skip


SEVERAL_ORDERS = ("a transposed gradient", "a transposed parameter", "gaps")


@pytest.mark.filterwarnings("default::fpsim.optim.torch_face.LayoutWarning")
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", ["SGD", "Adam", "NAdam"])
def test_memory_of_any_layout(layout, name, recwarn):
    """Which elements are left over after the last full vector follows from where they are in memory."""
    options = {"lr": 0.1, "weight_decay": 0.1} | ({"momentum": 0.9} if name == "SGD" else {})
    results = []
    for library in (torch.optim, fpsim.optim):
        generator = torch.Generator().manual_seed(6)
        parameter = torch.nn.Parameter(LAYOUTS[layout][0](generator))
        optimizer = getattr(library, name)([parameter], **options)
        for _ in range(4):
            parameter.grad = LAYOUTS[layout][1](generator)
            optimizer.step()
        results.append(codes(parameter))
    assert results[0] == results[1]
    warned = layout in SEVERAL_ORDERS and pytorch.capability() != "DEFAULT"  # which has no tails that differ
    expected = ["parameter 0 has gaps in its memory, or another order"] * warned
    assert [str(w.message).partition(": ")[2][:52] for w in recwarn] == expected


def test_where_tails_are_not_known_a_warning_says_so():
    """torch.optim has a tail for every row of such a slice, in some of its kernels; float32 has no such tails."""
    if pytorch.capability() == "DEFAULT":
        pytest.skip("without vectors of AVX2 there are no tails that differ")
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for library in (torch.optim, fpsim.optim):
            generator = torch.Generator().manual_seed(7)
            parameter = torch.nn.Parameter(torch.randn(37, 80, generator=generator).to(dtype)[:, 7:])
            optimizer = library.SGD([parameter], lr=0.1, momentum=0.9)
            for number in range(3):
                parameter.grad = torch.randn(37, 73, generator=generator).to(dtype)
                if library is fpsim.optim and dtype == torch.bfloat16 and number == 0:
                    with pytest.warns(UserWarning, match="SGD: parameter 0 has gaps in its memory, or .* may round"):
                        optimizer.step()
                else:
                    optimizer.step()
            found.append(parameter.detach().clone())
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[2].float(), found[3].float(), rtol=2**-5, atol=2**-5)
    channels_last = torch.nn.Parameter(torch.randn(4, 6, 5, 5).bfloat16())
    optimizer = fpsim.optim.SGD([channels_last], momentum=0.9)
    channels_last.grad = torch.randn(4, 6, 5, 5).bfloat16()
    optimizer.step()
    channels_last.data = channels_last.data.to(memory_format=torch.channels_last)
    channels_last.grad = channels_last.grad.to(memory_format=torch.channels_last)
    with pytest.warns(UserWarning, match="another order there than its gradient or its states"):
        optimizer.step()


@pytest.fixture
def another_root(monkeypatch):
    """A processor whose float32 square root is in no table: PyTorch itself is asked."""
    monkeypatch.setattr(pytorch, "root", lambda: "torch")
    looked_at_again()
    yield
    looked_at_again()


def looked_at_again():
    _machine.cache_clear()
    _kernels.cache_clear()


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Adagrad", "NAdam"])
def test_bits_on_a_processor_with_another_square_root(name, another_root):
    test_bits_of_parameters_and_states(name, CASES[name][1], torch.float32)


@pytest.mark.parametrize(("name", "machine"), [("SVE256", "aarch64"), ("DEFAULT", "arm64"), ("VSX", "x86_64")])
def test_on_a_processor_that_was_not_studied_a_warning_says_so(name, machine, monkeypatch):
    parameter = torch.nn.Parameter(torch.ones(70))
    parameter.grad = torch.ones(70)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    looked_at_again()
    try:
        with pytest.warns(UserWarning, match=f"capability is '{name}' on {machine}; admissible: DEFAULT, .* on x86_64"):
            optimizer = fpsim.optim.SGD([parameter], lr=0.5)
        optimizer.step()
    finally:
        looked_at_again()
    assert parameter.tolist() == [0.5] * 70


def test_momentum_that_comes_later_starts_from_the_gradient():
    """In PyTorch the first gradient is not dampened, whenever the first step with momentum is."""
    results = []
    for library in (torch.optim, fpsim.optim):
        (parameter,) = parameters(torch.float32)[1:2]
        optimizer = library.SGD([parameter], lr=0.1, dampening=0.5)
        for momentum in (0.0, 0.9, 0.9, 0.0, 0.8):
            optimizer.param_groups[0]["momentum"] = momentum
            steps(optimizer, 1)
        results.append(everything(optimizer))
        optimizer.load_state_dict(optimizer.state_dict())
    assert results[0] == results[1]


def test_parameters_of_several_dtypes_and_empty_ones():
    shapes = [((33,), torch.bfloat16), ((0,), torch.float32), ((2, 0), torch.float16), ((), torch.float32)]
    for name in CASES:
        results = []
        for library in (torch.optim, fpsim.optim):
            generator = torch.Generator().manual_seed(8)
            given = [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s, dtype in shapes]
            optimizer = getattr(library, name)(given)
            steps(optimizer, 3)
            results.append([codes(p) for p in given])
        assert results[0] == results[1]


def test_double_precision_and_what_nesterov_needs():
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = fpsim.optim.SGD([parameter], lr=0.1)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert parameter.tolist() == [1 - 0.1] * 3
    with pytest.raises(ValueError, match=r"nesterov=True with momentum=0.0 and dampening=0.0; admissible: momentum ab"):
        fpsim.optim.SGD([parameter], nesterov=True)
    with pytest.raises(TypeError, match="amsgrad=1; admissible: True, False"):
        fpsim.optim.Adam([parameter], amsgrad=1)
