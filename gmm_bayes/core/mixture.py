"""A mixture at one point: its parameters, densities, responsibilities and random rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES, Array
from gmm_bayes.core.likelihood import component_log_density, log_sum_exp, weighted_log_density

__all__ = [
    "MixtureParameters",
    "log_density",
    "responsibilities",
    "sample",
    "sample_normal",
    "scores",
]


class MixtureParameters(NamedTuple):
    """Weights, means and Cholesky factors of one Gaussian mixture.

    Parameters
    ----------
    weights : array, shape (n_components,)
        Mixing proportions, positive, summing to one.
    means : array, shape (n_components, n_features)
        Component means, in the units of the data.
    scale_tril : array, shape (n_components, n_features, n_features)
        Lower Cholesky factors of the component covariances.
    """

    weights: Array
    means: Array
    scale_tril: Array

    @classmethod
    def from_covariances(
        cls,
        weights: Array,
        means: Array,
        covariances: Array,
        covariance_type: str = "full",
    ) -> "MixtureParameters":
        """Build the record from covariances in scikit-learn's shape for `covariance_type`.

        Parameters
        ----------
        weights : array, shape (n_components,)
        means : array, shape (n_components, n_features)
        covariances : array
            Shape by covariance type: (K, D, D), (D, D), (K, D) or (K,).
        covariance_type : {"full", "tied", "diag", "spherical"}
        """
        structure = COVARIANCE_STRUCTURES[covariance_type]
        dense = structure.to_dense(covariances, *means.shape)
        return cls(weights, means, dense.__array_namespace__().linalg.cholesky(dense))

    @property
    def covariances(self) -> Array:
        """Dense covariances, shape (n_components, n_features, n_features)."""
        return self.scale_tril @ self.scale_tril.swapaxes(-1, -2)


def scores(X: jax.Array, parameters: MixtureParameters) -> jax.Array:
    """Log of weight times component density, shape (N, K)."""
    weights, means, scale_tril = parameters
    return weighted_log_density(component_log_density(X, means, scale_tril), weights)


def log_density(X: jax.Array, parameters: MixtureParameters) -> jax.Array:
    """Log density of each row under the mixture, shape (N,)."""
    return log_sum_exp(scores(X, parameters))


def responsibilities(X: jax.Array, parameters: MixtureParameters) -> jax.Array:
    """Posterior probability of each component for each row, shape (N, K)."""
    return jax.nn.softmax(scores(X, parameters), axis=-1)


def sample(
    key: jax.Array, parameters: MixtureParameters, n_obs: int
) -> tuple[jax.Array, jax.Array]:
    """Draw rows and the components they came from, shapes (N, D) and (N,)."""
    key_label, key_noise = jax.random.split(key)
    weights, means, scale_tril = parameters
    labels = jax.random.categorical(key_label, jnp.log(weights), shape=(n_obs,))
    return sample_normal(key_noise, means[labels], scale_tril[labels]), labels


def sample_normal(key: jax.Array, means: jax.Array, scale_tril: jax.Array) -> jax.Array:
    """Draw one row from each of a stack of normals, shapes (..., D) and (..., D, D)."""
    noise = jax.random.normal(key, means.shape, means.dtype)
    return means + jnp.einsum("...de,...e->...d", scale_tril, noise)
