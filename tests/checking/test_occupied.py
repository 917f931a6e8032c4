"""How many components hold rows: against enumeration, simulation and plain NumPy."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln

import gmm_bayes as gb
from gmm_bayes._vocabulary import POSTERIOR, SPHERICAL
from gmm_bayes.checking import occupied
from gmm_bayes.checking.occupied import occupied_components, prior_occupied

CONCENTRATIONS = [[0.7, 0.7, 0.7], [0.2, 1.0, 3.0], [0.2, 2.0, 0.2], [1.5]]


@pytest.mark.parametrize("concentration", CONCENTRATIONS, ids=str)
def test_prior_by_enumeration(concentration):
    alpha, n_obs = np.array(concentration), 5
    k = len(alpha)
    expected = np.zeros(k)
    for labels in itertools.product(range(k), repeat=n_obs):
        counts = np.bincount(labels, minlength=k)
        log_probability = (gammaln(alpha + counts) - gammaln(alpha)).sum()
        log_probability += gammaln(alpha.sum()) - gammaln(alpha.sum() + n_obs)
        expected[(counts > 0).sum() - 1] += np.exp(log_probability)
    np.testing.assert_allclose(prior_occupied(alpha, n_obs), expected, atol=1e-14)


@pytest.mark.parametrize("concentration", [[0.1] * 6, [0.05, 0.05, 2.0, 0.3]], ids=str)
def test_prior_by_simulation(concentration):
    rng, n_draws = np.random.default_rng(0), 40_000
    weights = rng.dirichlet(concentration, n_draws)
    counts = (rng.multinomial(300, weights) > 0).sum(axis=1)
    simulated = np.bincount(counts, minlength=len(concentration) + 1)[1:] / n_draws
    found = prior_occupied(np.array(concentration), 300)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_less(
        abs(found - simulated), 5 * np.sqrt(found * (1 - found) / n_draws) + 1e-9
    )


def test_prior_where_it_is_simulated(monkeypatch):
    concentration = np.array([0.001, 0.3, 1.0, 2.0])
    exact = prior_occupied(concentration, 50)
    monkeypatch.setattr(occupied, "_MOST_STATES", 1)
    monkeypatch.setattr(occupied, "_SIMULATIONS", 50_000)
    found = prior_occupied(concentration, 50, seed=3)
    assert (found != exact).any()
    np.testing.assert_array_less(
        abs(found - exact), 5 * np.sqrt(exact * (1 - exact) / 50_000) + 1e-9
    )
    np.testing.assert_array_equal(found, prior_occupied(concentration, 50, seed=3))


def test_one_component_is_always_in_use():
    X = np.random.default_rng(0).normal(size=(30, 1))
    fit = gb.fit(X, 1, sampler=gb.Laplace(num_samples=500), seed=1)
    table = occupied_components(fit)
    expected = pd.DataFrame(
        {"posterior": [1.0], "posterior_mcse": [0.0], "prior": [1.0]},
        index=pd.RangeIndex(1, 2, name="n_occupied"),
    )
    pd.testing.assert_frame_equal(table, expected)


@pytest.fixture(scope="module")
def sparse_fit():
    """Three groups far apart, five components, and a prior that likes them empty."""
    rng = np.random.default_rng(4)
    X = np.concatenate([rng.normal(centre, 1, (40, 1)) for centre in (-30.0, 0.0, 30.0)])
    priors = gb.default_priors(X, 5).replace(weight_concentration=0.01)
    with warnings.catch_warnings():
        # Labels switch, and the weight of an empty component leaves the range of exp.
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        # There is no end of modes where components are empty, and they are not the matter here.
        return gb.fit(X, 5, covariance_type=SPHERICAL, priors=priors, seed=1, survey=False)


def test_an_overfitted_number_shrinks(sparse_fit):
    table = occupied_components(sparse_fit)
    assert table.shape == (5, 3)
    assert table["posterior"].sum() == pytest.approx(1)
    assert table["prior"].sum() == pytest.approx(1)
    assert table["posterior"].idxmax() == 3
    assert table["posterior"].loc[3] > 0.9
    assert (table["posterior"].loc[:2] == 0).all()
    assert (table["posterior_mcse"].loc[:2] == 0).all()
    # By itself the prior would have one.
    assert table["prior"].idxmax() == 1


@pytest.fixture(scope="module")
def blurred_fit():
    """Few rows and too many components, so that the number is quite uncertain."""
    X = np.random.default_rng(5).normal(size=(25, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        return gb.fit(X, 4, covariance_type=SPHERICAL, sampler=gb.NUTS(num_samples=500), seed=1)


def check_mean_number(fit, table):
    """Against the sum over components of 1 - prod_n (1 - r_nk), averaged over draws.

    Given the draws only the labels are random, and the events that a component holds rows are
    negatively correlated: the variance of their number is at most the sum of theirs.
    """
    shares = gb.responsibilities(fit, reduce=None).values
    in_use = 1 - np.prod(1 - shares, axis=-2)
    n_draws = in_use[..., 0].size
    error = np.sqrt((in_use * (1 - in_use)).sum()) / n_draws
    number = (table["posterior"] * table.index).sum()
    assert error < 0.02
    assert abs(number - in_use.sum() / n_draws) < 5 * error


def test_mean_number_by_plain_numpy(blurred_fit):
    table = occupied_components(blurred_fit, seed=2)
    check_mean_number(blurred_fit, table)
    assert (table["posterior"] > 0.001).sum() >= 3
    assert table["posterior"].sum() == pytest.approx(1)
    assert table["posterior_mcse"].max() < 0.1


def test_several_blocks_of_rows(blurred_fit, monkeypatch):
    """25 rows in blocks of 7, the last of which is filled up."""
    monkeypatch.setattr(occupied, "_ROWS_PER_BLOCK", 7)
    check_mean_number(blurred_fit, occupied_components(blurred_fit, seed=3))


def test_what_fills_a_block_is_not_counted(blurred_fit, monkeypatch):
    """One row, which is in one component, in a block of many."""
    one = gb.GMMFit(blurred_fit.datatree.isel(obs=slice(1)))
    assert occupied_components(one)["posterior"].loc[1] == 1
    three = gb.GMMFit(blurred_fit.datatree.isel(obs=slice(3)))
    monkeypatch.setattr(occupied, "_ROWS_PER_BLOCK", 2)
    assert occupied_components(three)["posterior"].loc[4] == 0


def test_numbering_and_seed(blurred_fit):
    table = occupied_components(blurred_fit, seed=7)
    pd.testing.assert_frame_equal(table, occupied_components(blurred_fit, seed=7))
    other = occupied_components(blurred_fit, seed=8)
    assert (table["posterior"] != other["posterior"]).any()
    pd.testing.assert_series_equal(table["prior"], other["prior"])
    # The components of every second draw the other way round.
    old = blurred_fit.posterior
    turned = old.copy(deep=True)
    for name, value in turned.items():
        value[:, ::2] = old[name].values[:, ::2, ::-1]
    turned = occupied_components(blurred_fit.with_group(POSTERIOR, turned), seed=7)
    gap = abs(turned["posterior"] - table["posterior"])
    assert (gap <= 5 * np.hypot(turned["posterior_mcse"], table["posterior_mcse"])).all()


def test_independent_draws_have_a_smaller_error(blurred_fit):
    """The error of draws in time order is not below that of the same draws in random order."""
    order = np.random.default_rng(0).permutation(500)
    mixed = gb.GMMFit(blurred_fit.datatree.isel(draw=order))
    in_order = occupied_components(blurred_fit)["posterior_mcse"].max()
    assert in_order > occupied_components(mixed)["posterior_mcse"].max()


def test_what_is_refused(blurred_fit):
    with pytest.raises(TypeError, match="fit must be a GMMFit, got int"):
        occupied_components(3)
    with pytest.raises(ValueError, match="seed must be in"):
        occupied_components(blurred_fit, seed=-1)
