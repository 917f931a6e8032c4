"""What is chosen of a fit."""

import numpy as np
import pytest

import gmm_bayes as gb
from gmm_bayes.plots import selection


def rescaled(fit: gb.GMMFit, factor: float) -> gb.GMMFit:
    """The same fit with wider or narrower components."""
    posterior = fit.posterior
    return fit.with_group("posterior", posterior.assign(scales=factor * posterior["scales"]))


def test_line_grid_resolves_narrow_components(waiting_fit: gb.GMMFit) -> None:
    fit = rescaled(waiting_fit, 1e-3)
    grid, draws = selection.line_grid(fit), fit.parameters()
    assert (np.diff(grid) > 0).all()
    for s in (0, len(draws.weights) - 1):
        for centre, sd in zip(draws.means[s, :, 0], draws.scale_tril[s, :, 0, 0], strict=True):
            inside = grid[abs(grid - centre) < 3 * sd]
            assert len(inside) > 20
            assert np.diff(inside).max() <= 0.26 * sd


def test_wide_components_do_not_squeeze_the_rows(geyser_fit: gb.GMMFit) -> None:
    X, (low, high) = geyser_fit.X.values, selection.extents(rescaled(geyser_fit, 1e3)).T
    reach = np.ptp(X, axis=0)
    np.testing.assert_allclose(low, X.min(axis=0) - 0.4 * reach)
    np.testing.assert_allclose(high, X.max(axis=0) + 0.4 * reach)


def test_extents_hold_the_rows(geyser_fit: gb.GMMFit) -> None:
    X, (low, high) = geyser_fit.X.values, selection.extents(geyser_fit).T
    reach = np.ptp(X, axis=0)
    assert (low <= X.min(axis=0) - 0.06 * reach).all()
    assert (high >= X.max(axis=0) + 0.06 * reach).all()
    assert (high - low <= 1.8 * reach * (1 + 1e-9)).all()


def test_choose() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(selection.choose(5, 5, rng), np.arange(5))
    some = selection.choose(100, 90, rng)
    assert len(set(some.tolist())) == 90
    assert (np.diff(some) > 0).all()


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (
            "wating",
            ValueError,
            r"features must be one of eruptions, waiting.*did you mean 'waiting'",
        ),
        (("waiting", "waiting"), ValueError, "distinct names"),
        ((), ValueError, "one or more distinct names"),
        (3, TypeError, "features must be names of features, got int"),
    ],
)
def test_bad_features(
    geyser_fit: gb.GMMFit, features: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        selection.check_features(geyser_fit, features)


def test_too_many_features(iris_fit: gb.GMMFit) -> None:
    with pytest.raises(ValueError, match="at most 2 names for this picture, got 3"):
        selection.check_features(iris_fit, iris_fit.feature_names[:3], 2)


def test_ranges_and_grids_do_not_depend_on_labels(
    geyser_fit: gb.GMMFit, switched_fit: gb.GMMFit
) -> None:
    np.testing.assert_array_equal(selection.extents(switched_fit), selection.extents(geyser_fit))
    grids = [
        selection.line_grid(gb.marginal(fit, ("waiting",))) for fit in (geyser_fit, switched_fit)
    ]
    np.testing.assert_allclose(*grids, rtol=1e-12)
