"""Starts: the best regular EM solution, numbered like the prior, jittered by its uncertainty."""

import itertools

import numpy as np
import pytest
from conftest import random_mixture
from scipy import stats

import gmm_bayes as gb
from gmm_bayes.core import mixture
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.starts import check_start, em_start, jitter, match_to_prior
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.rows.standardization import Standardization


def standard_units(X, name="full"):
    units = Standardization.of(np.asarray(X), COVARIANCE_STRUCTURES[name])
    return units, units.apply(np.asarray(X))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("load", "k", "expected"),
    [
        (gb.datasets.load_old_faithful, 1, -1289.797),
        (gb.datasets.load_old_faithful, 2, -1130.264),
        (gb.datasets.load_iris, 2, -214.355),
        (gb.datasets.load_iris, 3, -180.186),
    ],
)
def test_it_finds_the_known_maximum(load, k, expected):
    """mclust 6.1.3's maximum likelihoods."""
    X = load().to_numpy()
    units, Z = standard_units(X)
    start = em_start(Z, ModelSpec(k, "full"), init="kmeans", n_init=10, seed=0).best
    total = np.sum(mixture.log_density(Z, start)) - len(X) * units.log_volume
    assert total == pytest.approx(expected, abs=0.05)


@pytest.mark.usefixtures("double")
def test_a_singular_solution_is_not_taken():
    """A component on five equal rows has the highest likelihood and says nothing."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((60, 2)), np.full((6, 2), 9.0)])
    X = np.concatenate([X, rng.standard_normal((60, 2)) + 4])
    _, Z = standard_units(X)
    spec = ModelSpec(3, "full")
    solutions = [em_start(Z, spec, init="kmeans", n_init=n, seed=0).best for n in (1, 20)]
    smallest = [min(np.linalg.eigvalsh(c)[0] for c in s.covariances) for s in solutions]
    assert smallest[0] < 1e-5, "the first start is singular, else this tests nothing"
    assert smallest[1] > 1e-3


def test_components_are_numbered_like_the_prior_centres():
    start, _ = random_mixture("full", 5, 2)
    order = np.array([3, 0, 4, 1, 2])
    prior = gb.Priors.fixed(start.means[order] + 0.01).arrays(5, 2)
    matched = match_to_prior(start, prior, np.inf)
    for ours, theirs in zip(matched, start, strict=True):
        np.testing.assert_array_equal(ours, theirs[order])


def test_the_mean_of_a_wide_component_says_little_about_its_number():
    """Beyond the other centre by chance: of 20 rows, its mean is known up to 28."""
    means = np.array([[-10.0, 0.0], [-50.0, 30.0]])
    start = MixtureParameters.from_covariances(
        np.array([0.6, 0.4]), means, np.array([0.25, 125.0**2])[:, None, None] * np.eye(2), "full"
    )
    prior = gb.Priors.fixed([[-10.0, 0.0], [10.0, 0.0]], mean_covariance=1.0).arrays(2, 2)
    np.testing.assert_array_equal(match_to_prior(start, prior, 50).means, means)
    # Of so many rows that it is known, there it is.
    np.testing.assert_array_equal(match_to_prior(start, prior, 10**7).means, means[::-1])
    np.testing.assert_array_equal(match_to_prior(start, prior, np.inf).means, means[::-1])


def test_the_numbering_is_the_most_probable_one():
    """Against SciPy's normal density of the means that were found, over all permutations."""
    rng = np.random.default_rng(3)
    root = np.array([[1.0, 0.0], [0.7, 0.5]])
    known = 0
    for _ in range(50):
        start, _ = random_mixture("full", 4, 2, seed=int(rng.integers(2**31)))
        prior = gb.Priors.fixed(
            3 * rng.standard_normal((4, 2)), mean_covariance=root @ root.T
        ).arrays(4, 2)
        counts = np.asarray(start.weights) * 12
        spread = np.asarray(start.covariances) / counts[:, None, None] + root @ root.T
        orders = list(itertools.permutations(range(4)))
        totals = [
            sum(
                stats.multivariate_normal.logpdf(start.means[k], prior.mean_loc[j], spread[k])
                for j, k in enumerate(order)
            )
            for order in orders
        ]
        best = list(orders[int(np.argmax(totals))])
        np.testing.assert_array_equal(match_to_prior(start, prior, 12).means, start.means[best])
        known += np.array_equal(match_to_prior(start, prior, np.inf).means, start.means[best])
    assert known < 50, "the errors of the means matter, else this tests nothing"


@pytest.mark.parametrize("n_obs", [400, 40_000])
def test_jitter_is_twice_the_posterior_sd(covariance_type, n_obs):
    start, _ = random_mixture(covariance_type, 2, 3)
    rng = np.random.default_rng(0)
    spec = ModelSpec(2, covariance_type)
    moved = [jitter(start, spec, n_obs, rng) for _ in range(2000)]
    rows = start.weights * n_obs
    sd = np.sqrt(np.diagonal(start.covariances, axis1=1, axis2=2))
    z = (np.array([m.means for m in moved]) - start.means) / (2 * sd / np.sqrt(rows)[:, None])
    assert abs(np.std(z) - 1) < 0.05
    structure = COVARIANCE_STRUCTURES[covariance_type]
    for m in moved[:20]:
        again = structure.scale_tril(*structure.sites(m.covariances), 2, 3)
        np.testing.assert_allclose(again, m.scale_tril, atol=1e-10)
        assert m.weights.sum() == pytest.approx(1)


def test_jittered_covariances_are_wishart():
    start = MixtureParameters(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    rng = np.random.default_rng(0)
    moved = [jitter(start, ModelSpec(1, "full"), 80, rng).covariances[0, 0, 0] for _ in range(3000)]
    assert stats.kstest(20 * np.array(moved), stats.chi2(20).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": np.ones(3) / 3},
            "init.weights must have shape (n_components,) = (2,), got (3,)",
        ),
        (
            {"scale_tril": np.eye(2)},
            "init.scale_tril must have shape (n_components, n_features, n_features) = (2, 2, 2), "
            "got (2, 2)",
        ),
        (
            {"weights": np.array([1.5, -0.5])},
            "init.weights must be positive and sum to 1, got [ 1.5 -0.5]",
        ),
        (
            {"weights": np.array([0.5, 0.6])},
            "init.weights must be positive and sum to 1, got [0.5 0.6]",
        ),
        (
            {"scale_tril": -np.stack([np.eye(2)] * 2)},
            "init.scale_tril must be lower triangular with a positive diagonal; "
            "MixtureParameters.from_covariances makes it",
        ),
        ({"means": np.full((2, 2), np.nan)}, "init.means must be finite, got nan"),
    ],
)
def test_a_start_that_is_none_is_refused(changes, message):
    start = MixtureParameters(np.ones(2) / 2, np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    check_start(start, 2, 2)
    with pytest.raises(ValueError) as error:
        check_start(start._replace(**changes), 2, 2)
    assert str(error.value) == message


def test_fit_checks_its_start_and_its_sampler(faithful):
    start = MixtureParameters(np.ones(2), np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    with pytest.raises(ValueError, match=r"init\.weights must be positive and sum to 1"):
        gb.fit(faithful, 2, init=start)
    with pytest.raises(
        TypeError, match=r"NUTS\(\.\.\.\), ChEES\(\.\.\.\) or Laplace\(\.\.\.\), got <class"
    ):
        gb.fit(faithful, 2, sampler=gb.NUTS)
