"""Switched labels and occupied components, planted and counted by hand."""

import numpy as np
import pytest
import xarray as xr
from made_up import far_apart, made_up_fit

import gmm_bayes as gb
from gmm_bayes.inference.verdict.measures import labels_switched, switched_share


def exchanged(fit, draws):
    """The fit with its two components exchanged in some draws, a mask (chain, draw)."""
    tree = fit.datatree.copy(deep=True)
    posterior = tree["posterior"].to_dataset()
    mask = xr.DataArray(draws, dims=("chain", "draw"))
    other = posterior.isel(component=[1, 0]).assign_coords(component=posterior["component"])
    tree["posterior"] = xr.where(mask, other, posterior)[list(posterior.data_vars)]
    tree["posterior"] = xr.Dataset(
        {n: tree["posterior"][n].transpose(*posterior[n].dims) for n in posterior.data_vars}
    )
    return gb.GMMFit(tree)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_single_draws_that_switch_are_seen(line_fit, share):
    """Switching back and forth leaves every stretch of a chain with the same mean."""
    rng = np.random.default_rng(0)
    fit = exchanged(line_fit, rng.random((4, 1000)) < share)
    found = switched_share(fit)
    assert min(found, 1 - found) == pytest.approx(share, abs=0.06)
    with pytest.raises(gb.errors.LabelSwitchingError):
        gb.responsibilities(fit)
    assert "components changed places" in gb.diagnose(fit).notes[0]
    np.testing.assert_allclose(
        gb.log_predictive_density(fit), gb.log_predictive_density(line_fit), rtol=1e-10
    )


def test_components_that_differ_only_in_scale_are_told_apart(faithful_fit):
    tree = faithful_fit.datatree.copy(deep=True)
    posterior = tree["posterior"].to_dataset()
    posterior["means"] = posterior["means"].mean("component") + 0 * posterior["means"]
    posterior["scales"] = posterior["scales"] * xr.DataArray([1.0, 9.0], dims="component")
    posterior["weights"] = 0.5 + 0 * posterior["weights"]
    order = {n: v.dims for n, v in faithful_fit.posterior.items()}
    tree["posterior"] = posterior.map(lambda v: v.transpose(*order[v.name]))
    concentric = gb.GMMFit(tree)
    assert switched_share(concentric) == 0
    chains = np.zeros((4, 1000), dtype=bool)
    chains[1] = True
    # One chain in four, or the other three where the best draw is in that one.
    share = switched_share(exchanged(concentric, chains))
    assert min(share, 1 - share) == pytest.approx(0.25, abs=0.02)


def test_a_good_fit_has_not_switched(faithful_fit, line_fit):
    assert not labels_switched(faithful_fit)
    assert not labels_switched(line_fit)


def test_occupied_components_are_counted_from_responsibilities(faithful_fit, line_fit):
    for fit in (faithful_fit, line_fit):
        thin = gb.GMMFit(fit.datatree.isel(draw=slice(None, None, 100)))
        rows = gb.responsibilities(thin, reduce=None).sum("obs")
        expected = (rows >= 1).sum("component")
        np.testing.assert_array_equal(thin.sample_stats["n_occupied"], expected)


def test_a_component_without_rows_has_not_switched_with_one_that_has_them():
    """Wherever it lies: a match with it costs nothing only where it is free to be anywhere."""
    weights = [1 - 1e-7, 1e-7]
    fit = made_up_fit(far_apart(2, 1), weights=weights, weight_noise=1e7)
    assert switched_share(fit) == 0
