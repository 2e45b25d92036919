"""Floors from samples: intervals, stationarity and outcomes."""

import math

import numpy as np
import pytest

from experiments.floors import OUTCOMES, is_stationary, measure

RNG = np.random.default_rng(5)


def floor_of(squared, loss=None, halted=False, first_loss=1.0):
    squared = np.asarray(squared, dtype=float)
    loss = squared if loss is None else np.asarray(loss, dtype=float)
    seeds = squared.shape[1]
    return measure(squared, loss, np.zeros_like(squared), np.full(seeds, first_loss), np.full(seeds, halted))


def test_constant_samples_give_a_point():
    floor = floor_of(np.full((64, 8), 0.25))
    assert floor.outcome == "floor"
    assert floor.gradient == (0.5, 0.5, 0.5)
    assert floor.loss == (0.25, 0.25, 0.25)


def test_intervals_are_ordered_and_nested():
    floor = floor_of(RNG.gamma(2.0, size=(64, 8)))
    value, low, high = floor.gradient
    assert floor.gradient999[1] <= low <= value <= high <= floor.gradient999[2]
    assert floor.seed_gradient.shape == (8,)


def test_a_decay_is_not_stationary():
    squared = np.exp(-0.2 * np.arange(64))[:, np.newaxis] * RNG.uniform(0.9, 1.1, size=(64, 8))
    assert not is_stationary(squared)
    assert floor_of(squared).outcome == "moving"


def test_a_halted_run_stagnated():
    assert floor_of(np.full((64, 8), 0.25), halted=True).outcome == "stagnated"


def test_divergence_and_overflow_are_outcomes():
    loss = np.full((64, 8), 0.1)
    loss[-1, 3] = 2e3
    assert floor_of(np.ones((64, 8)), loss).outcome == "diverged"
    squared = np.ones((64, 8))
    squared[10, 2] = np.inf
    floor = floor_of(squared)
    assert floor.outcome == "not finite"
    assert not floor.stationary
    assert math.isnan(floor.gradient[0]) or math.isinf(floor.gradient[0])
    assert set(OUTCOMES) >= {"floor", "moving", "stagnated", "diverged", "not finite"}


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_few_samples(samples):
    assert is_stationary(np.ones((samples, 4))) == (samples > 1)


def test_one_seed_has_no_interval():
    floor = floor_of(RNG.gamma(2.0, size=(64, 1)))
    assert floor.gradient[2] == math.inf or math.isnan(floor.gradient[2])
