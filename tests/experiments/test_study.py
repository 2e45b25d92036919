"""Studies: what is read, what is refused and how, and what a cell's key depends on."""

import msgspec
import pytest

from experiments import cell as cell_module
from experiments.study import Cell, Study, StudyError, load

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.mark.parametrize(
    ("given", "widths"),
    [
        ("1..23", tuple(range(1, 24))),
        ("2,7", (2, 7)),
        ("1..4,8", (1, 2, 3, 4, 8)),
        ("8, 1..3 ,2", (1, 2, 3, 8)),
        (7, (7,)),
        ([7, "1..2"], (1, 2, 7)),
        ("5..5", (5,)),
    ],
)
def test_widths(given, widths):
    assert Study(mantissa=given).mantissa == widths


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("mantissa", "60", "60 is outside 0..52"),
        ("mantissa", -1, "-1 is outside 0..52"),
        ("mantissa", "5..2", "range 5..2 is empty"),
        ("mantissa", "", "'' is not a width"),
        ("mantissa", [], "'' is not a width"),
        ("mantissa", True, "'True' is not a width"),
        ("mantissa", "3.5", "'3.5' is not a width"),
        ("mantissa", "1..999999999999", "999999999999 is outside 0..52"),
        ("exponent", "1", "1 is outside 2..11"),
        ("exponent", "12", "12 is outside 2..11"),
        ("optimizer", "adamw", "'adamw' is unknown (close: adam); admissible: sgd, rmsprop, adam"),
        ("problem", "banana", "admissible: quadratic, rational, logistic"),
        ("rounding", "nearest", "admissible: nearest_even, nearest_away, toward_zero, up, down, to_odd, stochastic"),
        ("lr", "-0.1", "-0.1 is outside (0, inf)"),
        ("lr", 0, "0 is outside (0, inf)"),
        ("lr", "nan", "'nan' is not a number"),
        ("lr", "inf", "inf is outside (0, inf)"),
        ("beta1", 1, "1 is outside [0, 1)"),
        ("beta2", -0.5, "-0.5 is outside [0, 1)"),
        ("eps", -1, "-1 is outside [0, inf)"),
        ("seeds", 0, "0 is outside 1..65536"),
        ("seeds", 2.5, "2.5 is not a whole number"),
        ("steps", "0", "0 is outside 1..1000000000"),
        ("seed", -1, "-1 is outside 0.."),
        ("random_bits", 33, "33 is outside 1..32"),
        ("noise", "loud", "admissible: none, gaussian, minibatch"),
        ("window", 1.5, "1.5 is outside (0, 1]"),
        ("optimiser", "adam", "unknown key (close: optimizer"),
    ],
)
def test_refusals_name_key_value_and_interval(key, value, says):
    with pytest.raises(StudyError) as caught:
        Study.build({key: value})
    assert caught.value.key == key
    assert says in caught.value.message
    assert "\n" not in str(caught.value)


def test_default_study_is_the_whole_grid():
    cells = Study().cells()
    assert len(cells) == 3 * 3 * 2 * 23
    assert {cell.seeds for cell in cells} == {8}
    assert len({cell.key for cell in cells}) == len(cells)


def test_flags_override_only_the_optimizers_that_have_the_constant():
    cells = Study(optimizer="sgd,adam", problem="quadratic", mantissa=3, beta2=0.9, lr=0.5).cells()
    found = {(cell.optimizer, cell.hyperparameters.get("beta2"), cell.hyperparameters["lr"]) for cell in cells}
    assert found == {("sgd", None, 0.5), ("adam", 0.9, 0.5)}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"optimizer": "sgd", "beta2": 0.9}, "beta2: 0.9 is used by no cell (not a constant of sgd)"),
        ({"optimizer": "sgd", "sigma": 0.3}, "sigma: 0.3 is used by no cell (no cell has gaussian noise)"),
        ({"optimizer": "sgd", "noise": "gaussian", "sigma": 0}, "sigma: 0 is not enough for gaussian noise"),
    ],
)
def test_a_value_that_nothing_uses_is_refused(settings, says):
    with pytest.raises(StudyError) as caught:
        Study(**settings).cells()
    assert says in str(caught.value)


def test_constants_without_effect_do_not_enter_the_key():
    plain, varied = (Study(optimizer="sgd", rounding="up", mantissa=3, random_bits=bits).cells() for bits in (8, 16))
    assert [cell.key for cell in plain] == [cell.key for cell in varied]


def test_key_depends_on_every_field_and_on_the_code(monkeypatch):
    cell = Study(mantissa=3).cells()[0]
    other = {str: "x", int: 12345, float: 0.123, tuple: (("v", "e5m10", ""),), dict: {"lr": "(1 / t)"}}
    changed = [
        msgspec.structs.replace(cell, **{field.name: other[getattr(field.type, "__origin__", field.type)]})
        for field in msgspec.structs.fields(Cell)
    ]
    assert len({c.key for c in [cell, *changed]}) == len(changed) + 1
    before = cell.key
    monkeypatch.setattr(cell_module, "code_version", lambda: "another")
    assert cell.key != before


def test_toml(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('optimizer = ["adam"]\nmantissa = "1..3"\nlr = 1\n')
    study = Study.build(load(path))
    assert (study.optimizer, study.mantissa, study.lr) == (("adam",), (1, 2, 3), (1.0,))
    path.write_text("mantissa = [")
    with pytest.raises(StudyError, match="is not a TOML file"):
        load(path)
    with pytest.raises(StudyError, match="cannot be read"):
        load(tmp_path / "absent.toml")
