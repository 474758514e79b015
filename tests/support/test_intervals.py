"""Intervals of means hold the truth as often as they say, also of few and of skewed values."""

import numpy as np
import pytest

from zo_bilevel.support.intervals import mean_interval, skewed_interval, stepped_interval


@pytest.mark.statistical
@pytest.mark.parametrize("count", [5, 10, 40])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng, size: rng.normal(size=size), 0.0),
        (lambda rng, size: rng.exponential(size=size), 1.0),
        (lambda rng, size: rng.normal(size=size) ** 2, 1.0),
    ],
)
def test_means_of_skewed_values_are_covered(draw, truth, count):
    """Student's t alone covers 83 % of five squares, and 86 % of ten."""
    rows = draw(np.random.default_rng(count), (1500, count))
    found = [skewed_interval(row) for row in rows]
    assert np.mean([one.lower <= truth <= one.upper for one in found]) > 0.9


@pytest.mark.statistical
@pytest.mark.parametrize("count", [4, 8, 20])
@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_means_of_mini_batches_are_covered_where_draws_agree(share, count):
    rows = np.random.default_rng(count).binomial(8, share, (1000, count)) / 8
    found = [stepped_interval(row, 1 / 8, 0.0, 1.0) for row in rows]
    assert np.mean([one.lower <= share <= one.upper for one in found]) > 0.93
    assert all(0.0 <= one.lower <= one.value <= one.upper <= 1.0 for one in found)
    assert all(one.upper > one.lower for one in found)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10])
def test_few_draws_of_0_and_1_have_exact_intervals(count):
    """Wilson's of three covers 85 % at a share of 0.05."""
    for share in (0.05, 0.2, 0.5):
        chance = 0.0
        for ones in range(count + 1):
            draws = np.repeat([1.0, 0.0], [ones, count - ones])
            found = mean_interval(draws, 0.0, 1.0)
            ways = np.prod([(count - k) / (k + 1) for k in range(ones)])
            is_in = found.lower <= share <= found.upper
            chance += is_in * ways * share**ones * (1 - share) ** (count - ones)
        assert chance >= 0.95
