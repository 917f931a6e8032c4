"""What does not depend on labels: against the formulas, by hand, and blind to the order."""

import numpy as np
import pytest
import xarray as xr
from made_up import far_apart, made_up_fit, shuffled
from scipy.stats import multivariate_normal

import gmm_bayes as gb
from gmm_bayes.core import draws
from gmm_bayes.inference.fit import judge
from gmm_bayes.inference.verdict import label_free
from gmm_bayes.inference.verdict.label_free import label_free_quantities, spread_rows

PARAMETERS = {"weights", "means", "scales", "correlation_cholesky"}


@pytest.fixture(scope="module")
def overlapping():
    return made_up_fit([[0.0, 0.0], [2.0, 1.0], [0.0, 5.0]], n_draws=20, n_obs=57)


def test_formulas(overlapping):
    fit = overlapping
    found = label_free_quantities(fit).isel(chain=1, draw=7)
    draw = gb.MixtureParameters(*(a[27] for a in fit.parameters()))
    cov = draw.covariances
    mean = draw.weights @ draw.means
    np.testing.assert_allclose(found["mixture_mean"], mean, rtol=1e-12)
    second = sum(
        w * (c + np.outer(m, m)) for w, m, c in zip(draw.weights, draw.means, cov, strict=True)
    )
    expected = (second - np.outer(mean, mean))[np.tril_indices(2)]
    np.testing.assert_allclose(found["mixture_covariance"], expected, rtol=1e-10)
    np.testing.assert_array_equal(found["sorted_weights"], np.sort(draw.weights)[::-1])
    X = fit.X.values
    densities = np.array(
        [
            w * multivariate_normal.pdf(X, m, c)
            for w, m, c in zip(draw.weights, draw.means, cov, strict=True)
        ]
    )
    shares = densities / densities.sum(axis=0)
    # So few rows that the entropy is over all of them.
    np.testing.assert_allclose(
        found["entropy"], -(shares * np.log(shares)).sum(axis=0).mean(), rtol=1e-10
    )
    assert found["anchor_log_density"].shape == (10,)
    logs = np.log(densities.sum(axis=0))
    assert all(
        np.isclose(logs, one, rtol=1e-10).any() for one in found["anchor_log_density"].values
    )


def test_blind_to_the_order_of_components(overlapping):
    mixed, _ = shuffled(overlapping)
    ours, theirs = label_free_quantities(overlapping), label_free_quantities(mixed)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_rows_cover_the_data_whatever_their_order():
    X = np.random.default_rng(0).standard_normal((1000, 3)) * [10, 1, 1]
    picked = spread_rows(X, 10)
    assert len(set(picked)) == 10
    assert {X[:, 0].argmin(), X[:, 0].argmax()} <= set(picked)
    order = np.random.default_rng(1).permutation(1000)
    assert set(order[spread_rows(X[order], 10)]) == set(picked)
    assert len(spread_rows(X[:4], 10)) == 4


def test_work_is_bounded(overlapping, monkeypatch):
    monkeypatch.setattr(label_free, "_MOST_NUMBERS", 1)
    monkeypatch.setattr(draws, "_CHUNK", 1)
    few = label_free_quantities(overlapping)
    assert few["anchor_log_density"].shape == (2, 20, 10)
    assert np.isfinite(few["entropy"]).all()


def test_a_draw_that_collapsed_or_is_not_finite_says_so(overlapping):
    draws = overlapping.posterior.copy(deep=True)
    draws["scales"].values[0, 0, 1] = 0
    draws["means"].values[0, 1] = np.nan
    found = label_free_quantities(overlapping.with_group("posterior", draws))
    assert np.isnan(found["entropy"].values[0, 1])
    assert np.isfinite(found["entropy"].values[:, 2:]).all()


def test_one_component_has_no_entropy():
    table = gb.diagnose(made_up_fit([[0.0, 0.0]])).table
    assert "entropy" not in table.index
    assert "anchor_log_density" in table.index


def test_the_table_begins_with_them(overlapping):
    table = gb.diagnose(overlapping).table
    free = table.index[table["label_free"].astype(bool)]
    assert list(free) == [
        "log_likelihood",
        "lp",
        "sorted_weights",
        "mixture_mean",
        "mixture_covariance",
        "entropy",
        "anchor_log_density",
    ]
    assert set(table.index) - set(free) == PARAMETERS


def chain_changed(fit, change):
    """The fit with `change(posterior)` written into the draws of its second chain."""
    posterior = fit.posterior.copy(deep=True)
    change(posterior.isel(chain=1))
    return fit.with_group("posterior", posterior)


def test_what_only_the_new_quantities_see():
    """A chain whose mixture has the same moments, but another shape."""
    fit = made_up_fit(far_apart(2, 1), n_draws=300, n_obs=300, noise=0.05)
    assert gb.diagnose(fit).ok

    def swap_spreads(posterior):
        posterior["scales"].values[:] *= 1.3
        posterior["covariances"].values[:] *= 1.3**2

    table = gb.diagnose(chain_changed(fit, swap_spreads)).table
    assert table.loc["anchor_log_density", "rhat"] > 1.1
    assert table.loc["mixture_mean", "rhat"] < 1.02
    assert table.loc["sorted_weights", "rhat"] < 1.02


def test_switched_labels_leave_the_posterior_believed_and_alignment_the_components():
    # Wide, so that a prior which is not symmetric does not mind the switch.
    fit = made_up_fit(far_apart(3, 2), n_draws=1000, noise=0.05, prior_variance=1e6)
    assert gb.diagnose(fit).components_ok
    mixed, _ = shuffled(fit, chains_only=True, seed=1)
    found = gb.diagnose(mixed)
    assert (found.ok, found.components_ok, found.switched, found.problems) == (
        True,
        False,
        True,
        (),
    )
    assert found.table.loc["means", "rhat"] > 1.5
    assert found.rhat < 1.01
    aligned = gb.align_labels(mixed)
    after = gb.diagnose(aligned)
    assert (after.ok, after.components_ok, after.switched) == (True, True, False)
    # Draws that were made up have no survey.
    assert after.notes == ("other modes were not looked for",)
    assert after.rhat == max(after.table["rhat"]) < 1.01
    assert "believe it?: yes\n" in repr(aligned)


def test_components_that_cannot_be_told_apart_are_said():
    means = [[9.0, 9.0], [0.0, 0.0], [0.0, 0.0]]
    fit = made_up_fit(means, n_draws=400, noise=0.4, weight_noise=60)
    assert gb.diagnose(fit).ok
    found = gb.diagnose(gb.align_labels(fit))
    assert (found.ok, found.components_ok) == (True, False)
    assert found.notes[0].startswith("components 1 and 2 cannot be told apart")
    assert found.advice == ()


def test_parameters_that_disagree_alone_are_doubted_and_alignment_advised():
    """No draw prefers another order, but the chains differ in a component without rows."""
    fit = made_up_fit(
        far_apart(2, 1), n_draws=1000, noise=0.05, weights=[1 - 1e-7, 1e-7], weight_noise=1e7
    )

    def shift_the_empty_one(posterior):
        posterior["means"].values[:, 1] += 0.3

    found = gb.diagnose(chain_changed(fit, shift_the_empty_one))
    assert not found.ok
    assert not found.switched
    assert found.problems[0].startswith("R-hat is 1.")
    assert found.advice[-1].startswith("Renumber the components with align_labels(fit)")


def test_the_verdict_is_written_down():
    mixed, _ = shuffled(made_up_fit(far_apart(2, 2), n_draws=1000, noise=0.05))
    assert not mixed.switched
    with pytest.warns(gb.errors.LabelSwitchingWarning) as caught:
        judge(mixed)
    assert len(caught) == 1
    said = str(caught[0].message)
    assert said.startswith("Components changed places between draws (label switching): ")
    assert said.endswith("Renumber the components with align_labels(fit), and diagnose the result.")
    assert mixed.switched
    assert mixed.problems == ()
    # What is looked at first: no averages that mean nothing, and what to do.
    for shown in (repr(mixed), mixed._repr_html_()):
        assert "yes, but not component by component" in shown
        assert "Renumber the components with align_labels(fit), and diagnose" in shown
        assert "No table of components: they changed places between draws" in shown
        assert "+/-" not in shown
    with pytest.raises(gb.errors.LabelSwitchingError, match=r"gmm_bayes.align_labels\(fit\) renu"):
        mixed.summary()
    aligned = gb.align_labels(mixed)
    assert "advice" not in repr(aligned)
    assert repr(aligned).count("+/-") == len(aligned.summary()) * 2 + 2


def test_results_of_the_first_versions_say_it_among_their_problems(overlapping):
    tree = xr.DataTree.from_dict({"posterior": overlapping.posterior})
    tree.attrs["problems"] = '["components changed places between draws (label switching)"]'
    assert gb.GMMFit(tree).switched
