"""The mode, the curvature, the coordinates, and the draws of the normal approximation."""

import jax
import numpy as np
import pytest
from scipy.stats import halfcauchy, norm

import gmm_bayes as gb
from gmm_bayes.core import mixture
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference import potential as pot
from gmm_bayes.inference.potential import Data, ModelSpec
from gmm_bayes.inference.sampling import laplace as samplers
from gmm_bayes.inference.sampling import mode as laplace
from gmm_bayes.inference.sampling.coordinates import AffineMap, BlockMap


def problem(covariance_type, k, d, n_obs=300):
    """Data, model, a start near the truth, and the potential written out by rows."""
    truth = gb.datasets.make_mixture(n_obs, k, d, covariance_type=covariance_type, seed=2)
    spec = ModelSpec(k, covariance_type)
    prior = pot.log_prior(gb.Priors.fixed(truth.means).arrays(k, d), spec)
    data = Data(block_rows(truth.X), prior)
    here = pot.space(spec, d)
    start = MixtureParameters(truth.weights, truth.means, np.linalg.cholesky(truth.covariances))

    def by_rows(z):
        sites = here.sites(z)
        tril = here.structure.scale_tril(sites["scales"], sites.get("correlation_cholesky"), k, d)
        parameters = MixtureParameters(sites["weights"], sites["means"], tril)
        return -here.log_density(z, prior) - mixture.log_density(truth.X, parameters).sum()

    return jax.device_put(data), spec, here.vector(pot.site_values(start, spec)), by_rows


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 2), (3, 4)])
def test_curvature_is_that_of_automatic_differentiation_by_rows(covariance_type, k, d):
    data, spec, start, by_rows = problem(covariance_type, k, d)
    found = laplace.normal_approximation(start, data, spec)
    assert found.curvature == "dense"
    gradient, hessian = jax.jit(lambda z: (jax.grad(by_rows)(z), jax.hessian(by_rows)(z)))(
        found.affine.loc
    )
    np.testing.assert_allclose(found.potential, jax.jit(by_rows)(found.affine.loc), rtol=1e-10)
    # At the mode, to a small part of a posterior sd.
    assert abs(found.affine.pull_back(np.asarray(gradient))).max() < 1e-2
    # In the new coordinates the curvature is the identity.
    factor = found.affine.factor
    np.testing.assert_allclose(factor.T @ hessian @ factor, np.eye(len(start)), atol=0.01)


@pytest.mark.usefixtures("double")
def test_curvature_by_component_is_the_dense_one_where_components_are_apart(monkeypatch):
    data, spec, start, _ = problem("full", 3, 2)
    dense = laplace.normal_approximation(start, data, spec)
    monkeypatch.setattr(laplace, "_DENSE_DIMENSION", 5)
    blocks = laplace.normal_approximation(start, data, spec)
    assert blocks.curvature == "by component"
    assert isinstance(blocks.affine, BlockMap)
    shapes = [[a.shape for a in m] for m in (laplace.blank_map(data, spec), blocks.affine)]
    assert shapes[0] == shapes[1]
    eye = np.eye(len(start))
    factor = np.stack([blocks.affine.apply(e) - blocks.affine.loc for e in eye], axis=1)
    ours, exact = factor @ factor.T, dense.affine.factor @ dense.affine.factor.T
    sds = np.sqrt(np.diagonal(exact))
    np.testing.assert_allclose(np.sqrt(np.diagonal(ours)), sds, rtol=0.1)
    assert abs(ours - exact).max() < 0.2 * (sds[:, None] * sds).max()


def random_maps():
    rng = np.random.default_rng(4)
    loc, d = rng.standard_normal(8), 8

    def upper(n):
        return np.triu(rng.uniform(0.5, 1, (n, n)))

    order = rng.permutation(d)
    yield AffineMap(loc, rng.uniform(0.5, 2, d))
    yield AffineMap(loc, upper(d))
    yield BlockMap(loc, np.stack([upper(3), upper(3)]), upper(2), order, np.argsort(order))


@pytest.mark.parametrize("affine", list(random_maps()), ids=["diagonal", "dense", "blocks"])
def test_maps_move_points_and_gradients(affine):
    """By the matrix of the map, for one vector and for arrays of them, in NumPy and in JAX."""
    d = len(affine.loc)
    matrix = np.stack([affine.apply(e) - affine.loc for e in np.eye(d)], axis=1)
    assert np.linalg.cond(matrix) < 1e6
    eta, slope = np.random.default_rng(5).standard_normal((2, 4, 3, d))
    np.testing.assert_allclose(affine.apply(eta), affine.loc + eta @ matrix.T, atol=1e-12)
    np.testing.assert_allclose(affine.pull_back(slope), slope @ matrix, atol=1e-12)
    np.testing.assert_allclose(affine.push_forward(affine.pull_back(slope)), slope, atol=1e-9)
    with jax.enable_x64(True):
        on_device = jax.tree.map(jax.device_put, affine).apply(jax.device_put(eta[0, 0]))
    np.testing.assert_allclose(on_device, affine.apply(eta[0, 0]), atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_some_of_the_rows_are_some_of_every_group(monkeypatch, precision):
    """Rows sorted by group, one of them rare: none is lost, and the sums stay about the same."""
    monkeypatch.setattr(laplace, "_MANY_ROWS", 2000)
    groups = np.repeat(np.arange(3), [12_000, 700, 7300])
    X = 20.0 * groups[:, None] + np.random.default_rng(0).standard_normal((20_000, 2))
    prior = pot.log_prior(gb.Priors.fixed(np.zeros((3, 2))).arrays(3, 2), ModelSpec(3, "full"))
    rows = block_rows(X, precision=precision, groups=groups if precision == "float32" else None)
    thin = laplace._thinned(jax.device_put(Data(rows, prior))).rows
    assert thin.values.dtype == np.float64
    weights = np.asarray(thin.weights)
    assert weights.sum() == pytest.approx(20_000)
    assert 2000 <= (weights > 0).sum() < 3000
    kept = np.asarray(thin.values).swapaxes(1, 2)[weights > 0]
    np.testing.assert_array_equal(kept[:, 0], 1)
    shares = np.bincount(np.rint(kept[:, 1:].mean(axis=1) / 20).astype(int)) / len(kept)
    np.testing.assert_allclose(shares, [0.6, 0.035, 0.365], atol=0.02)


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_chains_run_in_coordinates_by_component(faithful, faithful_fit, monkeypatch):
    monkeypatch.setattr(laplace, "_DENSE_DIMENSION", 5)
    fit = gb.fit(faithful, 2, sampler=gb.NUTS(num_samples=1000), seed=2)
    assert fit.run["preconditioning"] == "laplace"
    assert fit.run["curvature"] == "by component"
    for name in ("weights", "means", "scales"):
        ours, theirs = (f.posterior[name].values for f in (fit, faithful_fit))
        sd = theirs.std((0, 1))
        assert (abs(ours.mean((0, 1)) - theirs.mean((0, 1))) < 5 * sd * np.sqrt(2 / 1000)).all()
    assert abs(fit.sample_stats["n_occupied"] - 2).max() == 0


def test_curvature_falls_back_step_by_step():
    good = np.array([[4.0, 1.0], [1.0, 9.0]])
    factor, words = laplace.inverse_factor(good)
    np.testing.assert_allclose(factor @ factor.T, np.linalg.inv(good), rtol=1e-12)
    assert words == ""
    assert np.tril(factor, -1).sum() == 0

    saddle = np.array([[4.0, 7.0], [7.0, 9.0]])
    factor, words = laplace.inverse_factor(saddle)
    assert words == "regularized"
    # Along the direction that bends upwards the curvature is kept.
    values = np.linalg.eigvalsh(np.array([[1.0, 7 / 6], [7 / 6, 1.0]]))
    scaled = np.diag([2.0, 3.0]) @ factor
    np.testing.assert_allclose(
        np.sort(np.linalg.eigvalsh(scaled @ scaled.T)), np.sort(1 / abs(values)), rtol=1e-9
    )

    holed = np.array([[4.0, np.nan], [np.nan, 9.0]])
    factor, words = laplace.inverse_factor(holed)
    assert words == "diagonal"
    np.testing.assert_allclose(factor, np.diag([0.5, 1 / 3]))

    assert laplace.inverse_factor(np.array([[0.0, 0.0], [0.0, 1.0]])) is None
    assert laplace.inverse_factor(np.array([[np.inf, 0.0], [0.0, 1.0]])) is None


@pytest.fixture(scope="module")
def quick(faithful):
    return gb.fit(faithful, 2, sampler=gb.Laplace(num_samples=2000), seed=1)


def test_laplace_agrees_with_chains(quick, faithful_fit):
    """Means and sds within Monte-Carlo error of the two."""
    run = quick.run
    assert run["pareto_k"] < 0.7
    assert run["importance_ess"] > 1000
    for name in ("weights", "means", "scales"):
        ours, theirs = (f.posterior[name].values for f in (quick, faithful_fit))
        sd = theirs.std((0, 1))
        # 2000 draws are resampled from weights worth about as many; chains are worth 1000 at least.
        error = sd * np.sqrt(1 / 1000 + 1 / 1000)
        assert (abs(ours.mean((0, 1)) - theirs.mean((0, 1))) < 5 * error).all(), name
        assert (abs(np.log(ours.std((0, 1)) / sd)) < 5 * np.sqrt(1.5 / 1000 + 1.5 / 1000)).all()
    both = [f.sample_stats["total_log_likelihood"].values for f in (quick, faithful_fit)]
    assert abs(both[0].mean() - both[1].mean()) < 5 * both[1].std() * np.sqrt(2 / 1000)


def exact_scale(X, priors):
    """Posterior mean of the one scale of one normal in one dimension, by quadrature."""
    (a,), (b,) = priors.mean_loc[0], np.ravel(priors.mean_covariance)
    mean = np.linspace(X.mean() - 10 * X.std(), X.mean() + 10 * X.std(), 801)[:, None]
    scale = np.exp(np.linspace(-4, 4, 801)) * X.std()
    log_density = norm(a, np.sqrt(b)).logpdf(mean) + halfcauchy(scale=priors.scale_scale).logpdf(
        scale
    )
    log_density = log_density + sum(norm(mean, scale).logpdf(x) for x in X.ravel()) + np.log(scale)
    weight = np.exp(log_density - log_density.max())
    return (weight * scale).sum() / weight.sum()


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.DataWarning")
def test_the_weights_correct_the_approximation(faithful, monkeypatch, corrected):
    """Six rows of one normal: a skewed posterior, right with the weights, wrong without them."""
    if not corrected:
        monkeypatch.setattr(
            samplers.arviz_bridge, "smoothed_weights", lambda w: (np.full(len(w), 1 / len(w)), 0.0)
        )
    X = faithful[["waiting"]].to_numpy()[:6]
    fit = gb.fit(X, 1, sampler=gb.Laplace(num_samples=10_000), seed=2)
    scale = fit.posterior["scales"].values
    error = scale.std() / np.sqrt(min(scale.size, fit.run["importance_ess"]))
    difference = abs(scale.mean() - exact_scale(X, fit.priors))
    assert (difference < 5 * error) == corrected


def test_laplace_verdict_and_record(quick, tmp_path):
    diagnosis = gb.diagnose(quick)
    assert diagnosis.ok
    assert diagnosis.pareto_k == quick.run["pareto_k"]
    assert np.isnan(diagnosis.rhat)
    assert "Pareto k" in repr(diagnosis)
    assert any("other than the one" in note for note in diagnosis.notes)
    assert quick.posterior.sizes == {**quick.posterior.sizes, "chain": 1, "draw": 2000}
    assert quick.sampler == gb.Laplace(num_samples=2000)
    again = gb.load(quick.save(tmp_path / "quick.nc"))
    assert again == quick
    assert again.sampler == quick.sampler
    assert gb.responsibilities(again).shape == (272, 2)


def test_laplace_refuses_to_look_reliable(faithful):
    """Surplus components: the posterior is nothing like a normal distribution."""
    with pytest.warns(gb.errors.ConvergenceWarning, match="Pareto k"):
        fit = gb.fit(faithful, 4, sampler=gb.Laplace(num_samples=500), seed=1)
    diagnosis = gb.diagnose(fit)
    assert not diagnosis.ok
    assert diagnosis.pareto_k > 0.7
    assert "sampler=NUTS()" in " ".join(diagnosis.advice)


def test_smoothed_weights_are_the_weights_but_for_their_tail():
    """The two ArviZ lines take opposite signs."""
    log_weights = np.random.default_rng(0).standard_normal(4000)
    weights, k = arviz_bridge.smoothed_weights(log_weights)
    assert weights.sum() == pytest.approx(1)
    assert -0.2 < k < 0.7
    below = np.argsort(log_weights)[:3000]
    ratio = np.log(weights[below]) - log_weights[below]
    np.testing.assert_allclose(ratio, ratio[0], atol=1e-8)
    assert np.corrcoef(np.log(weights), log_weights)[0, 1] > 0.99


def test_resampling_follows_the_weights():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(20))
    counts = np.bincount(samplers._resample(weights, 1000, rng), minlength=20)
    assert counts.sum() == 1000
    assert (abs(counts - 1000 * weights) < 1).all()


@pytest.mark.parametrize("value", [0, 2.5, "3", True, None])
def test_laplace_settings_are_checked(value):
    with pytest.raises((TypeError, ValueError), match="num_samples must be"):
        gb.Laplace(num_samples=value)


def test_chains_start_adapted_where_that_helps(faithful_fit):
    run = faithful_fit.run
    assert run["preconditioning"] == "laplace"
    assert run["curvature"] == "dense"
    assert 0 < run["departure_from_normal"] < 1
    steps = faithful_fit.sample_stats["n_steps"].values
    # In the right coordinates a trajectory is short, and as long as any other.
    assert steps.mean() < 10
    assert run["n_gradients"] > steps.sum()


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_chains_adapt_themselves_where_it_does_not(faithful):
    """Surplus components are noticed, said, and given the plain warm-up."""
    sampler = gb.NUTS(num_warmup=100, num_samples=20)
    fit = gb.fit(faithful, 4, sampler=sampler, seed=1)
    assert fit.run["preconditioning"] == "none"
    assert fit.run["departure_from_normal"] >= 1
    assert "not close to a normal distribution" in fit.run["reason"]


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_without_curvature_chains_adapt_themselves(faithful, monkeypatch):
    monkeypatch.setattr(laplace, "inverse_factor", lambda hessian: None)
    sampler = gb.NUTS(num_warmup=100, num_samples=20)
    fit = gb.fit(faithful, 4, sampler=sampler, seed=1)
    assert fit.run["preconditioning"] == "none"
    assert fit.run["reason"] == "there is no curvature at the mode"
    with pytest.raises(gb.errors.InferenceError, match="no normal approximation"):
        gb.fit(faithful, 4, sampler=gb.Laplace(), seed=1)


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_single_precision_samples_the_same_posterior(faithful, faithful_fit):
    sampler = gb.NUTS(num_warmup=200, num_samples=1000)
    fit = gb.fit(faithful, 2, sampler=sampler, seed=5, precision="float32")
    assert fit.posterior["means"].dtype == np.float64
    for name in ("weights", "means", "scales"):
        ours, theirs = (f.posterior[name].values for f in (fit, faithful_fit))
        sd = theirs.std((0, 1))
        assert (abs(ours.mean((0, 1)) - theirs.mean((0, 1))) < 5 * sd * np.sqrt(2 / 1000)).all()
