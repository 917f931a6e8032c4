"""On a GPU: what the CPU says, in both precisions. Without one, these are skipped.

`GMM_BAYES_TEST_DEVICE=cpu` runs them on the CPU, which shows that they can be run, and no more.
"""

import math
import os

import jax
import numpy as np
import pytest
import xarray as xr

import gmm_bayes as gb
from gmm_bayes._vocabulary import PRECISIONS
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.potential import Data, ModelSpec, log_prior, site_values, space
from gmm_bayes.inference.sampling.mode import value_and_gradient
from gmm_bayes.machine.devices import double_precision, find_device

DEVICE = os.environ.get("GMM_BAYES_TEST_DEVICE", "gpu")


def is_there():
    try:
        return bool(jax.devices(DEVICE))
    except RuntimeError:
        return False


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not is_there(), reason=f"there is no {DEVICE} here"),
]
BOTH = pytest.mark.parametrize("precision", PRECISIONS)
# Of the log density and its gradient, beside the value on a CPU in double precision.
CLOSE = {"float64": 1e-11, "float32": 2e-6}


@pytest.fixture(scope="module")
def rows():
    return gb.datasets.make_mixture(20_000, 4, 5, seed=2)


def at_the_truth(rows, device, precision, size):
    """The potential and its gradient at the mixture that made the rows."""
    spec = ModelSpec(4, "full")
    prior = gb.Priors.fixed(rows.means).arrays(4, 5)
    truth = gb.MixtureParameters(rows.weights, rows.means, np.linalg.cholesky(rows.covariances))
    with double_precision(), jax.default_device(find_device(device)):
        blocks = block_rows(rows.X, precision=precision, groups=rows.labels, rows_per_block=size)
        data = jax.device_put(Data(blocks, log_prior(prior, spec)), find_device(device))
        z = space(spec, 5).vector(site_values(truth, spec))
        value, gradient = value_and_gradient(z, data, spec)
        assert value.devices() == {find_device(device)}
        assert value.dtype == np.float64
        return float(value), np.asarray(gradient)


@BOTH
def test_the_log_density_and_its_gradient(rows, precision):
    value, gradient = at_the_truth(rows, DEVICE, precision, 2**15)
    expected, slope = at_the_truth(rows, "cpu", "float64", None)
    assert abs(value - expected) < CLOSE[precision] * abs(expected)
    np.testing.assert_allclose(gradient, slope, atol=CLOSE[precision] * len(rows.X))


def test_em(rows):
    fits = [gb.fit_em(rows.X, 4, seed=1, device=device) for device in (DEVICE, "cpu")]
    assert abs(fits[0].log_likelihood - fits[1].log_likelihood) < 1e-6
    for ours, theirs in zip(fits[0].parameters, fits[1].parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


SAMPLERS = {
    "one batch of NUTS": gb.NUTS(num_chains=8, chain_method="vectorized"),
    "ChEES": gb.ChEES(num_samples=100, num_chains=64),
    "Laplace": gb.Laplace(num_samples=4000),
}


@pytest.mark.parametrize("name", SAMPLERS)
@BOTH
def test_the_posterior_is_that_of_the_cpu(faithful, faithful_fit, name, precision):
    sampler = SAMPLERS[name]
    fit = gb.fit(faithful, 2, sampler=sampler, seed=5, device=DEVICE, precision=precision)
    assert fit.device.startswith(DEVICE)
    found = gb.diagnose(fit)
    problems = [p for p in found.problems if "ESS" not in p]
    assert not problems
    for site in ("weights", "means", "scales"):
        for ours, theirs in zip(entries(fit, site), entries(faithful_fit, site), strict=True):
            # Resampled draws are worth as many as their weights say.
            n = found.ess_bulk if sampler.judged_by == "weights" else ess(ours)
            error = math.hypot(ours.std() / n**0.5, theirs.std() / ess(theirs) ** 0.5)
            assert abs(ours.mean() - theirs.mean()) < 5 * error, site
            assert abs(ours.std() / theirs.std() - 1) < 5 / math.sqrt(min(n, ess(theirs))), site
    np.testing.assert_allclose(
        gb.responsibilities(fit), gb.responsibilities(faithful_fit), atol=0.02
    )


def entries(fit, site):
    values = fit.posterior[site].values
    return np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)


def ess(values):
    as_dataset = xr.Dataset({"x": (("chain", "draw"), values)})
    return min(float(arviz_bridge.ess(as_dataset, "bulk")["x"]), values.size)


def test_a_gpu_takes_one_batch(faithful):
    fit = gb.fit(faithful, 2, seed=5, device=DEVICE)
    assert fit.chain_method == ("vectorized" if DEVICE == "gpu" else "parallel")
    assert gb.diagnose(fit).ok
