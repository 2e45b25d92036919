"""The figure of number lines: every value is a stroke, the same bytes every time."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from paper_figures import number_line


def test_it_is_written_and_repeats(tmp_path):
    names = ["float4_e2m1fn", "float6_e2m3fn", "float8_e8m0fnu"]
    for scale in ("linear", "log"):
        paths = number_line.build(names, tmp_path, scale, high=8.0)
        assert [path.name for path in paths] == ["number_line.pdf", "number_line.png"]
        first = [path.read_bytes() for path in paths]
        assert [path.read_bytes() for path in number_line.build(names, tmp_path, scale, high=8.0)] == first


def test_the_end_is_positive(tmp_path):
    with pytest.raises(ValueError, match=r"high=0\.0; admissible: positive"):
        number_line.build(["e5m2"], tmp_path, high=0.0)


def test_values_are_those_of_the_format():
    assert number_line._values("float4_e2m1fn", True).tolist() == [0.5, 1, 1.5, 2, 3, 4, 6]
    assert len(number_line._values("float8_e4m3fn", False)) == 253
    assert np.isfinite(number_line._values("float8_e5m2", False)).all()


@pytest.mark.parametrize(
    ("names", "scale", "says"),
    [
        (["bfloat16"], "linear", "format bfloat16 has 16 bits; admissible in the figure: at most 8"),
        ([], "linear", "names is empty"),
        (["e5m2"], "cubic", "scale='cubic'; admissible: linear, log"),
        (["e5m"], "linear", "format 'e5m' is unknown"),
    ],
)
def test_errors_name_what_is_wrong(names, scale, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        number_line.build(names, tmp_path, scale)
    assert not list(tmp_path.iterdir())
