"""A hunt for a run outside a bound: random cells, run bit by bit, and every theorem held against every one of them."""

from experiments.hunt.run import hunt
from experiments.hunt.tally import Report

__all__ = ["Report", "hunt"]
