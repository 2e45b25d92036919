"""The anatomy of a floor on hand-made rows: cases and slots, markers, claims that fail."""

import pytest

pytest.importorskip("matplotlib")

from gallery_rows import altered, broken, floor

from experiments import Study
from paper_figures import style
from paper_figures.gallery.anatomy import FIGURE, KINDS, MODES, OPTIMIZERS, _cases
from paper_figures.journals import JOURNALS


@pytest.fixture(scope="module")
def data():
    rows = []
    for optimizer in OPTIMIZERS:
        for mode in MODES:
            for case in _cases(optimizer):
                high = case in ("all", "only weights") or (case.startswith("but") and case != "but weights")
                value = 0.05 if case == "only constants" and optimizer != "sgd" else 1.0 if high else 0.1
                rows.append(floor(value, optimizer=optimizer, rounding=mode, case=case))
    return {"rows": rows, "mantissa": 4, "seeds": 8}


def test_panels_and_markers(data):
    with style.journal_style(JOURNALS["siam"]):
        figure = FIGURE.draw(data, JOURNALS["siam"])
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == list(OPTIMIZERS.values())
    for panel, optimizer in zip(panels, OPTIMIZERS, strict=True):
        # a bar and a marker a case and rounding, but for the dashed line of "none" and the line below "all"
        assert len(panel.lines) == 2 * 2 * (len(_cases(optimizer)) - 1) + 2
        assert [text.get_text() for text in panel.texts].count("none") == len(KINDS) - (len(_cases(optimizer)) - 2) // 2
    assert [label.get_text() for label in panels[0].get_yticklabels()][:2] == ["all of them", "weights $w$"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_slot_belongs_to_a_kind_but_for_the_problem_itself(optimizer):
    tables = {slot: "e11m4" for kind in _cases(optimizer)["all"] for slot in KINDS[kind][1]}
    study = Study(optimizer=optimizer, problem="quadratic", mantissa=52, exponent=11, overrides=[tables])
    study.check(study.cells())  # every pattern has slots


def test_caption_gives_factors(data):
    text = FIGURE.caption(data)
    assert "SGD 10 and 10 times (all rounded: 10 and 10)" in text
    assert "RMSprop 0.5, Adam 0.5" in text


@pytest.mark.parametrize(
    ("change", "wanted", "claim"),
    [
        (2.0, {"optimizer": "adam", "case": "only first"}, "raise the floor most"),
        (0.11, {"optimizer": "sgd", "case": "only weights"}, "raise the floor by half"),
        (0.5, {"optimizer": "rmsprop", "case": "but weights"}, "by at most a quarter"),
        (0.2, {"optimizer": "adam", "case": "only constants"}, "rounded constants lower the norm"),
    ],
)
def test_claims_hold_and_fail_for_altered_data(data, change, wanted, claim):
    assert not broken(FIGURE, data)
    assert any(claim in text for text in broken(FIGURE, altered(data, {"rms_gradient": change}, **wanted)))


def test_claim_that_beta2_is_stored_as_one_fails_for_wide_formats(data):
    assert any("stored as 1" in text for text in broken(FIGURE, {**data, "mantissa": 20}))
