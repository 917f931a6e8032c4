"""Exact marginals of every draw."""

import numpy as np
import pytest
from hostile import raises_exactly, small_fit, table
from plots.drawn import made_up_fit

import gmm_bayes as gb

X = np.random.default_rng(0).standard_normal((40, 3)) * [1.0, 10.0, 0.1]


@pytest.mark.parametrize("features", [("x2", "x0"), ("x1",)])
def test_marginal_keeps_blocks_of_the_covariances(covariance_type, features):
    fit = made_up_fit(X, 2, covariance_type)
    marginal = gb.marginal(fit, features)
    columns = [int(name[1]) for name in features]
    whole, part = fit.parameters(), marginal.parameters()
    np.testing.assert_array_equal(part.weights, whole.weights)
    np.testing.assert_array_equal(part.means, whole.means[..., columns])
    block = whole.covariances[..., columns, :][..., columns]
    np.testing.assert_allclose(part.covariances, block, rtol=1e-9)
    assert (np.diagonal(part.scale_tril, axis1=-2, axis2=-1) > 0).all()
    np.testing.assert_array_equal(np.triu(part.scale_tril, 1), 0)
    assert marginal.feature_names == features
    np.testing.assert_array_equal(marginal.X, X[:, columns])


def test_the_draws_are_labelled_like_those_of_a_fit(covariance_type):
    fit = made_up_fit(X, 2, covariance_type)
    ours, whole = gb.marginal(fit, ["x2", "x0"]).posterior, fit.posterior
    assert set(ours) == set(whole)
    assert {name: value.dims for name, value in ours.items()} == {
        name: value.dims for name, value in whole.items()
    }
    for dim in set(ours.dims) & {"feature", "feature2"}:
        assert ours.coords[dim].values.tolist() == ["x2", "x0"]
    dense = fit.structure.to_dense(whole["covariances"].values, 2, 3)
    block = fit.structure.to_dense(ours["covariances"].values, 2, 2)
    np.testing.assert_allclose(block, dense[..., [2, 0], :][..., [2, 0]], rtol=1e-9)


def test_marginal_of_everything_is_the_fit():
    fit = small_fit()
    assert gb.marginal(fit, fit.feature_names) is fit


def test_thinned_draws_keep_their_numbers():
    fit = small_fit()
    thin = gb.GMMFit(fit.datatree.isel(draw=slice(5, None, 10)))
    marginal = gb.marginal(thin, "x1")
    np.testing.assert_array_equal(marginal.posterior["draw"], thin.posterior["draw"])


def test_what_can_be_asked_of_a_marginal():
    fit = small_fit()
    marginal = gb.marginal(fit, "x1")
    grid = np.linspace(-20, 20, 4001)[:, None]
    density = np.exp(gb.log_predictive_density(marginal, grid).values)
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-6)
    assert gb.responsibilities(marginal).sum("component").values == pytest.approx(1)
    assert gb.sample_predictive(marginal, 3).shape == (3, 1)
    assert "1 column (x1)" in repr(marginal)
    assert gb.diagnose(marginal).table.index.size
    with raises_exactly(ValueError, "a marginal has no priors; see those of the whole fit"):
        marginal.priors  # noqa: B018


@pytest.mark.parametrize("group", ["log_likelihood", "prior", "posterior_predictive"])
def test_a_marginal_takes_no_groups(group):
    with raises_exactly(ValueError, "a marginal takes no groups; add them to the whole fit"):
        gb.with_groups(gb.marginal(small_fit(), "x1"), group)


def test_a_marginal_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="a marginal is not saved; save the whole fit, and take"):
        gb.marginal(small_fit(), "x1").save(tmp_path / "x1.nc")
    assert not list(tmp_path.iterdir())


BAD = {
    "unknown": (
        "x3",
        ValueError,
        "features must be one of x0, x1, got 'x3'; did you mean 'x1' or 'x0'?",
    ),
    "twice": (
        ("x1", "x1"),
        ValueError,
        "features must be one or more distinct names, got ['x1', 'x1']",
    ),
    "none": ((), ValueError, "features must be one or more distinct names, got []"),
    "a number": (1, TypeError, "features must be names of features, got int"),
    "None": (None, TypeError, "features must be names of features, got NoneType"),
}


@pytest.mark.parametrize(("features", "exception", "message"), table(BAD))
def test_wrong_features(features, exception, message):
    with raises_exactly(exception, message):
        gb.marginal(small_fit(), features)
