"""The number line shows every value once, where it lies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import fpsim
from fpsim.formats import NAMED
from fpsim.number_line import number_line

FLUSHED = {
    "nosubnormals": fpsim.Format(4, 3, subnormals=False),
    "flush": replace(fpsim.format("e4m3"), tiny="flush"),
}
SMALL = {name: fmt for name, fmt in NAMED.items() if fmt.bits <= 16} | FLUSHED


def finite(fmt):
    """All different finite values, by decoding every code."""
    values = np.unique(fpsim.decode(np.arange(1 << fmt.bits), fmt))
    values = values[np.isfinite(values)]
    return values[np.abs(values) >= fmt.smallest_normal] if fmt.tiny == "flush" else values


def parts(text):
    title, marks, axis, labels, legend = text.split("\n")
    assert legend.startswith("|: one value") and set(axis) <= set("+-")
    assert max(len(marks), len(labels)) <= len(axis)
    return title, marks.ljust(len(axis)), axis, labels


def drawn(marks):
    return sum({" ": 0, "|": 1}.get(mark) if mark in " |" else int(mark) for mark in marks)


@pytest.mark.parametrize("name", SMALL)
def test_every_value_is_counted_once(name):
    fmt = SMALL[name]
    values = finite(fmt)
    if fmt.tiny == "flush":
        values = np.append(values, 0.0)
    assert fmt.count == len(values)
    whole = parts(number_line(fmt, "linear"))
    assert whole[0].startswith(f"{fmt.name}: {len(values)} of {len(values)} values, linear")
    positive = np.count_nonzero(values > 0)
    assert f": {positive} of " in number_line(fmt, "log")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("width", [41, 100])
def test_marks_are_where_the_values_are(name, width):
    fmt = SMALL[name]
    values = finite(fmt)
    for high in (fmt.max, fmt.max / 3, 20 * fmt.smallest_subnormal):
        low = -high if fmt.signed else 0.0
        _, marks, _, _ = parts(number_line(fmt, "linear", high=high, width=width))
        shown = values[(values >= low) & (values <= high)]
        exact = (shown - low) / (high - low) * (width - 1)
        columns = np.rint(exact).astype(int)
        clear = np.abs(exact - columns) < 0.49  # a value between two columns may be drawn in either
        assert all(marks[column] != " " for column in columns[clear])
        if clear.all() and "#" not in marks and fmt.tiny == "round":
            assert drawn(marks) == len(shown)


def test_a_small_format_by_hand():
    lines = number_line("float4_e2m1fn", width=49).split("\n")
    assert lines[1:4] == [
        "|       |   |   | | | | | | | | |   |   |       |",
        "+-----------+-----------+-----------+-----------+",
        "-6          -3          0           3           6",
    ]
    lines = number_line("float8_e8m0fnu", low=0.25, high=16.0, width=25).split("\n")
    assert lines[1] == "|   |   |   |   |   |   |"
    assert lines[3].split() == ["2^0", "2^3"]


def test_the_widest_formats():
    for name in ("binary64", "binary32", "bfloat16"):
        count = fpsim.format(name).count
        assert f": {count} of {count} values" in number_line(name, "linear")
    title, marks, _, _ = parts(number_line("binary64"))
    assert marks == 100 * "#"
    assert f": {0x7FEFFFFFFFFFFFFF} of " in title
    middle = parts(number_line("binary64", "linear", low=-1.0, high=1.0, width=21))
    assert f": {2 * 0x3FF0000000000000 + 1} of " in middle[0]


def test_scale_that_is_chosen():
    assert "linear" in number_line("float6_e3m2fn")
    assert "logarithmic" in number_line("float8_e4m3fn")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scale": "log2"}, "scale='log2'; admissible: linear, log"),
        ({"low": 1.0, "high": 1.0}, "admissible: finite numbers, low < high"),
        ({"high": math.inf}, "high=inf; admissible: finite numbers"),
        ({"scale": "log", "low": 0.0}, "low=0.0; admissible on a logarithmic scale: positive"),
        ({"low": "a"}, "low='a', high=57344.0; admissible: finite numbers"),
        ({"high": 2**2000}, "admissible: finite numbers"),
        ({"low": 1j}, "low=1j"),
        ({"width": 19}, "width=19: an integer in 20..1000"),
    ],
)
def test_errors_name_what_is_wrong(options, says):
    with pytest.raises(ValueError, match=says):
        number_line("e5m2", **options)


def test_the_verb_draws_it(capsys):
    from experiments.cli import main

    assert main(["formats", "float4_e2m1fn", "--line"]) == 0
    assert "15 of 15 values, linear" in capsys.readouterr().out
    assert main(["formats", "float8_e5m2", "--line", "linear", "--zoom", "0.001"]) == 0
    assert "-0.001 " in capsys.readouterr().out
    for words, says in (
        (["e5m2", "--line", "cubic"], "--line: scale='cubic'; admissible: linear, log"),
        (["e5m2", "--zoom", "near"], "--zoom: 'near' is no number"),
        (["e5m2", "--zoom", "-1"], "--zoom: low="),
        (["--line"], "--line and --zoom need a NAME"),
    ):
        assert main(["formats", *words]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("fpsim formats: error: " + says) and printed.err.count("\n") == 1
