"""Groups on request, and ArviZ at work on them without help, on both of its lines."""

import numpy as np
import pytest
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


@pytest.mark.parametrize("name", ["plot_trace", "plot_rank", "plot_forest", "plot_pair"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::PendingDeprecationWarning")
def test_arviz_pictures(full_fit, name):
    import matplotlib.pyplot as plt

    assert getattr(az, name)(full_fit.idata, var_names=["weights"]) is not None
    plt.close("all")
