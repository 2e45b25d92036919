"""Data that networks learn: what they hold, that they are the same everywhere, and what is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets.base import drawn, shuffled
from experiments.datasets.cifar10 import safely_unpickled
from experiments.datasets.digits import digits
from experiments.datasets.markov import UNIT, markov
from experiments.datasets.teacher import EVALUATION, _normal, teacher
from experiments.datasets.text import ALPHABET, spelled
from fpsim.random_bits import Key

KEY = Key(7)


def _digest(*arrays: np.ndarray) -> str:
    return hashlib.blake2b(b"".join(np.ascontiguousarray(x).tobytes() for x in arrays), digest_size=8).hexdigest()


@pytest.mark.parametrize("name", ["digits", "teacher", "text", "markov"])
def test_batches_follow_from_key_and_step_alone(name: str) -> None:
    data = datasets.make(name)
    first = data.batch(KEY, 5, 9)
    data.batch(KEY, 6, 9)  # nothing is kept from step to step
    again = data.batch(KEY, 5, 9)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert _digest(*first) != _digest(*data.batch(KEY, 6, 9)) and _digest(*first) != _digest(*data.batch(Key(8), 5, 9))
    x, y = data.evaluation(4)
    assert x.shape == (4, *data.inputs) and len(y) == 4
    assert np.array_equal(data.evaluation(3)[0], x[:3])


def test_drawn_samples_are_uniform_and_a_small_batch_begins_a_large_one() -> None:
    small, large = drawn(KEY, 3, 10, 1437), drawn(KEY, 3, 10000, 1437)
    assert np.array_equal(small, large[:10])
    counts = np.bincount(drawn(KEY, 4, 60000, 20), minlength=20)
    assert float(((counts - 3000) ** 2 / 3000).sum()) < 43.8  # chi-squared, 19 degrees of freedom: 99.9 %
    assert sorted(shuffled(KEY, 100)) == list(range(100))
    with pytest.raises(ValueError, match=r"batch=65537 is outside 1\.\.65536"):
        drawn(KEY, 0, 65537, 10)


def test_digits_are_divided_once_and_wholly() -> None:
    data = digits()
    parts = [data._train, data._evaluation]
    images = np.concatenate([part[0] for part in parts])
    assert images.shape == (1797, 1, 8, 8) and images.dtype == np.float32
    levels = images * 16
    assert levels.min() == 0 and levels.max() == 16 and np.array_equal(levels, np.round(levels))
    other = digits(data_seed=1)
    assert _digest(np.sort(images.reshape(1797, -1), axis=0)) == _digest(
        np.sort(np.concatenate([other._train[0], other._evaluation[0]]).reshape(1797, -1), axis=0)
    )
    assert not np.array_equal(other._train[1], data._train[1])
    labels = np.bincount(np.concatenate([part[1] for part in parts]))
    assert labels.sum() == 1797 and len(labels) == 10 and labels.min() > 170


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fpsim\[networks\]'"):
        digits()


def test_teacher_is_the_network_that_it_says() -> None:
    data = teacher(inputs=3, hidden=4, outputs=2, samples=8, data_seed=5)
    key = Key(5).fold(0x54434852)
    a, b = _normal(key.fold(0), 4, 3) * (2 / 3) ** 0.5, _normal(key.fold(1), 2, 4) * 0.5
    x, y = data.evaluation(EVALUATION)
    for row, target in zip(x[:5].astype(float), y[:5], strict=True):
        hidden = [max((0.0 + row[0] * w[0] + row[1] * w[1]) + row[2] * w[2], 0.0) for w in a]
        out = [sum((h * w for h, w in zip(hidden, v, strict=True)), 0.0) for v in b]
        assert [np.float32(o) for o in out] == target.tolist()
    noisy = teacher(inputs=3, hidden=4, outputs=2, samples=20000, noise=0.5, data_seed=5)
    clean = teacher(inputs=3, hidden=4, outputs=2, samples=20000, data_seed=5)
    difference = noisy._train[1].astype(float) - clean._train[1]
    assert noisy.floor == 0.25 and abs(difference.var() - 0.25) < 5 * 0.25 * math.sqrt(2 / 40000)


def test_text_is_python_s_and_says_of_which_version() -> None:
    import platform

    data = datasets.make("text", length=40)
    assert data.record["python"] == platform.python_version() and len(str(data.record["digest"])) == 32
    x, y = data.batch(KEY, 0, 16)
    assert np.array_equal(x[:, 1:], y[:, :-1]) and x.max() < len(ALPHABET) == data.outputs
    whole = spelled(np.concatenate([data._train, data._rest]))
    assert "json" in whole and "thread" in whole and len(whole) > 100_000
    assert not set(spelled(data._train[:5000])) - set(ALPHABET)


def test_markov_entropy_is_that_of_its_table() -> None:
    language = markov(tokens=2)
    p, q = language.counts[0, 1] / UNIT, language.counts[1, 0] / UNIT

    def h(u: float) -> float:
        return -u * math.log(u) - (1 - u) * math.log(1 - u)

    assert language.floor == pytest.approx((q * h(p) + p * h(q)) / (p + q), rel=1e-14)
    big = markov()
    table = [[Fraction(int(c), UNIT) for c in row] for row in big.counts]
    assert all(sum(row) == 1 for row in table)
    for j in range(16):
        assert sum(pi * row[j] for pi, row in zip(big.stationary, table, strict=True)) == big.stationary[j]


def test_markov_samples_have_the_law_that_they_are_said_to_have() -> None:
    language = markov(length=64)
    x, y = language.batch(KEY, 0, 4096)
    assert np.array_equal(x[:, 1:], y[:, :-1])
    losses = -np.log(language.counts[x, y] / UNIT).mean(axis=1)
    error = losses.std() / math.sqrt(len(losses))
    assert abs(losses.mean() - language.floor) < 4 * error
    assert language.loss_of_law(x[:50], y[:50]) == pytest.approx(float(losses[:50].mean()), rel=1e-12)
    first = np.bincount(x[:, 0], minlength=16) / len(x)
    expected = np.array([float(p) for p in language.stationary])
    assert float((len(x) * (first - expected) ** 2 / expected).sum()) < 37.7  # 15 degrees of freedom, 99.9 %


def _cifar(folder: Path, count: int = 4, protocol: int = 2) -> None:
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        held = {b"batch_label": b"x", b"labels": rng.integers(0, 10, count).tolist(), b"data": data, b"filenames": []}
        (folder / name).write_bytes(pickle.dumps(held, protocol))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cifar10_is_read_from_its_python_version(tmp_path: Path, protocol: int) -> None:
    _cifar(tmp_path, protocol=protocol)
    data = datasets.make("cifar10", path=str(tmp_path))
    assert data.inputs == (3, 32, 32) and data.record["train"] == 20 and data.record["evaluation"] == 4
    held = pickle.loads((tmp_path / "test_batch").read_bytes())
    x, y = data.evaluation(4)
    assert np.array_equal(np.round(x * 255).astype(int).reshape(4, -1), held[b"data"]) and y.tolist() == held[b"labels"]


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("should-not-exist",)


@pytest.mark.parametrize(
    "held",
    [_Evil(), np.array([_Evil()]), {b"data": np.array(["x"])}, {b"data": print}],
    ids=["call", "objects", "texts", "function"],
)
def test_a_pickle_that_asks_for_more_than_arrays_is_refused(
    held: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no pickle of plain data and arrays"):
        safely_unpickled(pickle.dumps(held, 2), "data_batch_1")
    assert not (tmp_path / "should-not-exist").exists()


def test_cifar10_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="path is not given; admissible: the folder"):
        datasets.make("cifar10")
    with pytest.raises(FileNotFoundError, match="data_batch_1"):
        datasets.make("cifar10", path=str(tmp_path))
    _cifar(tmp_path)
    for held, wrong in (
        ({b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 1]}, "'data' is no array"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}, "'labels' is no list of 2"),
        ([1], "'data' is no array"),
    ):
        (tmp_path / "data_batch_3").write_bytes(pickle.dumps(held, 2))
        with pytest.raises(ValueError, match=f"data_batch_3: {wrong}"):
            datasets.make("cifar10", path=str(tmp_path))
    (tmp_path / "data_batch_3").write_bytes(b"\x80\x02cut")
    with pytest.raises(ValueError, match="data_batch_3 is no pickle"):
        datasets.make("cifar10", path=str(tmp_path))


@pytest.mark.parametrize("kind", ["uint16", "uint32", "npy"])
def test_token_files_are_read_where_they_are(tmp_path: Path, kind: str) -> None:
    numbers = np.arange(1000) % 300
    if kind == "npy":
        file = tmp_path / "tokens.npy"
        np.save(file, numbers.astype(np.uint16))
    else:
        file = tmp_path / "tokens.bin"
        numbers.astype(f"<u{int(kind[4:]) // 8}").tofile(file)
    options = {} if kind == "npy" else {"dtype": kind}
    data = datasets.make("tokens", path=str(file), vocabulary=300, length=10, **options)
    assert isinstance(data._train, np.memmap)
    x, y = data.batch(KEY, 0, 8)
    assert np.array_equal((x[:, :1] + np.arange(1, 11)) % 300, y) and data.record["train"] == 900
    assert data.evaluation(100)[0].tolist() == [((900 + 10 * i + np.arange(10)) % 300).tolist() for i in range(9)]
    with pytest.raises(ValueError, match=r"holds token 299 at place 299; admissible: 0\.\.198"):
        datasets.make("tokens", path=str(file), vocabulary=199, length=10, **options)


@pytest.mark.parametrize("number", [-1, 300, 2**63 + 5])
def test_a_number_that_is_no_token_is_found_before_any_batch(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.datasets.tokens.PIECE", 7)
    file, kind = tmp_path / "tokens.npy", np.uint64 if number > 0 else np.int64
    row = np.arange(100).astype(kind)
    np.save(file, row)
    assert datasets.make("tokens", path=str(file), vocabulary=300, length=5).evaluation(1)[0].tolist() == [
        [90, 91, 92, 93, 94]
    ]
    row[64] = number
    np.save(file, row)
    datasets.forget()
    with pytest.raises(ValueError, match=rf"tokens.npy holds token {number} at place 64; admissible: 0\.\.299"):
        datasets.make("tokens", path=str(file), vocabulary=300, length=5)


def test_token_files_say_what_is_wrong(tmp_path: Path) -> None:
    odd, table, objects = tmp_path / "odd.bin", tmp_path / "table.npy", tmp_path / "objects.npy"
    odd.write_bytes(b"abc")
    np.save(table, np.zeros((2, 3), np.uint16))
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    empty, real = tmp_path / "empty.npy", tmp_path / "real.npy"
    empty.write_bytes(b"")
    np.save(real, np.zeros(100))
    for path, message in (
        (empty, "empty.npy is no NumPy array of numbers"),
        (real, r"real.npy holds float64\[100\]; admissible: one axis of integers"),
        (odd, "odd.bin has 3 bytes; admissible: a multiple of 2"),
        (table, r"table.npy holds uint16\[2, 3\]; admissible: one axis"),
        (objects, "objects.npy is no NumPy array of numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            datasets.make("tokens", path=str(path))
    with pytest.raises(ValueError, match="dtype='int8'; admissible: uint16, uint32"):
        datasets.make("tokens", path=str(odd), dtype="int8")
    (tmp_path / "few.bin").write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match="the training part of 'tokens' has 9 tokens; more are needed"):
        datasets.make("tokens", path=str(tmp_path / "few.bin"))


def test_unknown_names_and_options() -> None:
    with pytest.raises(ValueError, match="dataset='mnist'; admissible: digits, teacher"):
        datasets.make("mnist")
    with pytest.raises(ValueError, match="option 'size' of dataset 'digits'; admissible: data_seed"):
        datasets.make("digits", size=3)
    with pytest.raises(ValueError, match=r"tokens=65 is outside 2\.\.64"):
        datasets.make("markov", tokens=65)
