"""Rows that two components can group in two ways, and what an importance sampler says of them.

It knows nothing of this package: the density is that of a plain NumPyro model.
"""

import jax
import numpy as np
from conftest import plain_model
from numpyro.infer.util import potential_energy
from scipy import optimize, special, stats


def four_groups():
    """Two components make two of them each: left and right, or the lower and the upper."""
    rng = np.random.default_rng(0)
    centres = 2.0 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    return np.concatenate([c + 0.6 * rng.standard_normal((15, 2)) for c in centres])


def is_left_and_right(fit):
    """Whether the means of each draw differ along the first column, (chain, draw)."""
    apart = abs(fit.posterior["means"].diff("component").squeeze("component"))
    return (apart.isel(feature=0) > apart.isel(feature=1)).values


def by_importance(fit):
    """The share of left and right, the log evidence, and their errors.

    By t distributions about both numberings of both modes.
    """
    X, p = fit.X.values, fit.priors.arrays(2, 2)
    prior = (p.mean_loc, p.mean_scale_tril @ p.mean_scale_tril.T, p.scale_scale, 2, "diag")
    with jax.enable_x64(True):
        sites = {"weights": np.zeros(1), "means": np.zeros((2, 2)), "scales": np.zeros((2, 2))}
        blank, unravel = jax.flatten_util.ravel_pytree(sites)

        def potential(z):
            return potential_energy(plain_model, (X, *prior), {}, unravel(z))

        density = jax.jit(jax.vmap(lambda z: -potential(z)))
        slope, curve = jax.jit(jax.value_and_grad(potential)), jax.jit(jax.hessian(potential))
        proposals = []
        for feature in (0, 1):
            for sign in (1.0, -1.0):
                start = {name: np.zeros(np.shape(v)) for name, v in unravel(blank).items()}
                start["means"][:, feature] = 2 * sign, -2 * sign
                z0 = jax.flatten_util.ravel_pytree(start)[0]
                mode = optimize.minimize(slope, z0, jac=True, method="BFGS").x
                shape = 1.2 * np.linalg.inv(curve(mode))
                proposals.append(stats.multivariate_t(mode, (shape + shape.T) / 2, df=8))
        rng = np.random.default_rng(0)
        z = np.concatenate([q.rvs(20_000, random_state=rng) for q in proposals])
        log_q = special.logsumexp([q.logpdf(z) for q in proposals], axis=0) - np.log(4)
        log_w = np.asarray(density(z)) - log_q
        means = np.asarray(jax.vmap(lambda one: unravel(one)["means"])(z))
    apart = abs(means[:, 0] - means[:, 1])
    inside = apart[:, 0] > apart[:, 1]
    w = np.exp(log_w - log_w.max())
    share = np.average(inside, weights=w)
    ess = w.sum() ** 2 / (w**2).sum()
    assert ess > 5000
    share_error = np.sqrt(np.sum((w * (inside - share)) ** 2)) / w.sum()
    evidence = np.log(np.mean(w)) + log_w.max()
    return (share, share_error), (evidence, np.sqrt(np.var(w) / len(w)) / np.mean(w))
