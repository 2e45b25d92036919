"""The figure of floors on hand-made rows: panels, markers, lines that stop where no bound applies, claims that fail."""

import math

import pytest

pytest.importorskip("matplotlib")

from gallery_rows import altered, broken, floor

from paper_figures import style
from paper_figures.gallery.floors import FIGURE, MODES, OPTIMIZERS, PROBLEMS
from paper_figures.journals import JOURNALS


@pytest.fixture(scope="module")
def data():
    rows = []
    for optimizer in OPTIMIZERS:
        for problem in PROBLEMS:
            for mode in MODES:
                for m in range(2, 9):
                    noise = 0.0 if optimizer == "sgd" else 0.5
                    at = (8.0 if mode == "nearest_even" else 1.0) * 2.0**-m
                    value = math.hypot(noise, 0.0 if noise and m == 8 else at)
                    told = {"optimizer": optimizer, "problem": problem, "rounding": mode, "mantissa_bits": m}
                    applies = optimizer != "adam" or m > 3
                    told |= {"bound": 2 * value if applies else None, "theorem": "T8", "steps": 50}
                    rows.append(floor(value, verdict="holds" if applies else "not applicable", **told))
    return {"rows": rows, "seeds": 8}


def test_panels_limits_and_what_is_drawn(data):
    with style.journal_style(JOURNALS["siam"]):
        figure = FIGURE.draw(data, JOURNALS["siam"])
    panels = figure.axes
    assert figure.get_size_inches()[0] == JOURNALS["siam"].page
    assert [panel.get_title() for panel in panels] == ["SGD", "RMSprop", "Adam", "", "", ""]
    assert all(len(panel.lines) == 4 for panel in panels)  # markers and bound, for two roundings
    assert panels[0].get_xlim() == (1.2, 8.8)
    assert panels[0].get_ylim() == panels[2].get_ylim()
    bound = panels[2].lines[1].get_ydata()
    assert [math.isnan(y) for y in bound] == [True, True, *[False] * 5]
    assert {text.get_text() for text in panels[0].texts} >= {"to nearest", "stochastic"}


def test_caption_counts_bounds_and_gives_their_ratio(data):
    text = FIGURE.caption(data)
    assert "76 of 84 runs have a bound" in text
    assert "SGD 2.00 to nearest and 2.00 stochastic" in text
    assert "lower by a median factor of 8 (quadratic) and 8 (rational)" in text


@pytest.mark.parametrize(
    ("change", "wanted", "claim"),
    [
        ({"verdict": "violated"}, {"optimizer": "adam", "mantissa_bits": 5}, "no run violates a bound"),
        ({"bound": 1e-9}, {"optimizer": "sgd", "mantissa_bits": 5}, "measured floors lie below their bounds"),
        ({"stationary": False}, {"optimizer": "sgd", "mantissa_bits": 5}, "has not settled"),
        ({"rms_gradient": 1.0}, {"optimizer": "sgd", "mantissa_bits": 8}, "SGD's floor halves with each bit"),
        ({"rms_gradient": 9.0}, {"optimizer": "sgd", "rounding": "stochastic"}, "stochastic rounding lowers"),
        ({"rms_gradient": 1.0}, {"optimizer": "adam", "rounding": "stochastic"}, "the noise's floor alone"),
    ],
)  # fmt: skip
def test_claims_hold_and_fail_for_altered_data(data, change, wanted, claim):
    assert not broken(FIGURE, data)
    assert any(claim in text for text in broken(FIGURE, altered(data, change, **wanted)))
