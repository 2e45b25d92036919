"""The gallery's own studies at tiny sizes: a row for every marker, kept in a folder; a second run computes none."""

import json

import pytest

from paper_figures.gallery import anatomy, floors, rates
from paper_figures.tables import floors as table_floors

TINY = {
    floors: {"mantissa": "4,8", "seeds": 2, "steps": {"sgd": 20, "rmsprop": 20, "adam": 20}},
    anatomy: {"mantissa": 4, "sigma": 0.1, "lr": {"sgd": 0.05}, "steps": 20, "seeds": 2},
    rates: {"log2_steps": [4, 8], "seeds": 2},
    table_floors: {"seeds": 2, "steps": {"sgd": 20, "rmsprop": 20, "adam": 20}},
}
ROWS = {floors: 3 * 2 * 2 * 2, anatomy: 2 * (2 + 2 * 4), rates: 2 * 2 * 2 * 5, table_floors: 3 * 2 * 6}


@pytest.mark.slow
@pytest.mark.parametrize("module", TINY, ids=lambda module: module.__name__)
def test_rows_of_tiny_studies_are_whole_and_kept(module, tmp_path, monkeypatch):
    if module is anatomy:
        monkeypatch.setattr(anatomy, "OPTIMIZERS", {"sgd": "SGD"})
    shares = []
    made = [module.compute(TINY[module], tmp_path, shares.append) for _ in range(2)]
    assert len(made[0]["rows"]) == ROWS[module]
    assert json.dumps(made[0]) == json.dumps(made[1])
    assert shares[-1] == 1.0
    assert len({json.dumps(row, sort_keys=True) for row in made[0]["rows"]}) > ROWS[module] // 2
