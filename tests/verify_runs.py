"""fpsim verify on small studies, for its tests: the command, its cells, and a theorem that is wrong by a factor."""

from dataclasses import replace

from experiments.cli import main
from theory.theorems import theorem

STUDY = {"problem": "quadratic", "dimension": 6, "seeds": 4, "steps": 1500}
NAMES = "T5,T6"  # quickly checked


def run(*words):
    return main(["verify", "--processes", "1", *map(str, words)])


def with_bound(factor=1.0, **changed):
    """T8 with a bound that is wrong by a factor."""
    right = theorem("T8")
    fields = {name: changed.pop(name) for name in ("two_sided",) if name in changed}

    def evaluate(window):
        bound = right.evaluate(window)
        return replace(bound, lower=bound.lower * factor, upper=bound.upper * factor, **fields)

    return replace(right, identifier="T99", evaluate=evaluate, **changed)
