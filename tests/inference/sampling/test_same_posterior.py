"""Chains that start adapted draw from the posterior that plain NUTS draws from.

Plain NUTS is `preconditioning="none"`: NumPyro's kernel, its own warm-up, the model's own
coordinates; `test_against_numpyro.py` holds it to NumPyro's model and `MCMC`.
"""

import numpy as np
import pytest
from test_against_numpyro import assert_same_posterior

import gmm_bayes as gb

pytestmark = pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")


def one_normal():
    rows = np.random.default_rng(3).standard_normal((200, 10))
    return rows @ np.random.default_rng(4).standard_normal((10, 10)), 1, None


def mixture_of(n_obs, k, d):
    truth = gb.datasets.make_mixture(n_obs, k, d, seed=1)
    return lambda: (truth.X, k, None)


def overlapping():
    rng = np.random.default_rng(5)
    wide = 1.5 * rng.standard_normal((150, 2)) + [1.5, 0.5]
    return np.concatenate([rng.standard_normal((150, 2)), wide]), 2, None


NEAR_NORMAL = {
    "D=1, K=2": lambda: (gb.datasets.load_old_faithful()[["waiting"]].to_numpy(), 2, None),
    "D=10, K=1": one_normal,
    "D=2, K=8": lambda: (gb.datasets.make_blobs().X, 8, gb.Priors.fixed()),
    "D=5, K=3": mixture_of(600, 3, 5),
}
FAR_FROM_NORMAL = {
    "one component too many": lambda: (gb.datasets.load_old_faithful().to_numpy(), 3, None),
    "overlapping clusters": overlapping,
}


def both(problem, num_samples):
    X, k, priors = problem()
    return [
        gb.fit(
            X,
            k,
            priors=priors,
            sampler=gb.NUTS(num_samples=num_samples, preconditioning=how),
            seed=seed,
        )
        for how, seed in (("auto", 1), ("none", 2))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NEAR_NORMAL)
def test_the_same_parameters(name):
    adapted, plain = both(NEAR_NORMAL[name], 2000)
    assert adapted.run["preconditioning"] == "laplace"
    assert plain.run["preconditioning"] == "none"
    theirs = {
        name: values.values
        for name, values in plain.posterior.items()
        if name != "covariances" and values.values.std() > 0
    }
    assert_same_posterior(adapted, theirs)
    # And for fewer gradients, warm-up and search included: half as many or less.
    assert adapted.run["n_gradients"] < 0.6 * plain.run["n_gradients"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAR_FROM_NORMAL)
def test_where_it_is_far_from_normal_it_is_plain_nuts(name):
    """Labels switch there, so what does not depend on them is compared."""
    # With an empty component a chain of four thousand was seen to be worth sixteen draws.
    adapted, plain = both(FAR_FROM_NORMAL[name], 12_000)
    assert adapted.run["preconditioning"] == "none"
    assert adapted.run["departure_from_normal"] >= 1
    free = [label_free(fit) for fit in (adapted, plain)]
    for name, theirs in free[1].items():
        ours = free[0][name]
        ess = [
            min(gb.inference.arviz_bridge.ess(as_dataset(v), "bulk")["x"].values.min(), v.size)
            for v in (ours, theirs)
        ]
        assert min(ess) > 100, (name, ess)
        sd = theirs.std()
        error = sd * np.sqrt(1 / ess[0] + 1 / ess[1])
        assert abs(ours.mean() - theirs.mean()) < 5 * error, name
        allowed = 5 * np.sqrt(1.5 / ess[0] + 1.5 / ess[1])
        assert abs(np.log(ours.std() / sd)) < allowed, name


def as_dataset(values):
    import xarray as xr

    return xr.Dataset({"x": (("chain", "draw"), values)})


def label_free(fit):
    """The log-likelihood, the sorted weights, and the mean and sd of the mixture."""
    posterior = fit.posterior
    weights, means = posterior["weights"].values, posterior["means"].values
    mean = np.einsum("cdk,cdkf->cdf", weights, means)
    out = {"log_likelihood": fit.sample_stats["total_log_likelihood"].values}
    for f in range(fit.n_features):
        out[f"mean {f}"] = mean[..., f]
    out["smallest weight"] = weights.min(axis=-1)
    return out
