"""Calls like one before: the compiled entry takes what it should, and refuses the rest."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_cases import KEY, bits
from numba import types
from tiers import slow_but

from fpsim import arrays
from fpsim.cpu import flat, flat_again, flat_entry
from fpsim.formats import format as named
from fpsim.rounding import Stochastic

BF16 = named("bfloat16")


class Sub(np.ndarray):
    pass


def again(kind: str, inputs: tuple[Any, ...], mode: Any = "up", operands: Any = None, out: Any = None) -> Any:
    key = KEY if isinstance(mode, Stochastic) else None
    return flat_again.again(kind, inputs, BF16, mode, key, operands, True, out)


def normal(*shape: int) -> Any:
    return np.random.default_rng(4).standard_normal(shape)


def test_numpy_is_read_by_its_structures() -> None:
    """Where this fails with a new NumPy, results stay right and short arrays take longer."""
    assert flat_entry.KNOWN


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", slow_but(["round", "sub", "fma"], "round", "fma"))
def test_the_short_way_equals_the_ordinary_one(kind: str, dtype: Any) -> None:
    function: Any = getattr(arrays, kind)
    count = {"round": 1, "sub": 2, "fma": 3}[kind]
    declared: Any = {"operands": BF16} if kind == "fma" else {}  # else it is integer arithmetic
    for mode in ("up", Stochastic(16, "B")):
        expected = {}
        for shape in ((2,), (7, 3), (1, 1025), (3000,), (2, 2, 2, 2)):
            values = normal(4, *shape)[:count].astype(dtype)
            given = tuple(arrays.round(values, BF16) if declared else values)
            wide = [x.astype(np.float64) for x in given]
            expected[shape] = given, function(*[x[..., None] for x in wide], BF16, mode, KEY, **declared)[..., 0]
        function(*given, BF16, mode, KEY, **declared)
        for shape, (operands, results) in expected.items():
            got = again(kind, operands, mode, **declared)
            assert got.dtype == dtype and got.shape == shape
            assert (bits(got) == bits(results)).all()
            for i in range(count):
                copies = [x.copy() for x in operands]
                assert again(kind, tuple(copies), mode, out=copies[i], **declared) is copies[i]
                assert (bits(copies[i]) == bits(results)).all()


def test_copies_of_a_dtype_take_the_short_way() -> None:
    x = normal(40)
    arrays.round(x, BF16, "up")
    copied = pickle.loads(pickle.dumps(x))
    assert (again("round", (copied,)) == arrays.round(x, BF16, "up")).all()


def test_what_is_not_like_before_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_again, "_again", {})
    x = normal(40)
    arrays.round(x, BF16, "up")
    arrays.add(x, x, BF16, "up")
    assert again("round", (x,)) is not None
    fixed, raw = x.copy(), np.zeros(321, dtype=np.uint8)
    fixed.flags.writeable = False
    others: list[Any] = [x[::2], x.reshape(8, 5).T, x[:1], x[:0], x[0], 1.5, [1.0, 2.0], None, x.view(Sub), x > 0]
    others += [x.astype(kind) for kind in (">f8", "i8", "u8", "c8", "f2", "m8[s]")] + [raw[1:].view(np.float64)]
    others += [np.ma.array(x), np.broadcast_to(x[:1], 40)]
    for other in others:
        assert again("round", (other,)) is None
        assert again("add", (x, other)) is None
        assert again("add", (other, x)) is None
        assert other is None or again("round", (x,), out=other) is None
    assert again("round", (fixed,)) is not None
    assert again("round", (x,), out=fixed) is None
    assert again("round", (x.astype(np.float32),)) is None  # until it is known
    arrays.round(x.astype(np.float32), BF16, "up")
    assert again("round", (x.astype(np.float32),)) is not None
    assert again("round", (x,), out=x.astype(np.float32)) is None
    assert again("round", (x,), out=x.reshape(4, 10)) is None
    assert again("add", (x, x.reshape(4, 10))) is None
    assert again("round", (np.zeros(flat.THREADED),)) is None


def test_operands_that_overlap_the_result_in_part_are_refused() -> None:
    x = normal(100)
    arrays.add(x[:50], x[50:], BF16, "up")
    assert again("add", (x[:50], x[50:])) is not None
    for start in (1, 25, 49):
        assert again("add", (x[:50], x[50:]), out=x[start : start + 50]) is None
    before = x.copy()
    got = again("add", (x[:50], x[50:]), out=x[50:])
    assert (got == arrays.add(before[:50], before[50:], BF16, "up")).all()


def test_an_unknown_structure_leaves_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_entry, "KNOWN", False)
    monkeypatch.setattr(flat_again, "_again", {})
    x = normal(40)
    first = arrays.round(x, BF16, "up")
    assert again("round", (x,)) is None
    assert (arrays.round(x, BF16, "up") == first).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_declaration_is_checked(dtype: Any) -> None:
    x = arrays.round(normal(40).astype(dtype), BF16)
    several = (BF16, None, named("float8_e4m3fn"))
    small = arrays.round(x, several[2])
    arrays.add(x, x, BF16, "up", operands=BF16)
    arrays.fma(x, x, small, BF16, "up", operands=several, check=False)
    assert again("add", (x, x), operands=BF16) is not None
    tiny = np.full(40, 2.0**-133, dtype=dtype)  # the smallest subnormal number of bfloat16
    assert again("add", (x, tiny), operands=BF16) is not None
    for wrong in (x * dtype(1.01), tiny / dtype(2), np.where(x > 0, dtype(np.inf), x), np.where(x > 0, np.nan, x)):
        wrong = np.asarray(wrong, dtype=dtype)
        assert again("add", (x, wrong), operands=BF16) is None
        assert again("add", (wrong, x), operands=BF16) is None
    assert again("add", (x, [1.0] * 40), operands=BF16) is None
    # Integer arithmetic, where float64 is not declared as less, has no short way.
    assert (again("fma", (x, x * dtype(1.01), small), operands=several) is None) == (dtype == np.float64)
    assert again("fma", (x, x, x), operands=several) is None
    # A format whose numbers the fast kernels cannot tell.
    wide = named("e10m52")
    arrays.add(x, x, BF16, "up", operands=wide)
    assert again("add", (x, x), operands=wide) is None


def test_what_a_thread_may_be_reading_is_never_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second dtype, and a plan made again, take rows of their own: the old ones refer to the old plans alone."""
    monkeypatch.setattr(flat_again, "_again", {})
    x = normal(40)
    arrays.round(x, BF16, "up")
    (before,) = flat_again._again.values()
    rows, plans = before[-1].rows.copy(), dict(before[-1].plans)
    flat.plan.cache_clear()
    single = arrays.round(x.astype(np.float32), BF16, "up")
    (after,) = flat_again._again.values()
    assert (before[-1].rows == rows).all() and before[-1].plans == plans
    assert set(after[-1].plans) == {"d", "f"} and after[-1].plans["d"] is plans["d"]
    assert (again("round", (x.astype(np.float32),)) == single).all()
    assert (again("round", (x,)) == arrays.round(x[::-1], BF16, "up")[::-1]).all()


def test_ctrl_c_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the kernel's signature is hashed: iterating over an OrderedDict can make a KeyError of it."""
    x = normal(40)
    arrays.round(x, BF16, "up")
    kernel = flat.plan("round", (), BF16, "up", False).kernel
    place = flat_entry._machine_code(kernel)
    hash_of, left = type(types.int64).__hash__, 0

    def interrupted(self: Any) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return int(hash_of(self))

    monkeypatch.setattr(type(types.int64), "__hash__", interrupted)
    stopped = 0
    for first in range(1, 60):
        left = first
        try:
            assert flat_entry._machine_code(kernel) == place
        except KeyboardInterrupt:
            stopped += 1
    assert stopped


def test_more_axes_than_numpy_broadcasts() -> None:
    x = normal(24).reshape((1,) * 60 + (4, 6))
    for _ in range(2):
        assert (arrays.add(x, x, BF16, "up").ravel() == arrays.add(x.ravel(), x.ravel(), BF16, "up")).all()


def test_calls_that_are_refused_leave_nothing_behind() -> None:
    x = normal(80)[::2]
    arrays.round(x.copy(), BF16, "up")
    before = len(flat_again._again)
    for _ in range(3):
        arrays.round(x, BF16, "up")
    assert len(flat_again._again) == before


_MODES = ("nearest_even", "nearest_away")
_PROGRAM = """
import sys
import numpy as np
from fpsim import arrays
x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8])
for mode in sys.argv[1:]:
    arrays.round(1.5, "bfloat16", mode)  # loads the kernel; a number is not remembered
for mode in sys.argv[1:]:
    arrays.round(x, "bfloat16", mode)
    print(*arrays.round(x, "bfloat16", mode).tolist())
"""


@pytest.mark.slow
def test_kernels_from_the_caches_of_several_processes(tmp_path: Path) -> None:
    """Each has a name of its own: the address that a name is looked up by is that of the kernel."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", _PROGRAM]
    alone = [subprocess.run([*command, mode], env=environment, check=True, capture_output=True) for mode in _MODES]
    together = subprocess.run([*command, *_MODES], env=environment, check=True, capture_output=True)
    assert together.stdout == b"".join(one.stdout for one in alone)
    assert len(set(together.stdout.splitlines())) == len(_MODES)
