"""The store: whole files or none, damage noticed, types kept, nothing overwritten by a failure."""

import math
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from experiments import store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cells(small):
    return small.cells()


def keys(cells):
    return [cell.key for cell in cells]


@pytest.fixture
def out(tmp_path):
    store.prepare(tmp_path)
    return tmp_path


def test_a_row_comes_back_as_it_was(out, cells, fakes):
    row = fakes.row(cells[0]) | {"bound": None, "loss_gap": math.inf, "frozen_share": 1}
    store.write_cell(out, cells[0], row)
    kept = store.look(out, keys(cells))
    assert kept == store.Kept(finished={cells[0].key})
    assert store.read_cells(out, [cells[0].key]).to_dicts() == [row]


def test_every_file_carries_configuration_versions_and_seed(out, cells, fakes, small):
    path = store.write_cell(out, cells[0], fakes.row(cells[0]))
    facts = store.read_facts(path)
    assert facts["cell"]["optimizer"] == "sgd"
    assert facts["seed"] == 0
    assert {"code", "python", "numpy", "numba", "fpsim", "machine"} <= set(facts["versions"])
    merged = store.write_scan(out, small, [fakes.row(cells[0])], len(cells))
    facts = store.read_facts(merged)
    assert (facts["study"]["mantissa"], facts["cells"], facts["finished"]) == ([2, 3, 4], 12, 1)


@pytest.mark.parametrize("damage", ["empty", "truncated", "one byte short", "one byte more", "text", "changed"])
def test_damage_is_reported_and_the_cell_is_missing(out, cells, fakes, damage):
    path = store.write_cell(out, cells[0], fakes.row(cells[0]))
    data = path.read_bytes()
    if damage == "changed":  # by somebody who keeps the metadata
        frame = pl.read_parquet(path).with_columns(rms_gradient=pl.col("rms_gradient") * 2)
        frame.write_parquet(path, metadata=pl.read_parquet_metadata(path))
    else:
        damaged = {"empty": b"", "truncated": data[: len(data) // 2], "text": b"PAR1 no", "one byte more": data + b"\0"}
        path.write_bytes(damaged.get(damage, data[:-1]))
    kept = store.look(out, keys(cells))
    assert not kept.finished
    (line,) = kept.damaged
    assert line.startswith(f"{path} is damaged and its cell is computed again (")
    assert "\n" not in line


def test_every_flipped_bit_is_noticed(out, cells, fakes):
    path = store.write_cell(out, cells[0], fakes.row(cells[0]))
    data = path.read_bytes()
    for place in range(0, len(data), 7):  # 7 is prime to every field's size
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        assert len(store.look(out, keys(cells)).damaged) == 1, place


def test_the_file_of_another_cell_is_noticed(out, cells, fakes):
    path = store.write_cell(out, cells[1], fakes.row(cells[1]))
    path.rename(path.with_stem(cells[0].key))
    (line,) = store.look(out, keys(cells)).damaged
    assert "it holds another cell" in line


def test_a_failed_cell_is_kept_but_not_finished(out, cells):
    path = store.write_cell(out, cells[0], store.failed_row(cells[0], "ValueError: no"), "the traceback")
    assert store.look(out, keys(cells)) == store.Kept(failed={cells[0].key})
    assert store.read_facts(path)["traceback"] == "the traceback"
    assert store.read_rows(path)[0]["reason"] == "ValueError: no"


def test_the_record_of_a_window_is_kept_beside_the_row_and_left_out_of_tables(out, cells, fakes, small):
    record = bytes(range(256)) * 40
    row = fakes.row(cells[0])
    store.keep_cells(out, cells[:2], [row | {"record": record}, fakes.row(cells[1])])
    facts, kept = store.read_record(out, cells[0].key)
    assert (kept, facts["cell"]["mantissa_bits"]) == (record, cells[0].mantissa_bits)
    assert store.read_record(out, cells[1].key)[1] is None
    assert store.read_cells(out, [cells[0].key]).to_dicts() == [row]
    merged = store.write_scan(out, small, [row | {"record": record}], 1)
    assert "record" not in pl.read_parquet_schema(merged)
    path = out / "cells" / f"{cells[0].key}.parquet"
    assert store.read_rows(path) == [row]
    path.write_bytes(path.read_bytes().replace(record[:200], bytes(200)))
    with pytest.raises(store.StoreError, match="digest does not match"):
        store.read_record(out, cells[0].key)
    with pytest.raises(store.StoreError, match="cannot be read"):
        store.read_record(out, "absent")


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
    rows = [fakes.row(cell) for cell in cells]
    rows[1]["bound"] = "high"
    kept = store.keep_cells(out, cells, rows)
    assert [row["outcome"] == store.FAILED for row in kept] == [i == 1 for i in range(len(cells))]
    assert store.read_cells(out, keys(cells)).to_dicts() == kept
    assert store.look(out, keys(cells)).failed == {cells[1].key}


def test_mappings_are_columns_of_text(out, cells, fakes):
    row = fakes.row(cells[0]) | {"warnings": {"b": (1, 2.5), "a": None}}
    store.write_cell(out, cells[0], row)
    assert store.read_cells(out, [cells[0].key])["warnings"].to_list() == ['{"a":null,"b":[1,2.5]}']


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


def test_what_a_crash_left_is_ignored_and_swept_up_an_hour_later(out, cells, fakes):
    path = store.write_cell(out, cells[0], fakes.row(cells[0]))
    old, young = (out / "cells" / f".{cells[1].key}-{n}.tmp" for n in ("00000000", "11111111"))
    for left in (old, young):
        left.write_bytes(path.read_bytes()[:100])
    os.utime(old, (0, 0))
    store.prepare(out)
    assert sorted((out / "cells").iterdir()) == sorted([path, young])
    assert store.look(out, keys(cells)).finished == {cells[0].key}
    assert pl.read_parquet(out / "cells" / "*.parquet").height == 1


def test_the_files_of_a_folder_are_one_table(out, cells, fakes):
    store.keep_cells(out, cells, [fakes.row(cell) for cell in cells[:-1]] + [store.failed_row(cells[-1], "no")])
    frame = pl.scan_parquet(out / "cells" / "*.parquet").collect()
    assert frame.schema == pl.Schema(store.CELL_SCHEMA)
    assert frame.drop("record").sort("key").equals(store.read_cells(out, sorted(keys(cells))))


@pytest.mark.parametrize("name", ["pandas", "duckdb"])
def test_others_read_them_as_one_table_too(out, cells, fakes, name):
    for needed in (name, *(("pyarrow",) if name == "pandas" else ())):
        pytest.importorskip(needed, reason=f"{needed} is not needed otherwise")
    reader = sys.modules[name]
    store.keep_cells(out, cells, [fakes.row(cell) for cell in cells])
    (out / "cells" / f".{cells[0].key}-00000000.tmp").write_bytes(b"PAR1 half a file")  # what a crash leaves
    if name == "pandas":
        found = reader.read_parquet(out / "cells")["key"].to_list()
    else:
        found = [key for (key,) in reader.sql(f"SELECT key FROM '{out}/cells/*.parquet'").fetchall()]
    assert sorted(found) == sorted(keys(cells))


def test_reading_results_executes_nothing(out, cells, fakes, small):
    """No byte of a result is unpickled or compiled, whatever it says."""
    rows = [fakes.row(cell) | {"reason": "__import__('os').system('false')"} for cell in cells]
    store.keep_cells(out, cells, rows)
    store.write_scan(out, small, rows, len(cells))
    code = f"""
import sys, json
from experiments import store
from experiments.drivers import Plan, read_plan, write_plan
from pathlib import Path
out, keys = Path({str(out)!r}), {keys(cells)!r}
store.read_rows(out)  # imports what it needs
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
write_plan(out, Plan({{}}, keys))
assert read_plan(out).keys == keys
assert len(store.look(out, keys).finished) == len(keys)
assert store.read_rows(out) == store.read_cells(out, keys).to_dicts()
store.read_facts(out / "scan.parquet")
forbidden = {{"pickle.find_class", "exec", "compile", "marshal.loads", "os.system", "subprocess.Popen"}}
assert not forbidden & set(seen), seen
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
