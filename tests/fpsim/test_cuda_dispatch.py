"""Array functions of tensors on a card: by Triton's kernels or by the twin, with the CPU's bits.

Where there is no card, tensors on the CPU take the way of a tensor on a card, and Triton interprets its kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiers import slow_but
from triton_session import DEVICE, KEY, LINUX, ON_CARD

import fpsim
from fpsim import arrays_torch
from fpsim.block_formats import NAMED
from fpsim.cuda import dispatch, twin_arrays
from fpsim.program import ELEMENTARY
from fpsim.rounding import Stochastic

pytestmark = ON_CARD
UNARY = ("round", "sqrt", "rsqrt", "reciprocal", "absolute", "negative", "round_to_integral", *ELEMENTARY[:-1])
BINARY = ("add", "sub", "mul", "div", "rem", "minimum", "maximum", "pow")
ARITY = {**dict.fromkeys(UNARY, 1), **dict.fromkeys(BINARY, 2), "fma": 3}
X = torch.tensor([[1.5, -0.25, 3.0], [0.0, 100.0, -7.5]])
OTHERS: dict[str, Callable[[Any], Any]] = {
    "compare": lambda x: fpsim.compare(x, 1.5),
    "block_round": lambda x: fpsim.block_round(x, "mx6", "up", axis=0),
    "block_encode": lambda x: fpsim.block_decode(fpsim.block_encode(x, "mxfp8_e4m3"), "mxfp8_e4m3"),
    "block_decode": lambda x: fpsim.block_decode(
        fpsim.BlockCodes((x[0] == x[0]).to(torch.uint8)[:1], (x[0] > 0.0).to(torch.uint8)), "mxfp4_e2m1"
    ),
    "encode": lambda x: fpsim.encode(x, "bfloat16"),
    "decode": lambda x: fpsim.decode(x.abs().to(torch.uint8), "float8_e5m2"),
    "count_events": lambda x: fpsim.count_events("add", x, 2.0**-9, fmt="bfloat16"),
}
# What another file is about, or what takes no arrays.
ELSEWHERE = {
    "dot", "matmul", "matvec", "sum", "as_dtype", "from_dtype", "dtype_of", "audit", "run", "optim", "set_threads",
    "slot", "step", "format", "block_format", "Accumulator", "AuditLog", "BlockCodes", "BlockFormat", "Events",
    "Format", "Key", "Precision", "Program", "RunResult", "Stochastic",
}  # fmt: skip


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.cpu().contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[x.element_size()])


def same(ours: torch.Tensor, theirs: torch.Tensor, what: str = "") -> None:
    assert ours.device.type == DEVICE and ours.dtype == theirs.dtype and ours.shape == theirs.shape, what
    assert torch.equal(bits(ours), bits(theirs)), what
    assert not ours.requires_grad


def operands(count: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 3) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        x = np.asarray(rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 5, shape))
        flat = x.reshape(-1)
        flat[: flat.size // 8] = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -3e30], flat.size // 8)
        made.append(torch.from_numpy(x).to(dtype))
    return made


@pytest.fixture(params=["twin", pytest.param("triton", marks=LINUX)])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tensors of DEVICE take the way of a card's, and this machine computes."""
    monkeypatch.setattr(arrays_torch, "on_host", lambda device: False)
    if request.param == "twin":
        monkeypatch.setattr(dispatch, "why_twin", lambda device: "the test says so")
    else:  # where Triton is missing no skip: on Linux the test extra brings it
        assert dispatch.why_twin(torch.device(DEVICE)) == ""
        monkeypatch.setattr(twin_arrays, "apply", _only_remainders(twin_arrays.apply))
    return str(request.param)


def _only_remainders(of_the_twin: Any) -> Any:
    def apply(kind: str, *arguments: Any) -> Any:
        assert kind in ("rem", "rsqrt")
        return of_the_twin(kind, *arguments)

    return apply


def here(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """By the CPU machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays_torch, "on_host", lambda device: True)
        return function(*arguments, **named)


def there(x: Any) -> Any:
    return x.to(DEVICE) if isinstance(x, torch.Tensor) else x


def test_every_public_function_is_in_a_table() -> None:
    assert {*ARITY, *OTHERS} | ELSEWHERE == set(fpsim.__all__)
    assert not {*ARITY, *OTHERS} & ELSEWHERE


FAST = ("round", "add", "div", "sqrt", "fma", "rem", "rsqrt", "reciprocal", "minimum", "absolute", "round_to_integral")


@pytest.mark.parametrize("name", slow_but(ARITY, *FAST, "exp", "pow"))
def test_array_functions(name: str, way: str) -> None:
    function = getattr(fpsim, name)
    for dtype, fmt, mode in (
        (torch.float32, "bfloat16", "nearest_even"),
        (torch.bfloat16, "float8_e4m3fn", Stochastic(9)),
        (torch.float64, "e8m20", "down"),
        (torch.float16, "float8_e5m2", Stochastic(20, "C")),
    ):
        given = operands(ARITY[name], (3, 67), dtype)
        right = here(function, *given, fmt, mode, KEY)
        same(function(*map(there, given), fmt, mode, KEY), right, f"{dtype} {fmt} {mode}")


def test_a_reciprocal_root_of_more_bits_than_the_twin_knows(way: str) -> None:
    (x,) = operands(1, (3, 30), torch.float64)
    same(fpsim.rsqrt(there(x), "binary64", "up"), here(fpsim.rsqrt, x, "binary64", "up"))


@pytest.mark.parametrize("name", OTHERS)
def test_functions_with_arguments_of_their_own(name: str, way: str) -> None:
    ours, right = OTHERS[name](there(X)), here(OTHERS[name], X)
    if isinstance(right, torch.Tensor):
        same(ours, right)
    elif isinstance(right, np.ndarray):
        assert ours.dtype == right.dtype and np.array_equal(ours, right, equal_nan=True)
    else:
        assert ours == right


@pytest.mark.parametrize("name", slow_but(NAMED, "mxfp8_e5m2", "mxint8", "mx6"))
def test_block_formats(name: str, way: str) -> None:
    for axis, dtype in ((0, torch.float32), (1, torch.float64), (-1, torch.bfloat16)):
        if dtype == torch.bfloat16 and NAMED[name].element.precision > 8:
            continue
        (x,) = operands(1, (37, 5), dtype)
        x = (x.double() * 2.0 ** -torch.arange(37.0)[:, None]).to(dtype)
        right = here(fpsim.block_round, x, name, Stochastic(7, "B"), KEY, axis=axis)
        same(fpsim.block_round(there(x), name, Stochastic(7, "B"), KEY, axis=axis), right)
    same(fpsim.block_round(there(x[:0]), name, axis=0), x[:0])


SHAPES: list[tuple[Any, Any]] = [
    ((4, 1), (1, 5)), ((3, 4), (4,)), ((), (6,)), ((1,), (1, 1)), ((2, 0), (1,)), ((), ()), ((0,), ()),
]  # fmt: skip


def test_shapes_strides_and_numbers(way: str) -> None:
    def check(a: Any, b: Any) -> None:
        mode = Stochastic(5, "C")
        right = here(fpsim.div, a, b, "bfloat16", mode, KEY, dtype=torch.float64)
        same(fpsim.div(there(a), there(b), "bfloat16", mode, KEY, dtype=torch.float64), right, f"{a} / {b}")

    for first, second in SHAPES:
        check(operands(1, first, torch.float32)[0], operands(1, second, torch.float64, 4)[0])
    (x,) = operands(1, (6, 8), torch.float32)
    wide = x.expand(2, 6, 8)
    for a, b in ((x.T, x[:, :1].T), (x[::2, ::3], x[1::2, 1:4]), (wide, wide[1]), (x[2:], x[:4].flip(0))):
        check(a, b)
    whole = torch.tensor([3, -7, 1 << 53])
    for a, b in ((x, 3), (0.1, x), (x, True), (x, np.float32(0.3)), (x, np.arange(1, 9)), (whole, x[0, :3])):
        check(a, b)
    negated = torch.imag(torch.complex(x, x).conj())
    assert negated.is_neg()
    same(fpsim.round(there(negated), "bfloat16"), here(fpsim.round, -x, "bfloat16"))


def test_out_and_dtype(way: str) -> None:
    x, y = operands(2, (40, 3), torch.float32)
    right = here(fpsim.add, x, y, "bfloat16", Stochastic(9), KEY)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        out = torch.full((40, 3), 5.0, dtype=dtype, device=DEVICE)
        result = fpsim.add(there(x), there(y), "bfloat16", Stochastic(9), KEY, out=out)
        assert result is out and out._version == 1
        same(out, here(fpsim.add, x, y, "bfloat16", Stochastic(9), KEY, dtype=dtype))
        same(fpsim.add(there(x), there(y), "bfloat16", Stochastic(9), KEY, dtype=str(dtype)[6:]), out.cpu())
    for place in (there(x.clone()), there(x.T.contiguous()).T):  # in place, also where it is no row after another
        before = place._version
        same(fpsim.add(place, there(y), "bfloat16", Stochastic(9), KEY, out=place), right)
        assert place._version > before
    memory = there(torch.zeros(240))
    other = memory[:120].view(40, 3).copy_(x)  # its own half of one memory
    same(fpsim.add(other, there(y), "bfloat16", Stochastic(9), KEY, out=memory[120:].view(40, 3)), right)
    leaf = there(x.clone()).requires_grad_()
    same(fpsim.add(leaf, there(y), "bfloat16", Stochastic(9), KEY), right)
    leaf.requires_grad_(False)
    with torch.inference_mode():
        out = torch.empty((40, 3), device=DEVICE)
        same(fpsim.add(there(x), there(y), "bfloat16", Stochastic(9), KEY, out=out), right)


def test_memory_seen_as_another_dtype_is_not_written_while_it_is_read(way: str) -> None:
    x = there(operands(1, (64,), torch.float64)[0])
    narrow = x.view(torch.float32)[:64]
    right = here(fpsim.round, narrow.cpu().clone(), "bfloat16", dtype=torch.float64)
    same(fpsim.round(narrow, "bfloat16", out=x), right)


def test_operands_are_checked_as_on_the_cpu(way: str) -> None:
    x, y = there(X), there(X / 3)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: fpsim.add(x, y, "bfloat16", operands=(None, "bfloat16")), ValueError,
         "operand 1 holds .* which is not a number of its declared format e8m7"),
        (lambda: fpsim.reciprocal(y, "bfloat16", operands="bfloat16"), ValueError, "operand 0 holds"),
        (lambda: fpsim.exp(y, "bfloat16", operands="bfloat16"), ValueError, "operand 0 holds"),
        (lambda: fpsim.add(x, x[:1, :2], "bfloat16"), ValueError, "broadcast"),
        (lambda: fpsim.compare(x, x[:1, :2]), ValueError, "broadcast"),
        (lambda: fpsim.add(x, x, "bfloat16", "stochastic"), ValueError, "needs a Key"),
        (lambda: fpsim.add(x, x, "binary64"), ValueError, "common dtype float32 cannot hold the format e11m52"),
        (lambda: fpsim.add(x, x, "bfloat16", dtype=torch.int32), ValueError, "dtype=int32; admissible: float16"),
        (lambda: fpsim.add(x, x, "bfloat16", dtype="bf16"), ValueError, "'bf16' is no dtype of torch"),
        (lambda: fpsim.add(x, x, "bfloat16", out=x[:1]), ValueError, r"out has shape \(1, 3\); admissible: \(2, 3\)"),
        (lambda: fpsim.add(x, x, "bfloat16", out=np.empty((2, 3))), ValueError, "out is a ndarray; admissible: a ten"),
        (lambda: fpsim.round(x.view(-1)[:4], "bfloat16", out=x.view(-1)[1:5]), ValueError, "overlaps operand 0"),
        (lambda: fpsim.round(there(torch.tensor([1 << 60])), "bfloat16"), ValueError, r"up to 2\^53"),
        (lambda: fpsim.round(there(torch.tensor([-(1 << 63)])), "bfloat16"), ValueError, r"up to 2\^53"),
        (lambda: fpsim.add(x, 1 << 60, "bfloat16"), ValueError, r"up to 2\^53"),
        (lambda: fpsim.add(x, 10**30, "bfloat16"), ValueError, r"an integer operand reaches 1000.*up to 2\^53"),
        (lambda: fpsim.add(x, 1j, "bfloat16"), ValueError, "real numbers|admissible: float16"),
        (lambda: fpsim.add(x.to(torch.complex64), x, "bfloat16"), ValueError, "real numbers"),
        (lambda: fpsim.add(x, "a", "bfloat16"), ValueError, "operand of dtype"),
        (lambda: fpsim.add(x, np.ma.masked_array([1.0], [True]), "bfloat16"), TypeError, "a masked array"),
        (lambda: fpsim.block_round(x, "mx6", axis=2), ValueError, "axis=2 is outside"),
        (lambda: fpsim.block_round(x[0, 0], "mx6"), ValueError, "x has no axis"),
        (lambda: fpsim.block_round(x, "mx6", "stochastic"), ValueError, "needs a Key"),
    ]  # fmt: skip
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    same(fpsim.add(x, y, "bfloat16", operands="bfloat16", check=False, dtype="float64")[:0], torch.empty(0, 3).double())
