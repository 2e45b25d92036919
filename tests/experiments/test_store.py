"""The store: whole files or none, damage noticed, types kept, nothing overwritten by a failure."""

import math
import os

import polars as pl
import pytest

from experiments import store


@pytest.fixture
def cells(small):
    return small.cells()


@pytest.fixture
def out(tmp_path):
    store.prepare(tmp_path)
    return tmp_path


def test_a_row_comes_back_as_it_was(out, cells, fakes):
    row = fakes.row(cells[0]) | {"bound": None, "loss_gap": math.inf, "frozen_share": 1}
    store.write_cell(out, cells[0], row)
    rows, damaged = store.read_finished(out, cells)
    assert rows == {cells[0].key: row}
    assert damaged == []


def test_every_file_carries_configuration_versions_and_seed(out, cells, fakes, small):
    path = store.write_cell(out, cells[0], fakes.row(cells[0]))
    facts = store.read_facts(path)
    assert facts["cell"]["optimizer"] == "sgd"
    assert facts["seed"] == 0
    assert {"code", "python", "numpy", "numba", "fpsim", "machine"} <= set(facts["versions"])
    merged = store.write_scan(out, small, [fakes.row(cells[0])], len(cells))
    facts = store.read_facts(merged)
    assert (facts["study"]["mantissa"], facts["cells"], facts["finished"]) == ([2, 3, 4], 12, 1)


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "renamed", "text"])
def test_damage_is_reported_and_the_cell_is_missing(out, cells, fakes, damage):
    path = store.write_cell(out, cells[0], fakes.row(cells[0]))
    data = path.read_bytes()
    if damage == "renamed":
        path.unlink()
        store.write_cell(out, cells[1], fakes.row(cells[1])).rename(path)
    elif damage == "flipped":
        frame = pl.read_parquet(path).with_columns(rms_gradient=pl.col("rms_gradient") * 2)
        frame.write_parquet(path, metadata=pl.read_parquet_metadata(path))
    else:
        path.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "text": b"PAR1 no"}[damage])
    rows, damaged = store.read_finished(out, cells)
    assert rows == {}
    assert len(damaged) == 1
    assert str(path) in damaged[0]
    assert "\n" not in damaged[0]


def test_a_failed_cell_is_kept_but_not_finished(out, cells):
    path = store.write_cell(out, cells[0], store.failed_row(cells[0], "ValueError: no"), "the traceback")
    assert store.read_finished(out, cells) == ({}, [])
    assert store.read_facts(path)["traceback"] == "the traceback"
    assert store.read_rows(path)[0]["reason"] == "ValueError: no"


def test_columns_of_nulls_keep_their_types(out, cells, small):
    merged = store.write_scan(out, small, [store.failed_row(cell, "no") for cell in cells], len(cells))
    assert pl.read_parquet(merged).schema == pl.Schema(store.SCHEMA)
    assert len(store.read_rows(out)) == len(cells)


def test_rows_with_other_columns_are_refused(out, cells, fakes):
    row = fakes.row(cells[0])
    with pytest.raises(ValueError, match="surprise"):
        store.write_cell(out, cells[0], row | {"surprise": 1})
    with pytest.raises(ValueError, match="ratio"):
        store.write_cell(out, cells[0], {k: v for k, v in row.items() if k != "ratio"})


def test_a_row_that_does_not_fit_becomes_a_failed_cell(out, cells, fakes):
    kept = store.keep_cell(out, cells[0], fakes.row(cells[0]) | {"bound": "high"})
    assert kept["outcome"] == store.FAILED
    assert store.read_rows(out / "cells" / f"{cells[0].key}.parquet") == [kept]


def test_a_write_that_fails_leaves_the_old_file(out, cells, fakes, monkeypatch):
    path = store.write_cell(out, cells[0], fakes.row(cells[0]))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(store.StoreError, match="No space left on device"):
        store.write_cell(out, cells[0], fakes.row(cells[0]))
    assert path.read_bytes() == before
    assert list((out / "cells").iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(store.StoreError, match="cannot be written"):
        store.prepare(tmp_path / "file")
    with pytest.raises(store.StoreError, match="cannot be written"):
        store.prepare(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"
