"""Fits whose draws were never sampled, so that a test knows which component is which."""

import json

import numpy as np
import xarray as xr

import gmm_bayes as gb
from gmm_bayes._vocabulary import COMPONENT, FEATURE, FEATURE2, OBS
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result import netcdf as storage
from gmm_bayes.inference.result.tree import label_sites

CHAINS = 2
CENTRES = "centres"


def wishart(rng, shape, n_features, df):
    root = rng.standard_normal((*shape, n_features, df))
    return root @ root.swapaxes(-1, -2) / df


def made_up_fit(
    means,
    *,
    covariance_type="full",
    weights=None,
    n_draws=60,
    n_obs=200,
    noise=0.1,
    weight_noise=400.0,
    prior=CENTRES,
    prior_variance=0.1,
    seed=0,
):
    """Draws about one mixture of unit spread, CHAINS x `n_draws` of them, and rows from it.

    `prior` is "centres" for one that is centred at the means, or "symmetric" for equal centres;
    `prior_variance` is that of every mean.
    """
    means = np.asarray(means, float)
    k, d = means.shape
    rng = np.random.default_rng(seed)
    structure = COVARIANCE_STRUCTURES[covariance_type]
    weights = np.full(k, 1 / k) if weights is None else np.asarray(weights)
    shape = (CHAINS, n_draws)
    sites = {
        "weights": rng.dirichlet(weight_noise * weights, shape),
        "means": means + noise * rng.standard_normal((*shape, k, d)),
    }
    dense = wishart(rng, (*shape, k), d, 100)
    parts = [[structure.sites(dense[c, s]) for s in range(n_draws)] for c in range(CHAINS)]
    sites["scales"] = np.array([[p[0] for p in chain] for chain in parts])
    if structure.has_correlations(d):
        sites["correlation_cholesky"] = np.array([[p[1] for p in chain] for chain in parts])
    elif structure.correlation_dims is not None:
        sites["correlation_cholesky"] = np.ones(
            (*shape, *[k] * (len(structure.correlation_dims) > 2), 1, 1)
        )
    labels = rng.choice(k, n_obs, p=weights)
    X = means[labels] + rng.standard_normal((n_obs, d))
    centres = means if prior == CENTRES else 0 * means
    return as_fit(X, sites, structure, prior_centres=centres, prior_variance=prior_variance)


def as_fit(X, sites, structure, *, prior_centres, prior_variance=0.1):
    """A tree like that of `fit` around sites with shapes (chain, draw, ...)."""
    n_obs, d = X.shape
    shape = sites["weights"].shape[:2]
    k = sites["weights"].shape[2]
    names = np.array([f"x{i}" for i in range(d)], dtype=object)
    posterior = label_sites(
        sites, structure, {COMPONENT: np.arange(k), FEATURE: names, FEATURE2: names}
    )
    rng = np.random.default_rng(1)
    scores = rng.standard_normal(shape)
    stats = {
        "lp": scores,
        "total_log_likelihood": scores + 0.1 * rng.standard_normal(shape),
        "energy": 2 * rng.standard_normal(shape),
        "n_occupied": np.full(shape, k),
        "n_steps": np.full(shape, 7),
        "diverging": np.zeros(shape, bool),
    }
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    groups = {
        "posterior": posterior,
        "sample_stats": xr.Dataset({n: (("chain", "draw"), v) for n, v in stats.items()}, coords),
        "observed_data": xr.Dataset(
            {"X": ((OBS, FEATURE), X)}, {OBS: np.arange(n_obs), FEATURE: names}
        ),
        "constant_data": xr.Dataset(
            {
                "weight_concentration": (COMPONENT, np.full(k, 0.5)),
                "mean_loc": ((COMPONENT, FEATURE), prior_centres),
                "mean_covariance": ((FEATURE, FEATURE2), prior_variance * np.eye(d)),
                "scale_scale": (FEATURE, np.ones(d)),
                "correlation_concentration": ((), np.asarray(2.0)),
            },
            {COMPONENT: np.arange(k), FEATURE: names, FEATURE2: names},
        ),
    }
    attrs = {
        "format": storage.FORMAT,
        "format_version": storage.FORMAT_VERSION,
        "n_components": k,
        "covariance_type": structure.name,
        "sampler": json.dumps({"kind": "NUTS", "num_samples": shape[1], "num_chains": shape[0]}),
        "run": json.dumps({}),
        "seed": "[0]",
        "device": "cpu",
        "timings": json.dumps({"sample": 1.0}),
        "versions": "{}",
        "problems": "[]",
    }
    return gb.GMMFit(storage.build(groups, attrs))


def shuffled(fit, seed=0, *, chains_only=False):
    """The same mixtures, the components of each in random order; and those orders (C, S, K)."""
    posterior = fit.posterior
    c, s, k = (posterior.sizes[dim] for dim in ("chain", "draw", COMPONENT))
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(k), (c, 1 if chains_only else s, 1)), axis=2)
    orders = np.broadcast_to(orders, (c, s, k))

    def moved(value):
        if COMPONENT not in value.dims:
            return value
        places = orders.reshape(*orders.shape, *[1] * (value.ndim - 3))
        return value.copy(data=np.take_along_axis(value.values, places, axis=2))

    return fit.with_group("posterior", posterior.map(moved, keep_attrs=True)), orders


def far_apart(k, d, seed=0):
    """Means (K, D) of components of unit spread that hardly overlap."""
    rng = np.random.default_rng(seed)
    return 8 * (np.arange(k)[:, None] + rng.random((k, d)))


def first_draw(fit):
    return MixtureParameters(*(a[0] for a in fit.parameters()))
