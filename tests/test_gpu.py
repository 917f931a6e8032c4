"""On a GPU: the same posterior, in float64. Without one, these are skipped."""

import jax
import numpy as np
import pytest

import gmm_bayes as gb
from gmm_bayes.inference import arviz_bridge


def has_gpu():
    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not has_gpu(), reason="there is no GPU here")]


def test_the_posterior_is_that_of_the_cpu(faithful, faithful_fit):
    sampler = gb.NUTS(num_warmup=500, num_samples=1000)
    fit = gb.fit(faithful, 2, sampler=sampler, seed=5, device="gpu")
    assert fit.device.startswith("gpu")
    assert fit.chain_method == "vectorized"
    assert gb.diagnose(fit).ok
    for name in ("weights", "means", "scales"):
        ours, theirs = fit.posterior[name], faithful_fit.posterior[name]
        errors = [
            draws.std(("chain", "draw"))
            / np.sqrt(arviz_bridge.ess(draws.to_dataset(name="x"), "bulk")["x"])
            for draws in (ours, theirs)
        ]
        difference = abs(ours.mean(("chain", "draw")) - theirs.mean(("chain", "draw")))
        assert (difference < 5 * np.hypot(*errors)).all(), name
    np.testing.assert_allclose(
        gb.responsibilities(fit), gb.responsibilities(faithful_fit), atol=0.02
    )
