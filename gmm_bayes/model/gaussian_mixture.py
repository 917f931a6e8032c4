"""THE model function: the marginalised Gaussian mixture in NumPyro."""

from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.primitives import _PYRO_STACK

from gmm_bayes._validation import check_choice, check_data, check_n_components
from gmm_bayes._vocabulary import (
    COMPONENT,
    CORRELATION_CHOLESKY,
    COVARIANCES,
    DATA,
    FEATURE,
    FEATURE2,
    MEANS,
    OBS,
    SCALES,
    WEIGHTS,
    CovarianceType,
)
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES, CovarianceStructure
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.model.distribution import GaussianMixture
from gmm_bayes.model.priors import PriorArrays, Priors

__all__ = ["gaussian_mixture"]


def gaussian_mixture(
    X: Any = None,
    *,
    n_components: int,
    covariance_type: CovarianceType = "full",
    priors: Priors | PriorArrays | None = None,
    n_obs: int | None = None,
) -> None:
    """Marginalised Bayesian Gaussian mixture, a model for any NumPyro inference.

    Parameters
    ----------
    X : array, shape (n_obs, n_features), optional
        Data. None leaves the rows unobserved: `n_obs` of them are then sampled.
    n_components : int
        Number of components.
    covariance_type : {"full", "tied", "diag", "spherical"}
        How components share covariance parameters.
    priors : Priors, optional
        None takes `default_priors(X, n_components)`. With a traced `X`, as under
        `MCMC(jit_model_args=True)`, give priors that leave nothing to the data.
    n_obs : int, optional
        Number of rows when `X` is None.

    Raises
    ------
    ValueError
        If the priors do not fit the sizes, or cannot be made from what was given.
    RuntimeError
        If it is called by itself: it is what an inference of NumPyro calls.

    Notes
    -----
    Sites: `weights` (component,), `means` (component, feature), `scales` and
    `correlation_cholesky` by covariance type, deterministic `covariances` in scikit-learn's shape,
    and the rows `X` (obs, feature), observed through `GaussianMixture`. Plates and event axes carry
    the names that ArviZ shows as dims.

    Examples
    --------
    >>> import jax, numpyro, gmm_bayes as gb
    >>> X = gb.datasets.load_old_faithful().to_numpy()
    >>> priors = gb.default_priors(X, 2)
    >>> trace = numpyro.handlers.trace(
    ...     numpyro.handlers.seed(gb.gaussian_mixture, jax.random.key(0))
    ... ).get_trace(X, n_components=2, priors=priors)
    >>> trace["means"]["value"].shape
    (2, 2)
    """
    n_components = check_n_components(n_components)
    check_choice(covariance_type, "covariance_type", tuple(COVARIANCE_STRUCTURES))
    prior = _prior_arrays(X, n_components, priors)
    if X is not None:
        X = jnp.asarray(X)
        n_obs = X.shape[0]
    elif n_obs is None:
        raise ValueError("n_obs must be given when X is None")
    if not _PYRO_STACK:
        raise RuntimeError(
            "gaussian_mixture is a NumPyro model and was called outside an inference; give it to "
            "one, as MCMC(NUTS(gmm_bayes.gaussian_mixture), num_warmup=500, num_samples=500)"
            ".run(key, X, n_components=3), or take gmm_bayes.fit(X, n_components=3)"
        )
    # The priors were checked above, and so is what follows from them by construction; NumPyro's own
    # checks of Cholesky factors compile some twenty tiny programs even while the model is traced.
    parameters = latent_mixture(prior, n_components=n_components, covariance_type=covariance_type)
    with numpyro.plate(OBS, n_obs):
        numpyro.sample(
            DATA,
            GaussianMixture(*parameters, validate_args=False),
            obs=X,
            infer={"event_dims": [FEATURE]},
        )


def latent_mixture(
    prior: PriorArrays, *, n_components: int, covariance_type: CovarianceType
) -> MixtureParameters:
    """Sample everything but the rows: the part of the model that is the same for every data set.

    Parameters
    ----------
    prior : PriorArrays
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}

    Returns
    -------
    MixtureParameters
        Shapes (K,), (K, D) and (K, D, D).
    """
    weights = numpyro.sample(
        WEIGHTS, dist.Dirichlet(prior.weight_concentration), infer={"event_dims": [COMPONENT]}
    )
    with numpyro.plate(COMPONENT, n_components):
        means = numpyro.sample(
            MEANS,
            dist.MultivariateNormal(
                prior.mean_loc, scale_tril=prior.mean_scale_tril, validate_args=False
            ),
            infer={"event_dims": [FEATURE]},
        )
    structure = COVARIANCE_STRUCTURES[covariance_type]
    return MixtureParameters(weights, means, _covariances(structure, prior, n_components))


def _covariances(
    structure: CovarianceStructure, prior: PriorArrays, n_components: int
) -> jax.Array:
    """Sample the scales and correlations, record the covariances, return the Cholesky factors."""
    n_features = prior.mean_loc.shape[-1]
    sizes = {COMPONENT: n_components, FEATURE: n_features}
    spread = prior.scale_scale
    if structure.shares_scale:
        spread = jnp.sqrt(jnp.mean(jnp.square(spread)))
    with _plates(structure.scale_dims, sizes):
        scales = numpyro.sample(SCALES, dist.HalfCauchy(spread))
    correlation = None
    if structure.has_correlations(n_features):
        assert structure.correlation_batch is not None
        with _plates(structure.correlation_batch, sizes):
            correlation = numpyro.sample(
                CORRELATION_CHOLESKY,
                dist.LKJCholesky(n_features, prior.correlation_concentration),
                infer={"event_dims": [FEATURE, FEATURE2]},
            )
    batch = structure.correlation_batch
    with _plates(structure.scale_dims if batch is None else batch, sizes):
        numpyro.deterministic(COVARIANCES, structure.covariances(scales, correlation))
    return structure.scale_tril(scales, correlation, n_components, n_features)


def _plates(dims: tuple[str, ...], sizes: dict[str, int]) -> ExitStack:
    """One plate for each named axis, the last one innermost."""
    stack = ExitStack()
    for axis, dim in enumerate(dims):
        stack.enter_context(numpyro.plate(dim, sizes[dim], dim=axis - len(dims)))
    return stack


def _prior_arrays(X: Any, n_components: int, priors: Priors | PriorArrays | None) -> PriorArrays:
    if isinstance(priors, PriorArrays):
        return priors
    traced = isinstance(X, jax.core.Tracer)
    priors = Priors() if priors is None else priors
    if priors.open_fields:
        if X is None or traced:
            raise ValueError(
                f"priors must have {' and '.join(priors.open_fields)} filled when the data are "
                "absent or traced; give default_priors(X, n_components) or "
                "priors.with_centers(X, n_components)"
            )
        priors = priors.with_centers(check_data(X).values, n_components)
    n_features = np.shape(priors.mean_loc)[-1] if X is None else X.shape[-1]
    return priors.arrays(n_components, n_features)
