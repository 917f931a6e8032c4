"""Ranks that are uniform pass, others are caught and described."""

import numpy as np
import pytest
from made_up_ranks import NUM_RANKED, normal_ranks
from scipy.stats import binom

from gmm_bayes.checking.calibration.uniformity import (
    counts_below,
    departure,
    p_values,
    simultaneous_band,
)


@pytest.mark.parametrize("n_simulations", [60, 1000])
def test_the_band_holds_uniform_ranks_as_often_as_it_says(n_simulations):
    rng = np.random.default_rng(1)
    ranks = rng.integers(0, NUM_RANKED + 1, (n_simulations, 4000))
    ecdf = counts_below(ranks, NUM_RANKED) / n_simulations
    for probability in (0.5, 0.95):
        band = simultaneous_band(probability, n_simulations, NUM_RANKED)
        inside = ((ecdf >= band.low) & (ecdf <= band.high)).all(axis=1).mean()
        # Counts are whole numbers, so the band is a little wider than asked for.
        error = 4 * np.sqrt(probability * (1 - probability) / 4000)
        assert probability - error < inside < probability + error + 1 / n_simulations


def test_p_values_are_uniform_and_agree_with_the_band():
    rng = np.random.default_rng(2)
    n = 200
    counts = counts_below(rng.integers(0, NUM_RANKED + 1, (n, 400)), NUM_RANKED)
    p = p_values(counts, n)
    for share in (0.05, 0.3, 0.7):
        assert abs((p <= share).mean() - share) < 4 * np.sqrt(share * (1 - share) / 400)
    band = simultaneous_band(0.9, n, NUM_RANKED)
    inside = ((counts / n >= band.low) & (counts / n <= band.high)).all(axis=1)
    np.testing.assert_array_equal(inside, p > 0.1)


def test_one_point_is_a_binomial_test():
    """With ranks 0 and 1 there is one point, and the p-value is that of the sign test."""
    n = 30
    counts = np.arange(n + 1)[:, None]
    expected = [
        binom.pmf(np.arange(n + 1), n, 0.5)[
            np.minimum(binom.cdf(np.arange(n + 1), n, 0.5), binom.sf(np.arange(n + 1) - 1, n, 0.5))
            <= min(binom.cdf(c, n, 0.5), binom.sf(c - 1, n, 0.5)) * (1 + 1e-9)
        ].sum()
        for c in range(n + 1)
    ]
    np.testing.assert_allclose(p_values(counts, n), expected, atol=1e-12)


def test_the_band_is_arvizs():
    """Of whichever line is installed: by optimisation in the old one, simulated in the new one."""
    n = 150
    band = simultaneous_band(0.95, n, NUM_RANKED)
    try:
        from arviz.stats.ecdf_utils import ecdf_confidence_band
    except ImportError:
        from arviz_stats import ecdf_utils

        rng = np.random.default_rng(3)
        level = ecdf_utils.simulate_confidence_bands(n, 1, band.points, 0.95, 5000, rng)
        low, high = ecdf_utils.get_pointwise_confidence_band(level, n, band.points)
    else:
        low, high = ecdf_confidence_band(n, band.points, band.points, prob=0.95, method="optimized")
    # They count a point on the edge differently.
    np.testing.assert_allclose(band.low, low, atol=2.1 / n)
    np.testing.assert_allclose(band.high, high, atol=2.1 / n)


def test_counts_below():
    ranks = np.array([[0, 2], [1, 2], [1, 0]])
    np.testing.assert_array_equal(counts_below(ranks, 2), [[1, 3], [1, 1]])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"sd": 0.8}, "too narrow"),
        ({"sd": 1.25}, "too wide"),
        ({"shift": 0.2}, "biased high"),
        ({"shift": -0.2}, "biased low"),
        ({"sd": 0.6, "shift": 0.2}, "too narrow and biased high"),
        ({"sd": 0.85, "shift": -0.55}, "biased low and too narrow"),
        ({"sd": 0.7, "shift": -3.0}, "biased low"),
    ],
)
def test_faults_are_caught_and_described(fault, words):
    ranks = normal_ranks(1000, **fault)
    assert p_values(counts_below(ranks, NUM_RANKED), 1000) < 1e-3
    assert departure(ranks, NUM_RANKED) == words


def test_another_shape_is_said_to_be_one():
    """All ranks one sd from the middle: centre and spread are as they should be."""
    rng = np.random.default_rng(4)
    side = rng.choice([-1, 1], 1000)
    ranks = np.round(49.5 + side * (34.2 + rng.uniform(-2, 2, 1000))).astype(int)
    assert p_values(counts_below(ranks, NUM_RANKED), 1000) < 1e-6
    assert departure(ranks, NUM_RANKED) == "of another shape"


def test_ranks_of_the_right_posterior_pass():
    assert p_values(counts_below(normal_ranks(1000), NUM_RANKED), 1000) > 0.05


def test_ranks_as_wrong_as_can_be_have_a_p_value():
    """Quantiles so far out cannot be found."""
    assert p_values(counts_below(np.zeros(1000, int), 99), 1000) < 1e-10
