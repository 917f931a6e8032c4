"""Minus the log joint on a flat unconstrained vector, and the way to that vector and back.

The prior and the transforms come from the NumPyro model, the likelihood from the kernel's sum over
rows; a test holds the two together equal to the model's own log density. The data are arguments,
never constants, so one compiled program serves every table of the same shape.
"""

import math
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import Predictive
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from gmm_bayes._vocabulary import (
    CORRELATION_CHOLESKY,
    COVARIANCES,
    MEANS,
    SCALES,
    WEIGHTS,
    CovarianceType,
)
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import (
    RowBlocks,
    expected_statistics,
    natural_parameters,
    sum_log_density,
)
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.model.gaussian_mixture import gaussian_mixture, latent_mixture
from gmm_bayes.model.priors import PriorArrays

__all__ = [
    "Data",
    "ModelSpec",
    "constrain",
    "log_likelihood",
    "parameters",
    "potential",
    "row_statistics",
    "sample_prior",
    "site_values",
    "unconstrain",
]


class ModelSpec(NamedTuple):
    """What a compiled program depends on beside the shapes of its arguments."""

    n_components: int
    covariance_type: CovarianceType


class Data(NamedTuple):
    """What a program is given: blocks of rows and priors, in the same units."""

    rows: RowBlocks
    prior: PriorArrays

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.rows.values.shape[1]


# The inner jit lets the leapfrog steps share one trace of NumPyro's handlers.
@partial(jax.jit, static_argnames="spec")
def potential(z: jax.Array, data: Data, spec: ModelSpec) -> jax.Array:
    """Minus the log joint density of the unconstrained parameters, in nats.

    Parameters
    ----------
    z : array, shape (dimension,)
    data : Data
    spec : ModelSpec
    """
    params = _unravel(z, spec, data.n_features)
    minus_log_prior = potential_energy(latent_mixture, (data.prior,), spec._asdict(), params)
    return minus_log_prior - log_likelihood(constrain(z, data, spec), data, spec)


def constrain(z: jax.Array, data: Data, spec: ModelSpec) -> dict[str, jax.Array]:
    """Return the model's sites, `covariances` left out, at one unconstrained vector."""
    params = _unravel(z, spec, data.n_features)
    sites = constrain_fn(latent_mixture, (data.prior,), spec._asdict(), params)
    return {name: value for name, value in sites.items() if name != COVARIANCES}


def unconstrain(sites: Mapping[str, Any], data: Data, spec: ModelSpec) -> jax.Array:
    """Return the unconstrained vector of given sites."""
    params = unconstrain_fn(latent_mixture, (data.prior,), spec._asdict(), dict(sites))
    return ravel_pytree(params)[0]


def log_likelihood(sites: Mapping[str, jax.Array], data: Data, spec: ModelSpec) -> jax.Array:
    """Log-likelihood of all rows at one point, a scalar in nats."""
    theta = natural_parameters(*parameters(sites, data.n_features, spec))
    return sum_log_density(theta, data.rows)


def row_statistics(
    sites: Mapping[str, jax.Array], data: Data, spec: ModelSpec
) -> tuple[jax.Array, jax.Array]:
    """Log-likelihood (nats) and each component's expected number of rows, shapes () and (K,)."""
    theta = natural_parameters(*parameters(sites, data.n_features, spec))
    total, statistics = expected_statistics(theta, data.rows)
    # The first feature is the constant 1.
    return total, statistics[:, 0]


def parameters(
    sites: Mapping[str, jax.Array], n_features: int, spec: ModelSpec
) -> MixtureParameters:
    """Return the sites of one draw as weights, means and Cholesky factors."""
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    tril = structure.scale_tril(
        sites[SCALES], sites.get(CORRELATION_CHOLESKY), spec.n_components, n_features
    )
    return MixtureParameters(sites[WEIGHTS], sites[MEANS], tril)


def site_values(start: MixtureParameters, spec: ModelSpec) -> dict[str, Any]:
    """Return the sites of the model at a given mixture."""
    scales, correlation = COVARIANCE_STRUCTURES[spec.covariance_type].sites(start.covariances)
    sites = {WEIGHTS: start.weights, MEANS: start.means, SCALES: scales}
    return sites if correlation is None else {**sites, CORRELATION_CHOLESKY: correlation}


def _unravel(z: jax.Array, spec: ModelSpec, n_features: int) -> dict[str, jax.Array]:
    """Cut the flat vector into the model's unconstrained sites, in the order of their names."""
    sites, begin = {}, 0
    for name, shape in _unconstrained_shapes(spec, n_features):
        end = begin + math.prod(shape)
        sites[name] = z[begin:end].reshape(shape)
        begin = end
    return sites


@lru_cache(maxsize=256)
def _unconstrained_shapes(
    spec: ModelSpec, n_features: int
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of the unconstrained sites, read off the model without running it."""
    k, d = spec.n_components, n_features
    prior = PriorArrays(np.ones(k), np.zeros((k, d)), np.eye(d), np.ones(d), np.array(1.0))
    start = MixtureParameters(
        np.full(k, 1 / k), np.zeros((k, d)), np.broadcast_to(np.eye(d), (k, d, d))
    )

    def unconstrained(prior: PriorArrays, start: MixtureParameters) -> dict[str, jax.Array]:
        return unconstrain_fn(latent_mixture, (prior,), spec._asdict(), site_values(start, spec))

    # As arguments, the arrays are abstract and NumPyro has nothing to check eagerly.
    shapes = jax.eval_shape(unconstrained, prior, start)
    return tuple((name, shapes[name].shape) for name in sorted(shapes))


@partial(jax.jit, static_argnames=("spec", "n_obs", "n_draws"))
def sample_prior(
    key: jax.Array, prior: PriorArrays, spec: ModelSpec, *, n_obs: int, n_draws: int
) -> dict[str, jax.Array]:
    """Draw every site of the model, rows `X` included, from the prior: shapes (n_draws, ...)."""
    return Predictive(gaussian_mixture, num_samples=n_draws)(
        key, None, n_obs=n_obs, priors=prior, **spec._asdict()
    )
