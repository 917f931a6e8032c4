"""The hot kernel: log densities of rows under components, and their log-sum-exp.

The model's distribution and every prediction go through `component_log_density`. This is the one
place to make fast.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import logsumexp

__all__ = ["component_log_density", "weighted_log_density"]


def component_log_density(X: jax.Array, means: jax.Array, scale_tril: jax.Array) -> jax.Array:
    """Log density of each row under each normal component.

    Parameters
    ----------
    X : array, shape (N, D)
    means : array, shape (K, D)
    scale_tril : array, shape (K, D, D)
        Lower Cholesky factors of the covariances.

    Returns
    -------
    array, shape (N, K)
        log N(x_n; mu_k, L_k L_k'), in nats; the density has units of 1 / (units of X)^D.
    """
    n_features = X.shape[-1]
    # A centre far from the origin would cancel away in x'P - mu'P; it drops out of the difference.
    centre = jax.lax.stop_gradient(means.mean(axis=0))
    identity = jnp.broadcast_to(jnp.eye(n_features, dtype=scale_tril.dtype), scale_tril.shape)
    whiten = solve_triangular(scale_tril, identity, lower=True)
    highest = jax.lax.Precision.HIGHEST
    z = jnp.einsum("nd,ked->kne", X - centre, whiten, precision=highest)
    z_mean = jnp.einsum("kd,ked->ke", means - centre, whiten, precision=highest)
    squared = jnp.sum((z - z_mean[:, None, :]) ** 2, axis=-1).T
    log_det = jnp.sum(jnp.log(jnp.diagonal(scale_tril, axis1=-2, axis2=-1)), axis=-1)
    return -0.5 * (n_features * math.log(2 * math.pi) + squared) - log_det


def weighted_log_density(log_components: jax.Array, weights: jax.Array) -> jax.Array:
    """Add the log weights: log pi_k + log N(x_n; k), shape (N, K).

    An exact zero is raised to the smallest normal number, as NumPyro does, because the gradient of
    its log is not a number.
    """
    smallest = jnp.finfo(weights.dtype).tiny
    return log_components + jnp.log(jnp.maximum(weights, smallest))


def log_sum_exp(scores: jax.Array) -> jax.Array:
    """Log-sum-exp over components, shape (N, K) -> (N,)."""
    return logsumexp(scores, axis=-1)
