"""The ablation on the matrix Rosenbrock function: what is drawn, what is claimed, and which data would refute it."""

import copy
import itertools

import pytest

pytest.importorskip("matplotlib")

from paper_figures import ablation, style
from paper_figures.figure import ClaimError, check
from paper_figures.gallery import ablation_rosenbrock as figure
from paper_figures.journals import JOURNALS

BITS = [4, 7, 10, 23]
WAYS = [(None, ""), ("w", "stochastic"), ("moment", "stochastic"), ("moment", "nearest_even")]


def cell(norm, **about):
    return {**about, "norm": norm, "low": 0.9 * norm, "high": 1.1 * norm, "trace": [3.0, 2.0, norm]}


@pytest.fixture
def data():
    runs, sweeps = {}, {}
    for optimizer, arrays in figure.ARRAYS.items():
        norms = {"w": 1e3, "g": 1e-6, "m": 1e-6, "v": 1e-6}
        cells = [
            cell(norms[a] * (2.0**-b if a == "w" else 1), array=a, bits=b) for a, b in itertools.product(arrays, BITS)
        ]
        runs[optimizer] = {"steps": [0, 1, 10], "wide": cell(1e-6), "cells": cells}
        moment = figure.DECAYS[optimizer][1]
        sweeps[optimizer] = [
            cell(1.0 if array == "w" else 1e-2 if how == "nearest_even" and decay == 0.99 else 1e-6,
                 decay=decay, array=moment if array == "moment" else array, rounding=how)
            for decay in (0.9, 0.99, 0.999) for array, how in WAYS
        ]  # fmt: skip
    return {"rows": 4, "columns": 8, "steps": 10, "seeds": 6, "bits": BITS, "runs": runs, "sweeps": sweeps}


def test_the_caption_has_its_numbers_from_the_data(data):
    check(figure.FIGURE, data)
    said = figure.caption(data)
    assert r"$4 \times 8$" in said
    assert r"Adam $9.8 \times 10^{5}$ to $6.2 \times 10^{7}$ times for $w$, against 1.0 to 1.0 times" in said
    assert r"at $\beta_2 = 0.99$ the norm is $1.0 \times 10^{4}$ times that" in said
    assert "97 % confidence" in said


@pytest.mark.parametrize("name", ["siam", "icml"])
def test_every_array_has_its_line_in_every_panel(data, name):
    journal = JOURNALS[name]
    with style.journal_style(journal):
        drawn = figure.draw(data, journal)
        drawn.canvas.draw()
    assert drawn.get_size_inches()[0] == journal.page
    assert [len(axes.lines) for axes in drawn.axes] == [5, 5, 4, 4, 4, 4]
    assert [axes.get_xlabel() for axes in drawn.axes[:3]] == ["step", "mantissa bits $M$", r"$1 - \beta_2$"]
    assert drawn.axes[5].get_xlabel() == r"$1 - \beta_1$"
    assert {axes.get_yscale() for axes in drawn.axes} == {"log"}
    low, high = drawn.axes[0].get_ylim()
    assert low < 0.9e-6 and high > 1e3 / 2**4
    decay = drawn.axes[2]
    assert decay.get_xlim()[0] > decay.get_xlim()[1]  # to 1 on the right
    assert [line.get_markerfacecolor() for line in decay.lines][-1] == "white"
    assert [text.get_text() for text in drawn.legends[0].get_texts()][-2:] == ["binary64", "to nearest"]


def change(data, optimizer, array, bits, norm):
    next(x for x in data["runs"][optimizer]["cells"] if x["array"] == array and x["bits"] == bits)["norm"] = norm


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda d: change(d, "adam", "w", 10, 5e-6), "Adam: weights of at most 10 bits raise the norm tenfold"),
        (lambda d: change(d, "muon", "w", 4, 5e-6), "Muon: weights of at most 10 bits raise the norm tenfold"),
        (lambda d: change(d, "adam", "v", 7, 4e-6), "Adam: no other array of 4 bits or more"),
        (lambda d: change(d, "muon", "m", 4, None), "Muon: no other array of 4 bits or more"),
        (lambda d: d["sweeps"]["adam"][1].update(norm=1e-7), "Adam: at every decay rate"),
        (lambda d: d["sweeps"]["muon"][2].update(norm=2.0), "Muon: at every decay rate"),
        (lambda d: d["sweeps"]["adam"][7].update(norm=2e-6), "v to nearest changes the norm a hundredfold"),
    ],
)
def test_each_claim_can_fail(data, alter, says):
    altered = copy.deepcopy(data)
    alter(altered)
    with pytest.raises(ClaimError, match=says):
        check(figure.FIGURE, altered)


def test_a_cell_is_the_median_and_the_range_of_its_seeds():
    row = {"outcome": "floor", "trace_rms_gradient": [1.0], "seed_rms_gradient": [3.0, 1.0, 2.0]}
    assert ablation.cells_of([row], [{"bits": 4}]) == [
        {"bits": 4, "norm": 2.0, "low": 1.0, "high": 3.0, "trace": [1.0]}
    ]
    ended = ablation.cells_of([row | {"seed_rms_gradient": [1.0, float("nan"), None]}], [{}])[0]
    assert ended["norm"] is ended["low"] is ended["high"] is None
    with pytest.raises(RuntimeError, match=r"'bits': 4.*no memory"):
        ablation.cells_of([row | {"outcome": "failed", "reason": "no memory"}], [{"bits": 4}])


@pytest.mark.slow
def test_it_is_computed_and_resumed(tmp_path):
    parameters = {"rows": 2, "columns": 2, "steps": 20, "seeds": 2, "bits": [7]}
    parameters |= {"beta1": [0.8, 0.9], "beta2": [0.9, 0.99]}
    shares = []
    found = figure.compute(parameters, tmp_path, shares.append)
    assert [len(found["runs"][name]["cells"]) for name in ("adam", "muon")] == [4, 3]
    assert [len(found["sweeps"][name]) for name in ("adam", "muon")] == [8, 8]
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert figure.compute(parameters, tmp_path, shares.append) == found
    with style.journal_style(JOURNALS["jmlr"]):
        figure.draw(found, JOURNALS["jmlr"])
