"""Merged components: misclassification by hand and in closed form, one cluster fitted by two."""

import warnings

import jax
import numpy as np
import pytest
import xarray as xr
from made_up import made_up_fit
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score

import gmm_bayes as gb
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.posterior.partitions import merging


def skewed_data():
    """A log-normal cluster, which one Gaussian does not fit, and a round one far away."""
    rng = np.random.default_rng(0)
    skewed = np.column_stack([np.exp(0.9 * rng.standard_normal(250)), rng.standard_normal(250)])
    round_one = rng.normal([-9.0, 4.0], 1.0, (120, 2))
    return np.concatenate([skewed, round_one]), np.repeat([0, 1], [250, 120])


@pytest.fixture(scope="module")
def skewed_fit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        sampler = gb.NUTS(num_warmup=200, num_samples=150, num_chains=2)
        return gb.fit(skewed_data()[0], 3, sampler=sampler, seed=0)


def by_hand(r, cutoff):
    """Hennig's algorithm with sets and loops."""
    groups = [{k} for k in range(r.shape[1])]
    while len(groups) > 1:
        belongs = np.stack([r[:, sorted(g)].sum(axis=1) for g in groups], axis=1)
        taken = belongs.argmax(axis=1)
        worst, pair = -1.0, None
        for j in range(len(groups)):
            for k in range(len(groups)):
                if j == k or belongs[:, k].sum() < 1 or belongs[:, j].sum() < 1:
                    continue
                mistaken = belongs[taken == j, k].sum() / belongs[:, k].sum()
                if mistaken > worst:
                    worst, pair = mistaken, (j, k)
        if worst < cutoff:
            break
        groups[pair[0]] |= groups[pair[1]]
        del groups[pair[1]]
    return {frozenset(g) for g in groups}


def as_sets(groups):
    return {frozenset(np.flatnonzero(groups == g).tolist()) for g in np.unique(groups)}


@pytest.mark.parametrize("cutoff", [0.02, 0.1, 0.2])
def test_merged_as_by_hand(cutoff):
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(20):
        scores = 3 * rng.standard_normal((80, 6)) + np.log(rng.dirichlet(np.ones(6) / 3) + 1e-30)
        r = np.exp(scores - scores.max(axis=1, keepdims=True))
        r /= r.sum(axis=1, keepdims=True)
        with jax.enable_x64(True):
            found = np.asarray(jax.jit(merging._merged)(r, cutoff))
        assert as_sets(found) == by_hand(r, cutoff)
        seen.add(len(np.unique(found)))
    assert len(seen) > 1


def test_misclassification_of_two_normals():
    """Phi(-d / 2) each way, for means d standard deviations apart."""
    x = np.random.default_rng(2).standard_normal((200_000, 1))
    x[::2] += 2.5
    two = MixtureParameters(np.array([0.5, 0.5]), np.array([[0.0], [2.5]]), np.ones((2, 1, 1)))
    with jax.enable_x64(True):
        r = gb.core.mixture.responsibilities(x, two)
        mistaken = np.asarray(merging._misclassification(r))
    np.testing.assert_allclose(mistaken, norm.cdf(-1.25) * (1 - np.eye(2)), atol=3e-3)


def test_components_without_rows_are_left_alone():
    r = np.array([[0.9, 0.0, 0.1]] * 4 + [[0.0, 0.9, 0.1]] * 4)
    with jax.enable_x64(True):
        assert as_sets(np.asarray(merging._merged(r, 0.01))) == {
            frozenset([0]),
            frozenset([1]),
            frozenset([2]),
        }


def test_a_cluster_fitted_by_two_is_one(skewed_fit):
    truth = skewed_data()[1]
    found = gb.merge_components(skewed_fit, cutoff=0.025, num_draws=100)
    assert found.n_clusters == 2
    assert sorted(len(group) for group in found.groups) == [1, 2]
    pair = max(found.groups, key=len)
    alone = min(found.groups, key=len)[0]
    assert found.probabilities.dims == ("component", "component2")
    assert float(found.probabilities[pair]) > 0.9
    assert (np.delete(found.probabilities.values[alone], alone) < 0.1).all()
    np.testing.assert_array_equal(np.diag(found.probabilities), 1)
    np.testing.assert_array_equal(found.probabilities, found.probabilities.values.T)
    assert adjusted_rand_score(found.labels, truth) > 0.95
    assert adjusted_rand_score(gb.assign(skewed_fit), truth) < 0.9
    means = gb.responsibilities(skewed_fit).values
    summed = np.stack([means[:, list(group)].sum(axis=1) for group in found.groups], axis=1)
    np.testing.assert_allclose(found.sureness, summed.max(axis=1))
    assert "components " + ", ".join(map(str, pair)) in repr(found)
    assert "together with probability" in repr(found)


def test_probabilities_are_shares_of_draws(skewed_fit):
    few = gb.GMMFit(skewed_fit.datatree.isel(draw=slice(None, None, 30)))
    found = gb.merge_components(few, cutoff=0.3)
    each = gb.responsibilities(few, reduce=None).stack(s=("chain", "draw")).transpose("s", ...)
    share = np.zeros((3, 3))
    for r in each.values:
        for group in by_hand(r, 0.3):
            share[np.ix_(sorted(group), sorted(group))] += 1 / len(each)
    np.testing.assert_allclose(found.probabilities, share, atol=1e-12)


def test_a_larger_cutoff_merges_less(skewed_fit):
    sizes = [
        gb.merge_components(skewed_fit, cutoff=cutoff, num_draws=50).n_clusters
        for cutoff in (1e-12, 0.025, 0.9)
    ]
    assert sizes[0] <= sizes[1] <= sizes[2] == 3


@pytest.mark.parametrize(("apart", "n_clusters"), [(1.6, 1), (2.1, 1), (2.8, 2), (3.3, 2)])
def test_defaults_agree_with_the_partition(apart, n_clusters):
    """At 2.8 to 3.9 a cutoff of 0.025 made one cluster of two components that partition keeps."""
    fit = made_up_fit([[0.0], [apart]], n_obs=600, n_draws=40, noise=0.01)
    assert gb.merge_components(fit).n_clusters == n_clusters
    found = gb.partition(fit, num_label_draws=40, num_starts=4, max_clusters=3)
    assert found.n_clusters == n_clusters


def test_chains_of_merges_are_followed():
    share = np.eye(4)
    share[0, 2] = share[2, 0] = 0.6
    share[2, 3] = share[3, 2] = 0.55
    for threshold, expected in (
        (0.5, [0, 1, 0, 0]),
        (0.55, [0, 1, 0, 0]),
        (0.58, [0, 1, 0, 2]),
        (0.7, [0, 1, 2, 3]),
    ):
        np.testing.assert_array_equal(merging._clusters(share, threshold), expected)


def test_switched_labels_are_refused(skewed_fit):
    posterior = skewed_fit.posterior
    order = {"component": [1, 2, 0]}
    other = posterior.isel(chain=[1], **order).assign_coords(component=[0, 1, 2])
    mixed = xr.concat(
        [posterior.isel(chain=[0]), other],
        "chain",
        data_vars="all",
        coords="minimal",
        join="outer",
        compat="equals",
    ).transpose("chain", "draw", ...)
    with pytest.raises(gb.errors.LabelSwitchingError, match="align_labels, or use"):
        gb.merge_components(skewed_fit.with_group("posterior", mixed))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cutoff": 0}, ValueError, "cutoff must be strictly between 0 and 1"),
        ({"threshold": 1.5}, ValueError, "threshold must be strictly between 0 and 1"),
        ({"num_draws": 0}, ValueError, "num_draws must be at least 1"),
    ],
)
def test_wrong_options_are_refused(skewed_fit, options, error, message):
    with pytest.raises(error, match=message):
        gb.merge_components(skewed_fit, **options)
