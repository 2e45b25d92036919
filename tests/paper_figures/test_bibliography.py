"""Every named format, mode, optimizer and theorem has something to cite, or an explicit none; BibTeX that parses."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.networks import OPTIMIZERS as OF_NETWORKS
from experiments.registry import own_steps
from fpsim import block_formats, formats
from fpsim.optim.matrix import METHODS
from fpsim.rounding import CODES
from paper_figures.bibliography import Used, bibtex, reasons, used_by
from paper_figures.bibliography import sources as cited
from paper_figures.bibliography.entries import ENTRIES
from theory.theorems import prose, theorems

OPTIM = Path(formats.__file__).parent / "optim"
NUMBER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def test_every_name_of_the_package_has_an_entry_or_an_explicit_none():
    assert set(cited.FORMATS) == {*formats.NAMED, *block_formats.NAMED}
    assert set(cited.MODES) == {*CODES, "stochastic"}
    assert set(cited.OPTIMIZERS) == {*own_steps(), *OF_NETWORKS, *METHODS}
    assert set(cited.THEOREMS) == set(theorems())
    assert [name for name, keys in cited.FORMATS.items() if keys == cited.NONE] == ["float8_e4m3b11fnuz", "float8_e3m4"]
    for table in (cited.MODES, cited.OPTIMIZERS, cited.THEOREMS):
        assert all(table.values())


def test_every_key_has_an_entry_and_every_entry_is_used():
    tables = (cited.FORMATS, cited.MODES, cited.OPTIMIZERS, cited.THEOREMS)
    keys = {key for table in tables for found in table.values() for key in found}
    assert keys == {*ENTRIES, cited.FPSIM}


def numbers(keys):
    return {ENTRIES[key].fields.get("eprint") for key in keys if key != cited.FPSIM}


@pytest.mark.parametrize("name", theorems())
def test_what_a_theorem_says_of_its_sources_is_cited(name):
    told = f"{theorems()[name].source} {prose(name)}"
    missing = set(NUMBER.findall(told)) - numbers(cited.THEOREMS[name])
    assert not missing
    assert (cited.FPSIM in cited.THEOREMS[name]) == ("derived here" in theorems()[name].source)


def test_papers_that_optimizers_name_are_entries():
    files = [*OPTIM.glob("*.py"), *(OPTIM / "matrix").glob("*.py")]
    told = {number for path in files for number in NUMBER.findall(path.read_text(encoding="utf-8"))}
    # The code whose defaults Shampoo takes: a source of numbers, not of the method.
    assert told - {"2509.23500"} <= numbers(ENTRIES)


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_is_complete_and_plain(key):
    entry = ENTRIES[key]
    needs = {"article": "journal", "inproceedings": "booktitle", "misc": "title", "book": "publisher"}
    assert {"author", "title", needs[entry.kind]} <= set(entry.fields)
    assert entry.fields.get("year", "2000").isdigit() and 1900 < int(entry.fields.get("year", 2000)) < 2030
    for value in entry.fields.values():
        assert value.isascii() and value.count("{") == value.count("}")
        assert "http" not in value
    for author in entry.fields["author"].split(" and "):
        assert author == "others" or author.startswith("{") or author.count(",") == 1
    if "eprint" in entry.fields:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", entry.fields["eprint"])
        assert entry.fields["archiveprefix"] == "arXiv"


def parsed(text):
    """key -> fields, of the subset of BibTeX that is written; fails on anything else."""
    found = {}
    for block in text.split("\n\n"):
        lines = [line for line in block.strip().splitlines() if not line.startswith("%")]
        if not lines:
            continue
        head = re.fullmatch(r"@(\w+)\{(\w+),", lines[0])
        assert head and lines[-1] == "}" and head[2] not in found
        pairs = [re.fullmatch(r"  (\w+) *= \{(.*)\},", line) for line in lines[1:-1]]
        found[head[2]] = {pair[1]: pair[2] for pair in pairs}
    return found


def cell(**changes):
    plain = {"optimizer": "adam", "exponent_bits": 8, "mantissa_bits": 7, "rounding": "nearest_even", "overrides": ()}
    return SimpleNamespace(**plain | changes)


def test_bibtex_of_a_study():
    cells = [cell(), cell(optimizer="mine", rounding="stochastic", overrides=(("v", "e5m10", "to_odd"),))]
    used = used_by(cells, ["T12", None, "T12", "X1"], ["0.1.0+ab_c"])
    text = bibtex(used)
    assert text == bibtex(used)
    found = parsed(text)
    of_formats, of_modes = {"bfloat16", "ieee754"}, {"croci2022", "p3109", "boldo2008"}
    assert set(found) == {"fpsim", *of_formats, *of_modes, "kingma2015", "defossez2022"}
    assert found["fpsim"]["note"] == r"version 0.1.0+ab\_c"
    assert "% the simulation; theorem T12\n" in text
    assert "% theorem T12, X1\n" in text
    assert text.endswith("in no publication): optimizer mine\n")


def test_names_by_which_formats_and_modes_are_found():
    assert cited.of_format("float16") == cited.of_format("e5m10") == ("ieee754",)
    assert cited.of_format("e3m4") == cited.NONE
    assert cited.of_format("mxfp8_e4m3") == ("mx", "fp8")
    assert cited.of_mode("stochastic8C") == cited.of_mode("stochastic")
    with pytest.raises(ValueError, match=r"'bf16' is unknown.*mx9"):
        cited.of_format("bf16")
    with pytest.raises(ValueError, match="'nearest'; admissible: nearest_even"):
        cited.of_mode("nearest")
    assert reasons(Used())[0] == {"fpsim": ["the simulation"]}
