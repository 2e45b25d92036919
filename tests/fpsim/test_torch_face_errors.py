"""Bad input of the classes for PyTorch gets an error that says what is admissible, or a named warning."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

import fpsim

torch = pytest.importorskip("torch")

SR = fpsim.Stochastic(16)


def one(dtype=torch.float32):
    return torch.nn.Parameter(torch.ones(2, dtype=dtype))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"foreach": True}, TypeError, "option 'foreach' chooses an implementation of PyTorch's; fpsim has one"),
        ({"fused": False}, TypeError, "option 'fused'"),
        ({"beta1": 0.5}, TypeError, "option 'beta1' is unknown; did you mean betas?"),
        ({"nonsense": 1}, TypeError, "option 'nonsense' is unknown; known: lr, betas, eps"),
        ({"lr": -0.1}, ValueError, "param group 0: lr=-0.1; admissible: at least 0"),
        ({"lr": float("nan")}, ValueError, "lr=nan: a finite number is needed"),
        ({"lr": "fast"}, ValueError, "lr='fast': a finite number is needed"),
        ({"lr": True}, ValueError, "lr=True"),
        ({"betas": (0.9, 1.0)}, ValueError, "betas=1.0; admissible: at least 0, below 1"),
        ({"betas": 0.9}, ValueError, "betas=0.9: 2 numbers are needed"),
        ({"precision": "bfloat16"}, TypeError, "precision='bfloat16': a fpsim.Precision is needed"),
        (
            {"precision": fpsim.Precision.uniform("e4m3").replace({"u": "e4m3"})},
            ValueError,
            "slot 'u' is not in program",
        ),
        ({"precision": fpsim.Precision.uniform("bfloat16", SR)}, ValueError, "key=None, and a step draws random bits"),
        (
            {"precision": fpsim.Precision.uniform("binary64")},
            ValueError,
            "slot 'w' in binary64 does not fit a float32 parameter",
        ),
        ({"key": -1}, ValueError, "Key seed=-1 is outside"),
        ({"key": "seed"}, TypeError, "key='seed': a fpsim.Key or its seed is needed"),
        ({"run": 1 << 32}, ValueError, r"run=4294967296; admissible: 0..2\^32-1"),
    ],
    ids=str,
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        fpsim.optim.TextbookAdam([one()], **options)
    optimizer = fpsim.optim.TextbookAdam([one()])
    if "nonsense" not in options:  # a param group may hold notes of its user's
        with pytest.raises(error, match=message.replace("group 0", "group 1")):
            optimizer.add_param_group({"params": [one()], **options})
    assert len(optimizer.param_groups) == 1


def test_programs_that_no_optimizer_can_be():
    for inputs in (lambda w, g, h: {"w": w - g * h}, lambda x, g: {"x": x - g}):
        with pytest.raises(ValueError, match="needed: one that stores 'w', reads 'g' besides its states"):
            fpsim.optim.torch_class(fpsim.step(inputs, name="odd"))


def test_options_that_become_bad_between_steps():
    parameter = one()
    optimizer = fpsim.optim.TextbookSGD([parameter], precision=fpsim.Precision.uniform("bfloat16", SR), key=1)
    parameter.grad = torch.ones(2)
    for option, bad, message in (
        ("key", None, "key=None, and a step draws random bits"),
        ("precision", "e4m3", "precision='e4m3': a fpsim.Precision is needed"),
        ("run", -1, "run=-1; admissible"),
    ):
        group = optimizer.param_groups[0]
        good, group[option] = group[option], bad
        with pytest.raises((TypeError, ValueError), match=message):
            optimizer.step()
        group[option] = good
    parameter.data = parameter.data.to(torch.float8_e5m2)
    with pytest.raises(ValueError, match=r"a parameter of torch\.float8_e5m2; admissible"):
        optimizer.step()


def test_too_many_options_by_place_and_one_given_twice():
    with pytest.raises(TypeError, match="4 options without a name; admissible: lr, betas, eps"):
        fpsim.optim.TextbookAdam([one()], 0.1, (0.9, 0.99), 1e-8, 0.0)
    with pytest.raises(TypeError, match="option 'lr' is given twice"):
        fpsim.optim.TextbookAdam([one()], 0.1, lr=0.1)


def test_an_option_that_becomes_bad_later():
    parameter = one()
    optimizer = fpsim.optim.SGD([parameter])
    parameter.grad = torch.ones(2)
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(ValueError, match="param group 0: lr=None: a finite number is needed"):
        optimizer.step()
    assert parameter.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e5m2], ids=str)
def test_dtypes_that_are_not_taken(dtype):
    parameter = torch.ones(2).to(dtype)
    with pytest.raises(ValueError, match=f"a parameter of {dtype}; admissible: float32, float64, bfloat16, float16"):
        fpsim.optim.SGD([parameter])
    with pytest.raises(ValueError, match="a parameter on device meta; admissible: cpu, cuda"):
        fpsim.optim.SGD([torch.ones(2, device="meta")])


def test_a_narrow_parameter_needs_a_narrow_slot():
    with pytest.raises(ValueError, match="slot 'w' in binary32 does not fit a bfloat16 parameter"):
        fpsim.optim.SGD([one(torch.bfloat16)], precision=fpsim.Precision.uniform("binary32"))
    fpsim.optim.SGD([one(torch.bfloat16)], precision=fpsim.Precision.uniform("binary32").replace({"w": "bfloat16"}))


def test_sparse_gradients_are_refused():
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="parameter 0 has a sparse gradient; admissible: dense ones"):
        fpsim.optim.SGD(table.parameters()).step()


def test_a_scalar_that_its_format_changes_is_named_once():
    """beta2 = 0.999 is 1 in bfloat16, and eps = 1e-8 is 0 in float16."""
    parameter = one()
    optimizer = fpsim.optim.TextbookAdam([parameter], precision=fpsim.Precision.uniform("bfloat16"))
    parameter.grad = torch.ones(2)
    with pytest.warns(UserWarning, match="TextbookAdam: scalar.beta2 = 0.999 becomes 1") as caught:
        optimizer.step()
    assert [w.category.__name__ for w in caught] == ["ScalarWarning"] and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(40):  # nor are bias corrections that come near 1
            optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
            optimizer.step()
    half = fpsim.optim.TextbookAdam([parameter], precision=fpsim.Precision.uniform("binary16"))
    with pytest.warns(UserWarning, match="TextbookAdam: scalar.eps = 1e-08 becomes 0"):
        half.step()


def test_without_torch_the_classes_say_what_to_install():
    code = """
import sys
sys.modules["torch"] = None
import fpsim.optim
assert "Adam" in dir(fpsim.optim)
try:
    from fpsim.optim import Adam
except ImportError as error:
    assert "needs it: pip install 'fpsim[torch]'" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_names_that_are_no_class():
    assert not hasattr(fpsim.optim, "Nothing") and not hasattr(fpsim.optim, "nothing")
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from fpsim.optim import Nothing  # noqa: F401
