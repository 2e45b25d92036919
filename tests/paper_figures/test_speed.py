"""The figure of speed: what the shipped records say, and what would make its claims false."""

import copy
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from paper_figures import style
from paper_figures.figure import ClaimError, check
from paper_figures.gallery import speed
from paper_figures.journals import JOURNALS


@pytest.fixture(scope="module")
def data():
    return speed.compute(speed.PARAMETERS, Path("unused"), lambda share: None)


def test_the_shipped_records_bear_the_caption_out(data):
    check(speed.FIGURE, data)
    assert set(data["peers"]) >= {"copy", "fpsim", "torch"}
    said = speed.caption(data)
    assert "nan" not in said
    assert f"{max(r[0] for r in data['rounding'].values()):.2f} times" in said


def test_every_number_is_drawn(data):
    journal = JOURNALS["siam"]
    with style.journal_style(journal):
        figure = speed.draw(data, journal)
    rounding, peers, scans = figure.axes
    assert figure.get_size_inches()[0] == journal.page
    assert [len(line.get_xdata()) for line in rounding.lines[1:]] == [len(speed.MODES)] * 2
    assert [list(line.get_xdata()) for line in peers.lines[: len(speed.FORMATS)]] == [
        [times[fmt] for times in data["peers"].values()] for fmt in speed.FORMATS
    ]
    assert [tick.get_text() for tick in peers.get_yticklabels()] == list(data["peers"])
    assert peers.get_xscale() == "log"
    assert len(scans.lines) == 3 * len(speed.SCANS)
    assert {axes.get_xlabel() for axes in figure.axes} == {
        "time / time of a copy",
        "ns per number, one core",
        "ns per operation",
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["rounding"].update(up=[1.3, 1.0]), r"at most 1\.25 times a copy"),
        (lambda d: d["peers"]["fpsim"].update(bfloat16=1.0), "beside its peers"),
        (lambda d: d["peers"]["torch"].update(bfloat16=0.01), "no other library is faster"),
        (lambda d: d["scans"]["toward_zero m 0..23"].update(scan=9.0), "written by hand"),
    ],
)
def test_each_claim_can_fail(data, change, says):
    altered = copy.deepcopy(data)
    change(altered)
    with pytest.raises(ClaimError, match=says):
        check(speed.FIGURE, altered)


def test_a_row_that_is_missing_is_named(data):
    with pytest.raises(ValueError, match="0 rows of round 'bfloat16 float16 up'; exactly 1"):
        speed._one({"rows": []}, "round", "bfloat16 float16 up")
