"""The figure of floors: legible fonts that publishers take, the same bytes every time, no row too odd to draw."""

import math
import re
import zlib

import pytest

pytest.importorskip("matplotlib")

from paper_figures import floors, style

DRAWN = ("rms_gradient", "rms_gradient_low", "rms_gradient_high", "bound")


def row(optimizer="sgd", problem="quadratic", rounding="nearest_even", mantissa=3, exponent=8, **changes):
    floor = 2.0**-mantissa
    made = {
        "optimizer": optimizer,
        "problem": problem,
        "rounding": rounding,
        "mantissa_bits": mantissa,
        "exponent_bits": exponent,
        "rms_gradient": floor,
        "rms_gradient_low": 0.9 * floor,
        "rms_gradient_high": 1.1 * floor,
        "theorem": "T6",
        "quantity": "gradient norm where the run halted",
        "bound": 3 * floor,
        "verdict": "holds",
        "stationary": True,
    }
    return made | changes


def grid():
    return [
        row(optimizer, problem, rounding, mantissa)
        for optimizer in ("sgd", "adam")
        for problem in ("quadratic", "logistic")
        for rounding in ("nearest_even", "stochastic")
        for mantissa in (2, 7, 12)
    ]


def test_pdf_and_png_are_the_same_bytes_when_built_again(tmp_path):
    first = {path.name: path.read_bytes() for path in floors.build(grid(), tmp_path)}
    (tmp_path / "again").mkdir()
    again = {path.name: path.read_bytes() for path in floors.build(grid(), tmp_path / "again")}
    assert set(first) == {"floors.pdf", "floors.png"}
    assert first == again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "floors.pdf", "floors.png"]


def test_fonts_are_embedded_and_not_type_3(tmp_path):
    data = floors.build(grid(), tmp_path, formats=["pdf"])[0].read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)endstream", data, re.DOTALL)
    text = data + b"".join(zlib.decompressobj().decompress(s) for s in streams if s[:1] == b"x")
    assert b"/Type3" not in text
    assert b"/FontFile2" in text
    assert b"STIXGeneral" in text
    assert b"CreationDate" not in data


def drawn(rows):
    with style.paper_style():
        return floors._figure(rows, 8)


def test_no_text_is_smaller_than_seven_points_or_leaves_the_page():
    figure = drawn(grid())
    from matplotlib.text import Text

    page = figure.bbox
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            assert text.get_fontsize() >= 7
            box = text.get_window_extent()
            assert page.x0 <= box.x0 + 1
            assert box.x1 <= page.x1 + 1
            assert page.y0 <= box.y0 + 1
            assert box.y1 <= page.y1 + 1


def test_panels_are_optimizers_by_problems_on_shared_axes():
    figure = drawn(grid())
    panels = figure.axes
    assert len(panels) == 4
    assert [panel.get_title() for panel in panels] == ["quadratic", "logistic regression", "", ""]
    assert panels[0].get_ylim() == panels[1].get_ylim()
    assert panels[0].get_xlim() == panels[3].get_xlim()


def test_a_bound_that_does_not_apply_is_not_drawn():
    rows = [row(mantissa=m, verdict="not applicable" if m == 2 else "holds") for m in (2, 3, 4)]
    (panel,) = drawn(rows).axes
    bound = panel.lines[-1]
    assert [math.isnan(y) for y in bound.get_ydata()] == [True, False, False]


def test_a_bound_on_another_quantity_is_not_drawn_but_named():
    rows = [row(mantissa=m, theorem="T5", quantity="largest |m|/sqrt(v)") for m in (2, 3, 4)]
    figure = drawn(rows)
    (panel,) = figure.axes
    assert all(math.isnan(y) for y in panel.lines[-1].get_ydata())
    assert "T5: see table" in panel.texts[0].get_text()
    assert not any("bound" in text.get_text() for text in figure.legends[0].get_texts())


@pytest.mark.parametrize("modes", [1, 2, 3, 4, 7])
def test_the_legend_keeps_pairs_together_and_on_the_page(modes):
    names = ("nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd", "stochastic")[:modes]
    figure = drawn([row(problem=p, rounding=r, mantissa=m) for p in ("a", "b") for r in names for m in (2, 3)])
    legend = figure.legends[0]
    box = legend.get_window_extent()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1
    labels = [text.get_text() for text in legend.get_texts()]
    for measured, bound in zip(labels[0 : 2 * modes : 2], labels[1 : 2 * modes : 2], strict=True):
        assert measured.replace("measured", "proven bound") == bound


def test_hollow_markers_are_not_stationary():
    rows = [row(mantissa=m, stationary=m != 4) for m in (2, 3, 4)]
    (panel,) = drawn(rows).axes
    solid, hollow = panel.lines[:2]
    assert list(hollow.get_xdata()) == [4]
    assert hollow.get_markerfacecolor() == "white"
    assert solid.get_markerfacecolor() == style.BLUE


@pytest.mark.parametrize("column", DRAWN)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, 0.0])
def test_odd_values_leave_gaps(tmp_path, column, value):
    rows = [row(mantissa=2), row(mantissa=3, **{column: value}), row(mantissa=4)]
    assert len(floors.build(rows, tmp_path, formats=["png"])) == 1


def test_a_run_that_diverged_does_not_flatten_the_others():
    rows = [row(mantissa=m) for m in (2, 3, 4, 5)] + [row(mantissa=6, rms_gradient=1e80, bound=1e90)]
    (panel,) = drawn(rows).axes
    assert panel.get_ylim()[1] < 1e7


def test_several_exponent_widths_give_several_figures_and_nothing_gives_none(tmp_path):
    rows = [row(exponent=e, mantissa=m) for e in (5, 8) for m in (2, 3)]
    paths = floors.build(rows, tmp_path, formats=["pdf"])
    assert [path.name for path in paths] == ["floors_e5.pdf", "floors_e8.pdf"]
    assert floors.build([row(rms_gradient=None)], tmp_path) == []
