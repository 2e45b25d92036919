"""The phenomena of low precision appear when small networks are trained: inequalities between means over runs, with
confidence intervals of 99.9 %; and what trains them several times."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from experiments.intervals import mean, ratio
from experiments.questions import questions

torch = pytest.importorskip("torch")

from experiments.networks.optimizers import Optimizer  # noqa: E402
from experiments.networks.seeds import floors, started  # noqa: E402
from experiments.networks.train import train  # noqa: E402
from experiments.networks.training import Training  # noqa: E402
from fpsim import Key  # noqa: E402
from fpsim.nn import NetworkPrecision  # noqa: E402

RECORD = Path(__file__).parents[2] / "experiments" / "records" / "questions.json"
SMALL = Training(
    "mlp", "digits", Optimizer("sgd"), NetworkPrecision.storage("bfloat16"), steps=8, batch=16,
    network_options={"width": 8, "depth": 2},
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x in questions() if x == "accumulation" or x.startswith("network_")])
def test_a_short_run_bears_out_what_is_said(name: str) -> None:
    rows = questions()[name].run(True)
    record = msgspec.json.decode(RECORD.read_bytes())["questions"][name]["rows"]
    assert all(row.keys() == record[0].keys() for row in rows)
    claims = questions()[name].claims(rows)
    assert claims
    assert [text for text, true in claims if not true] == []


def test_intervals_are_those_of_student() -> None:
    stats = pytest.importorskip("scipy.stats")
    x = [1.0, 1.5, 4.0, 2.25]
    expected = stats.t.interval(0.999, 3, loc=np.mean(x), scale=stats.sem(x))
    assert mean(x) == pytest.approx((np.mean(x), *expected), rel=1e-12)
    logarithms = mean([math.log(value) for value in x])
    assert ratio(x, [1.0] * 4) == pytest.approx([math.exp(value) for value in logarithms], rel=1e-12)
    assert ratio([3.0, 3.0], [3.0, 3.0]) == (1.0, 1.0, 1.0)


def test_a_floor_is_that_of_the_last_steps_on_the_training_data() -> None:
    found = floors(SMALL, 2, window=0.5, samples=4, at_end=lambda run, start: run.step + start["step"] / 100)
    assert found.ends == (8.04, 8.04)
    for number in range(2):
        run = started(replace(SMALL, run=number), False)
        losses = []
        for _ in range(SMALL.steps):
            run.advance()
            losses.append(run.measure())
        x, y = (torch.from_numpy(part) for part in run.data.evaluation(1))
        assert len(x) == 1437  # all that is learnt, not the evaluation part
        scores = run.plain.double().network(x.double())
        assert losses[-1].loss == pytest.approx(torch.nn.functional.cross_entropy(scores, y).item(), rel=1e-12)
        for name, floor in (("loss", found.loss), ("gradient", found.gradient)):
            squares = [getattr(measure, name) ** 2 for measure in losses[4:]]
            assert floor[number] == pytest.approx(math.sqrt(sum(squares) / 4), rel=1e-12)


def test_batches_are_those_of_the_training_unless_all_samples_are_taken() -> None:
    run = started(SMALL, False)
    for _ in range(SMALL.steps):
        run.advance()
    plain = train(SMALL).run
    assert all(
        torch.equal(a, b) for a, b in zip(run.plain.parameters(), plain.plain.parameters(), strict=True)
    )  # what is measured does not change what is learnt
    whole = started(SMALL, True).data
    first, later = whole.batch(Key(1), 0, 16), whole.batch(Key(2), 5, 16)
    assert len(first[0]) == 1437 and all(np.array_equal(a, b) for a, b in zip(first, later, strict=True))


def test_what_cannot_settle_is_refused() -> None:
    tokens = Training("transformer", "markov", Optimizer("sgd"), None, steps=1, batch=1)
    with pytest.raises(ValueError, match="dataset='markov'; admissible: data of samples in memory, such as digits"):
        floors(tokens, 1)
    far: dict[str, Any] = {"optimizer": Optimizer("sgd", {"lr": 2.0**100}), "steps": 64}
    with pytest.raises(FloatingPointError, match="mlp-digits: not finite after step"):
        floors(replace(SMALL, **far), 1)
