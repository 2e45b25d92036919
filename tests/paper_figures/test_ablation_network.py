"""The ablation on a network: what is drawn, what is claimed, and which data would refute it."""

import copy
import itertools

import pytest

pytest.importorskip("matplotlib")

from experiments.study import StudyError
from paper_figures import style
from paper_figures.figure import ClaimError, check
from paper_figures.gallery import ablation_network as figure
from paper_figures.journals import JOURNALS
from paper_figures.results import MissingResults

BITS = [1, 2, 7]


def cell(norm, **about):
    return {**about, "norm": norm, "low": 0.9 * norm, "high": 1.1 * norm, "trace": [1.0, 2.0, 0.5]}


@pytest.fixture
def data():
    runs = {}
    for optimizer, arrays in figure.ARRAYS.items():
        drawn = [cell(1.25, array=a, bits=b) for a, b in itertools.product(arrays, BITS)]
        nearest = [cell({1: 20.0, 2: 5.0, 7: 1.0}[b], array="w", bits=b) for b in BITS]
        ratios = {what: {"stochastic": drawn, "nearest": nearest} for what in figure.MEASURES}
        runs[optimizer] = {"steps": [0, 1, 10], "wide": cell(0.3), "stochastic": drawn, **ratios}
    return copy.deepcopy({"width": 8, "batch": 16, "steps": 10, "seeds": 4, "bits": BITS, "runs": runs})


def test_the_caption_has_its_numbers_from_the_data(data):
    check(figure.FIGURE, data)
    data["runs"]["adam"]["loss"]["stochastic"][1]["norm"] = 0.75
    said = figure.caption(data)
    assert "a 64-8-8-8-10 network, 10 steps with minibatches of 16" in said
    assert "in any one array the loss is 0.8 to 1.2 times that of binary32" in said
    assert "5.0 times with Adam, 5.0 with Muon" in said
    assert "88 % confidence" in said


@pytest.mark.parametrize("name", ["siam", "icml"])
def test_every_array_has_its_line_in_every_panel(data, name):
    journal = JOURNALS[name]
    with style.journal_style(journal):
        drawn = figure.draw(data, journal)
        drawn.canvas.draw()
    assert drawn.get_size_inches()[0] == journal.page
    assert [len(axes.lines) for axes in drawn.axes] == [5, 6, 6, 4, 5, 5]
    assert [axes.get_xlabel() for axes in drawn.axes[:3]] == ["step", "mantissa bits $M$", "mantissa bits $M$"]
    for axes in drawn.axes:
        low, high = axes.get_ylim()
        assert axes.get_yscale() == "log" and low < 0.5 and high > 2
    assert drawn.axes[2].get_ylim()[1] > 20
    assert [line.get_markerfacecolor() for line in drawn.axes[2].lines][-1] == "white"
    assert [text.get_text() for text in drawn.legends[0].get_texts()][-2:] == ["binary32", "to nearest"]


@pytest.mark.parametrize(
    ("optimizer", "rounding", "norm", "says"),
    [
        ("adam", "stochastic", 2.1, "Adam: drawn stochastically no array"),
        ("muon_polar", "stochastic", None, "Muon: drawn stochastically no array"),
        ("adam", "nearest", 1.9, "Adam: weights of 2 bits to nearest double it"),
        ("muon_polar", "nearest", 1.9, "Muon: weights of 2 bits to nearest double it"),
    ],
)
def test_each_claim_can_fail(data, optimizer, rounding, norm, says):
    data["runs"][optimizer]["loss"][rounding][1]["norm"] = norm
    with pytest.raises(ClaimError, match=says):
        check(figure.FIGURE, data)


def test_one_bit_is_drawn_but_not_spoken_of(data):
    data["runs"]["adam"]["loss"]["stochastic"][0]["norm"] = 9.0
    check(figure.FIGURE, data)


def test_ratios_are_those_of_the_same_seed():
    row, wide = {"seed_loss": [2.0, 3.0, None], "bits": 4}, {"seed_loss": [1.0, 6.0, 1.0]}
    assert figure._against(row, wide, "loss") == {"seed_loss": [2.0, 0.5, None], "bits": 4}


def test_without_torch_it_says_so(monkeypatch, tmp_path):
    def refuse(problem):
        raise StudyError("problem", f"{problem}: torch is not installed")

    monkeypatch.setattr(figure.network_settings, "options", refuse)
    with pytest.raises(MissingResults, match=r"ablation_network cannot be computed: .*torch is not installed"):
        figure.compute(figure.FIGURE.parameters["quick"], tmp_path, lambda share: None)


@pytest.mark.slow
def test_it_is_computed_and_resumed(tmp_path):
    pytest.importorskip("torch")
    parameters = {**figure.FIGURE.parameters["quick"], "width": 4, "steps": 4, "seeds": 2, "bits": [2]}
    shares = []
    found = figure.compute(parameters, tmp_path, shares.append)
    assert [len(found["runs"][name]["stochastic"]) for name in figure.ARRAYS] == [4, 3]
    assert [len(found["runs"][name]["loss"]["nearest"]) for name in figure.ARRAYS] == [1, 1]
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert figure.compute(parameters, tmp_path, shares.append) == found
    with style.journal_style(JOURNALS["jmlr"]):
        figure.draw(found, JOURNALS["jmlr"])
