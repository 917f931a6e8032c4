"""Groups on request, and ArviZ at work on them without help, on both of its lines."""

import warnings

import numpy as np
import pytest
from made_up import far_apart, made_up_fit
from scipy import stats

import gmm_bayes as gb
from gmm_bayes.inference import arviz_bridge

az = arviz_bridge.import_arviz()
GROUPS = ("log_likelihood", "prior", "prior_predictive", "posterior_predictive")


@pytest.fixture(scope="module")
def full_fit(faithful_fit):
    thin = gb.GMMFit(faithful_fit.datatree.isel(draw=slice(None, None, 4)))
    return gb.with_groups(thin, *GROUPS, seed=5)


def test_groups_have_their_dims(full_fit):
    tree = full_fit.datatree
    assert set(GROUPS) < set(tree.children)
    assert tree["log_likelihood"]["X"].dims == ("chain", "draw", "obs")
    for group in GROUPS[2:]:
        assert tree[group]["X"].dims == ("chain", "draw", "obs", "feature")
    assert set(tree["prior"].data_vars) == set(tree["posterior"].data_vars)


def test_posterior_predictive_rows_look_like_the_data(faithful, full_fit):
    rows = full_fit.datatree["posterior_predictive"]["X"].values.reshape(-1, 2)
    rows = rows[np.random.default_rng(0).choice(len(rows), 3000, replace=False)]
    for column in range(2):
        data = faithful.to_numpy()[:, column]
        assert stats.ks_2samp(rows[:, column], data).pvalue > 1e-3


def test_prior_draws_follow_the_priors(full_fit):
    means = full_fit.datatree["prior"]["means"].sel(component=0, feature="waiting").values.ravel()
    priors = full_fit.priors
    law = stats.norm(priors.mean_loc[0, 1], np.sqrt(priors.mean_covariance[1, 1]))
    assert stats.kstest(means, law.cdf).pvalue > 1e-3


def test_an_unknown_group_is_refused(faithful_fit):
    with pytest.raises(ValueError) as error:
        gb.with_groups(faithful_fit, "loglikelihood")
    assert str(error.value) == (
        "group must be one of log_likelihood, prior, prior_predictive, posterior_predictive, "
        "got 'loglikelihood'; did you mean 'log_likelihood'?"
    )


def test_round_trip_with_all_groups(full_fit, tmp_path):
    assert gb.load(full_fit.save(tmp_path / "all.nc")) == full_fit


def test_arviz_numbers(full_fit):
    summary = az.summary(full_fit.idata, var_names=["weights", "means"])
    assert list(summary.index) == [
        "weights[0]",
        "weights[1]",
        "means[0, eruptions]",
        "means[0, waiting]",
        "means[1, eruptions]",
        "means[1, waiting]",
    ]
    assert float(summary["mean"].astype(float).iloc[3]) == pytest.approx(54.5, abs=1)
    assert len(az.rhat(full_fit.idata, var_names=["means"])["means"].dims) == 2
    assert float(az.ess(full_fit.idata, var_names=["weights"])["weights"].min()) > 100
    loo = az.loo(full_fit.idata)
    elpd = loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo
    # Maximum log-likelihood -1130.3 less about eleven parameters.
    assert float(elpd) == pytest.approx(-1141.5, abs=3)


@pytest.fixture(scope="module")
def three_columns():
    return made_up_fit(far_apart(2, 3), n_draws=20)


@pytest.mark.parametrize("name", ["loo", "waic", "loo_subsample", "get_log_likelihood"])
def test_arviz_does_not_take_totals_for_rows(three_columns, name):
    function = getattr(az, name, None)
    if function is None:
        pytest.skip("the other line of ArviZ has it")
    more = {"observations": 5} if name == "loo_subsample" else {}
    with pytest.raises(TypeError, match="log likelihood not found"):
        function(three_columns.idata, **more)


def test_arviz_does_not_compare_totals(three_columns):
    with pytest.raises(TypeError, match="ELPD"):
        az.compare({"one": three_columns.idata, "two": three_columns.idata})


def test_arviz_summarises_everything_without_nan_or_a_warning(three_columns):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = az.summary(three_columns.idata)
    assert not summary.isna().any(axis=None)
    assert "correlations[1, x0:x2]" in summary.index
    covariances = three_columns.posterior["covariances"].values[0, 0, 1]
    shown = three_columns.idata.posterior["correlations"].sel(component=1, pair="x0:x2")[0, 0]
    by_hand = covariances[0, 2] / np.sqrt(covariances[0, 0] * covariances[2, 2])
    assert float(shown) == pytest.approx(by_hand, rel=1e-10)
    assert "correlation_cholesky" in three_columns.posterior


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_arviz_draws_all_traces_without_a_warning(three_columns):
    import matplotlib.pyplot as plt

    draw = getattr(az, "plot_trace_dist", az.plot_trace)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        assert draw(three_columns.idata) is not None
    plt.close("all")


@pytest.mark.parametrize("name", ["plot_trace", "plot_rank", "plot_forest", "plot_pair"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::PendingDeprecationWarning")
def test_arviz_pictures(full_fit, name):
    import matplotlib.pyplot as plt

    assert getattr(az, name)(full_fit.idata, var_names=["weights"]) is not None
    plt.close("all")
