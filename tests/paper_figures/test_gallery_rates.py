"""The figure of rates on hand-made rows: widths that grow with T, lines, claims that fail."""

import pytest

pytest.importorskip("matplotlib")

from gallery_rows import altered, broken, floor

from experiments.schedules import width
from paper_figures import style
from paper_figures.gallery.rates import FIGURE, MODES, OPTIMIZERS, SHARES, WIDE, bits
from paper_figures.journals import JOURNALS

STEPS = [2**8, 2**12, 2**16]
EXPONENTS = {
    "nearest_even": {"0": 0.05, "1/4": 0.1, "1/2": -0.25, "3/4": -0.25},
    "stochastic": {"0": 0.0, "1/4": -0.125, "1/2": -0.25, "3/4": -0.25},
}


@pytest.fixture(scope="module")
def data():
    rows = []
    for optimizer in OPTIMIZERS:
        for mode in MODES:
            for steps in STEPS:
                keys = {"optimizer": optimizer, "rounding": mode, "steps": steps}
                rows.append(floor(steps**-0.25, mantissa_bits=WIDE, **keys))
                for share, exponent in EXPONENTS[mode].items():
                    scale = 1.5 if share == "1/2" else 1.0
                    rows.append(floor(scale * float(steps) ** exponent, mantissa_bits=bits(share, steps), **keys))
    return {"rows": rows, "steps": STEPS, "seeds": 8}


@pytest.mark.parametrize("share", SHARES)
def test_widths_are_those_of_the_study(share):
    for k in range(8, 21, 2):
        assert bits(share, 2**k) == width("mantissa", f"ceil(1 + {share} * log2(T))", 2**k, 0, 52)


def test_lines_limits_and_names(data):
    with style.journal_style(JOURNALS["siam"]):
        figure = FIGURE.draw(data, JOURNALS["siam"])
    panels = figure.axes
    assert len(panels) == 4
    for panel in panels:
        assert len(panel.lines) == len(SHARES) + 2  # 52 bits, and the guide
        assert {text.get_text() for text in panel.texts} == {"$T^{-1/4}$", *(f"$c={share}$" for share in SHARES)}
        assert len(panel.texts) == 1 + len(SHARES)
        assert panel.get_xlim()[0] < STEPS[0] < STEPS[-1] < panel.get_xlim()[1]


def test_caption_gives_exponents(data):
    text = FIGURE.caption(data)
    assert "52 bits -0.25 and -0.25" in text
    assert "at most 1.5 at $T = 2^{16}$" in text


@pytest.mark.parametrize(
    ("share", "mode", "value", "claim"),
    [
        (None, "stochastic", 0.5, "52 bits have the rate"),
        ("1/2", "nearest_even", 0.9, "c = 1/2 and 3/4 keep it"),
        ("0", "stochastic", 1e-3, "c = 1/4 and 0 do not"),
        ("1/4", "nearest_even", 0.5, "to nearest with c = 1/4 does not converge"),
        ("1/4", "stochastic", 0.45, "about half the exponent"),
        ("3/4", "stochastic", 0.08, "within 10 % of 52 bits"),
    ],
)
def test_claims_hold_and_fail_for_altered_data(data, share, mode, value, claim):
    assert not broken(FIGURE, data)
    wanted = {"rounding": mode, "steps": STEPS[-1], "mantissa_bits": WIDE if share is None else bits(share, STEPS[-1])}
    assert any(claim in text for text in broken(FIGURE, altered(data, {"rms_gradient": value}, **wanted)))
