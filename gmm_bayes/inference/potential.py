"""Minus the log joint on a flat unconstrained vector.

Prior and transforms are the closed forms of `core.unconstrained`, the likelihood is the kernel's
sum over rows; a test holds the two together equal to the NumPyro model's own log density. The data
are arguments, never constants, so one compiled program serves every table of the same shape.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.infer import Predictive
from scipy.special import betaln

from gmm_bayes._vocabulary import (
    CORRELATION_CHOLESKY,
    MEANS,
    SCALES,
    WEIGHTS,
    CovarianceType,
)
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import RowBlocks, sum_log_density
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.core.unconstrained import LogPrior, Space
from gmm_bayes.model.gaussian_mixture import gaussian_mixture
from gmm_bayes.model.priors import PriorArrays

__all__ = [
    "Data",
    "ModelSpec",
    "log_joint",
    "log_prior",
    "mixture_at",
    "potential",
    "sample_prior",
    "site_values",
    "space",
]


class ModelSpec(NamedTuple):
    """What a compiled program depends on beside the shapes of its arguments."""

    n_components: int
    covariance_type: CovarianceType


class Data(NamedTuple):
    """What a program is given: blocks of rows and the prior, in the same units."""

    rows: RowBlocks
    prior: LogPrior

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.prior.mean_loc.shape[-1]


@partial(jax.jit, static_argnames="spec")
def potential(z: jax.Array, data: Data, spec: ModelSpec) -> jax.Array:
    """Minus the log joint density of the unconstrained parameters, in nats.

    Parameters
    ----------
    z : array, shape (dimension,)
    data : Data
    spec : ModelSpec
    """
    log_prior, log_likelihood = log_joint(z, data, spec)
    return -(log_prior + log_likelihood)


def log_joint(z: jax.Array, data: Data, spec: ModelSpec) -> tuple[jax.Array, jax.Array]:
    """Log prior density of the unconstrained parameters and log-likelihood, in nats."""
    here = space(spec, data.n_features)
    log_likelihood = sum_log_density(here.scores(z), data.rows)
    return here.log_density(z, data.prior), log_likelihood


def space(spec: ModelSpec, n_features: int) -> Space:
    """Return the unconstrained parameters of a model."""
    return Space(COVARIANCE_STRUCTURES[spec.covariance_type], spec.n_components, n_features)


def log_prior(prior: PriorArrays, spec: ModelSpec) -> LogPrior:
    """Return the priors in the form in which their log density is cheap, as NumPy arrays.

    Weights are broken off a stick in ratios v_i ~ Beta(a_i, a_{i+1} + ... + a_K). Under LKJ(eta)
    the partial correlations z_ij, j < i, are independent, (z_ij + 1) / 2 ~ Beta(b_j, b_j) with
    b_j = eta + (D - 2 - j) / 2 counting from zero [1]_.

    References
    ----------
    .. [1] D. Lewandowski, D. Kurowicka, H. Joe (2009). Generating random correlation matrices based
       on vines and extended onion method. Journal of Multivariate Analysis 100.
    """
    prior = PriorArrays(*map(np.asarray, prior))
    k, d = prior.mean_loc.shape
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    sizes = Space(structure, k, d).shapes
    before = prior.weight_concentration[:-1]
    after = np.cumsum(prior.weight_concentration[::-1])[::-1][1:]
    tril = prior.mean_scale_tril
    constant = -betaln(before, after).sum()
    constant -= k * (np.log(np.diagonal(tril)).sum() + 0.5 * d * np.log(2 * np.pi))
    constant += np.prod(sizes[SCALES]) * np.log(2 / np.pi)
    power = np.tril(
        prior.correlation_concentration + (d - 2 - np.arange(d)) / 2 * np.ones((d, d)), -1
    )
    if CORRELATION_CHOLESKY in sizes:
        b = power[np.tril_indices(d, -1)]
        n_matrices = np.prod(sizes[CORRELATION_CHOLESKY][:-1])
        constant -= n_matrices * ((2 * b - 1) * np.log(2) + betaln(b, b)).sum()
    scale = prior.scale_scale
    if structure.shares_scale:
        scale = np.sqrt(np.mean(scale**2))
    return LogPrior(
        before, after, prior.mean_loc, np.linalg.inv(tril), np.log(scale), power, constant
    )


def site_values(start: MixtureParameters, spec: ModelSpec) -> dict[str, Any]:
    """Return the sites of the model at a given mixture."""
    scales, correlation = COVARIANCE_STRUCTURES[spec.covariance_type].sites(start.covariances)
    sites = {WEIGHTS: start.weights, MEANS: start.means, SCALES: scales}
    return sites if correlation is None else {**sites, CORRELATION_CHOLESKY: correlation}


def mixture_at(z: np.ndarray, spec: ModelSpec, n_features: int) -> MixtureParameters:
    """Return the mixture at an unconstrained vector (dimension,): the way back."""
    sites = space(spec, n_features).sites(z)
    tril = COVARIANCE_STRUCTURES[spec.covariance_type].scale_tril(
        sites[SCALES], sites.get(CORRELATION_CHOLESKY), spec.n_components, n_features
    )
    return MixtureParameters(sites[WEIGHTS], sites[MEANS], tril)


@partial(jax.jit, static_argnames=("spec", "n_obs", "n_draws"))
def sample_prior(
    key: jax.Array, prior: PriorArrays, spec: ModelSpec, *, n_obs: int, n_draws: int
) -> dict[str, jax.Array]:
    """Draw every site of the model, rows `X` included, from the prior: shapes (n_draws, ...)."""
    return Predictive(gaussian_mixture, num_samples=n_draws)(
        key, None, n_obs=n_obs, priors=prior, **spec._asdict()
    )
