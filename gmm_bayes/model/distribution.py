"""The mixture as a NumPyro distribution over rows."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters

__all__ = ["GaussianMixture"]


class GaussianMixture(dist.Distribution):
    """Gaussian mixture over rows, with the components summed out.

    Parameters
    ----------
    weights : array, shape (..., n_components)
        Mixing proportions on the simplex.
    means : array, shape (..., n_components, n_features)
        Component means, in the units of the data.
    scale_tril : array, shape (..., n_components, n_features, n_features)
        Lower Cholesky factors of the component covariances.
    validate_args : bool, optional
        As for every NumPyro distribution.

    Notes
    -----
    `log_prob` of an array of shape (n_obs, n_features) has shape (n_obs,): one number per row, in
    nats, log sum_k weights_k N(x; means_k, scale_tril_k scale_tril_k').
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "weights": constraints.simplex,
        "means": constraints.independent(constraints.real, 2),
        "scale_tril": constraints.independent(constraints.lower_cholesky, 1),
    }
    support = constraints.real_vector
    reparametrized_params: ClassVar[list[str]] = []

    def __init__(
        self,
        weights: jax.Array,
        means: jax.Array,
        scale_tril: jax.Array,
        *,
        validate_args: bool | None = None,
    ) -> None:
        weights, means, scale_tril = map(jnp.asarray, (weights, means, scale_tril))
        n_components, n_features = means.shape[-2:]
        batch = jnp.broadcast_shapes(weights.shape[:-1], means.shape[:-2], scale_tril.shape[:-3])
        self.weights = jnp.broadcast_to(weights, (*batch, n_components))
        self.means = jnp.broadcast_to(means, (*batch, n_components, n_features))
        self.scale_tril = jnp.broadcast_to(
            scale_tril, (*batch, n_components, n_features, n_features)
        )
        super().__init__(batch, (n_features,), validate_args=validate_args)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw rows, shape (*sample_shape, *batch_shape, n_features)."""
        key_label, key_noise = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        labels = jax.random.categorical(key_label, jnp.log(self.weights), shape=shape)
        means = jnp.broadcast_to(self.means, (*shape, *self.means.shape[-2:]))
        tril = jnp.broadcast_to(self.scale_tril, (*shape, *self.scale_tril.shape[-3:]))
        pick = labels[..., None, None]
        mean = jnp.take_along_axis(means, pick, axis=-2)[..., 0, :]
        factor = jnp.take_along_axis(tril, pick[..., None], axis=-3)[..., 0, :, :]
        return mixture.sample_normal(key_noise, mean, factor)

    def log_prob(self, value: jax.Array, intermediates: Any = None) -> jax.Array:
        """Log density of rows, shape (..., n_features) -> (...), in nats."""
        value = jnp.asarray(value)
        parameters = MixtureParameters(self.weights, self.means, self.scale_tril)
        if not self.batch_shape:
            rows = value.reshape(-1, value.shape[-1])
            return mixture.log_density(rows, parameters).reshape(value.shape[:-1])
        one_row = jnp.vectorize(
            lambda x, *p: mixture.log_density(x[None], MixtureParameters(*p))[0],
            signature="(d),(k),(k,d),(k,d,d)->()",
        )
        return one_row(value, *parameters)
