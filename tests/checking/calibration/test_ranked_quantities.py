"""The quantities that are ranked are what they say, against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture as SklearnMixture

from gmm_bayes.checking.calibration.ranked_quantities import quantities
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.model.priors import Priors

K, D, S, N = 3, 2, 4, 25
PRIOR = Priors(
    mean_loc=[[-3, 0], [0, 1], [3, 0]],
    weight_concentration=[0.5, 2, 3],
    mean_covariance=[[1.0, 0.3], [0.3, 2.0]],
    scale_scale=[0.5, 2.0],
    correlation_concentration=3.0,
).arrays(K, D)


def made_up(covariance_type, seed=0):
    """Draws of the sites (S, ...) and rows."""
    structure, rng = COVARIANCE_STRUCTURES[covariance_type], np.random.default_rng(seed)
    each = []
    for _ in range(S):
        root = rng.standard_normal((K, D, D + 3))
        dense = structure.pooled(root @ root.swapaxes(-1, -2), np.full(K, 1 / K))
        scales, factor = structure.sites(dense)
        site = {"weights": rng.dirichlet(np.ones(K)), "means": 3 * rng.standard_normal((K, D))}
        site |= {"scales": scales}
        each.append(site if factor is None else {**site, "correlation_cholesky": factor})
    sites = {name: np.stack([one[name] for one in each]) for name in each[0]}
    return structure, sites, rng.standard_normal((N, D))


def test_densities_are_scikit_learns(covariance_type):
    structure, sites, X = made_up(covariance_type)
    found = quantities(sites, X, PRIOR, structure)
    for s in range(S):
        reference = SklearnMixture(K, covariance_type="full")
        tril = structure.scale_tril(
            sites["scales"][s],
            sites["correlation_cholesky"][s] if "correlation_cholesky" in sites else None,
            K,
            D,
        )
        reference.weights_, reference.means_ = sites["weights"][s], sites["means"][s]
        reference.covariances_ = tril @ tril.swapaxes(-1, -2)
        reference.precisions_cholesky_ = np.linalg.inv(tril).swapaxes(-1, -2)
        np.testing.assert_allclose(
            found["log_likelihood"][s], reference.score_samples(X).sum(), rtol=1e-10
        )
        at_centres = [found[f"log_density[{k}]"][s] for k in range(K)]
        np.testing.assert_allclose(at_centres, reference.score_samples(PRIOR.mean_loc), rtol=1e-10)
        shares = reference.predict_proba(X)
        np.testing.assert_allclose(
            found["entropy"][s], stats.entropy(shares, axis=1).mean(), rtol=1e-8
        )
        reference.random_state = 1
        covariance = np.cov(reference.sample(200_000)[0].T)
        np.testing.assert_allclose(found["mixture_trace"][s], np.trace(covariance), rtol=0.03)
        np.testing.assert_allclose(
            found["mixture_log_det"][s], np.linalg.slogdet(covariance)[1], atol=0.05
        )


def test_the_log_prior_is_the_models(covariance_type):
    """Up to a constant, so differences between draws are compared."""
    structure, sites, X = made_up(covariance_type)
    found = quantities(sites, X, PRIOR, structure)["log_prior"]
    scale = PRIOR.scale_scale
    if structure.shares_scale:
        scale = np.sqrt(np.mean(scale**2))
    covariance = PRIOR.mean_scale_tril @ PRIOR.mean_scale_tril.T
    expected = np.zeros(S)
    for s in range(S):
        expected[s] = stats.dirichlet.logpdf(sites["weights"][s], PRIOR.weight_concentration)
        expected[s] += sum(
            stats.multivariate_normal.logpdf(mean, centre, covariance)
            for mean, centre in zip(sites["means"][s], PRIOR.mean_loc, strict=True)
        )
        expected[s] += stats.halfcauchy.logpdf(sites["scales"][s], scale=scale).sum()
        if "correlation_cholesky" in sites:
            # LKJ's density of a correlation matrix: a power of its determinant.
            omega = sites["correlation_cholesky"][s]
            omega = omega @ omega.swapaxes(-1, -2)
            expected[s] += np.sum((3.0 - 1) * np.linalg.slogdet(omega)[1])
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-8)


@pytest.mark.parametrize("name", ["log_likelihood", "entropy", "mixture_log_det", "mixture_trace"])
def test_what_does_not_depend_on_labels_stays_when_they_change(name):
    structure, sites, X = made_up("full")
    turned = {site: values[:, [2, 0, 1]] for site, values in sites.items()}
    before, after = (quantities(draws, X, PRIOR, structure) for draws in (sites, turned))
    np.testing.assert_allclose(before[name], after[name], rtol=1e-10)
    np.testing.assert_allclose(before["sorted_weights[0]"], sites["weights"].max(axis=1))
    np.testing.assert_allclose(before["sorted_weights[0]"], after["sorted_weights[0]"])
    assert not np.allclose(before["log_prior"], after["log_prior"])


def test_nothing_follows_from_the_others():
    """One component has one weight, and no doubt; one feature has one variance."""
    structure, sites, X = made_up("full")
    one = {name: values[:, :1] for name, values in sites.items()}
    one["weights"] = np.ones((S, 1))
    prior = Priors.fixed([[0.0, 0.0]]).arrays(1, D)
    names = set(quantities(one, X, prior, structure))
    assert not {n for n in names if n.startswith(("weights", "sorted_weights", "entropy"))}
    narrow = {"weights": sites["weights"], "means": sites["means"][..., :1]}
    narrow["scales"] = sites["scales"][..., :1]
    prior = Priors.fixed(np.zeros((K, 1))).arrays(K, 1)
    assert "mixture_log_det" not in quantities(narrow, X[:, :1], prior, structure)
    assert "correlations[0, 0]" in quantities(sites, X, PRIOR, structure)
