"""The log prior density of every draw, one site of the model at a time.

What NumPyro's distributions say of the draws that are stored, in the user's units, by SciPy and
closed forms, so that nothing is compiled; a test holds them equal. `core.unconstrained` has their
sum on the unconstrained vector, Jacobian included.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import gammaln, multigammaln

from gmm_bayes._vocabulary import (
    CHAIN,
    CORRELATION_CHOLESKY,
    DRAW,
    MEANS,
    NUMBERING,
    SCALES,
    WEIGHTS,
)
from gmm_bayes.core.covariance import CovarianceStructure
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.model.priors import PriorArrays

__all__ = ["log_priors", "log_priors_at"]


def log_priors(fit: GMMFit) -> dict[str, np.ndarray]:
    """Log prior density of each site at every draw, shapes (chain, draw), in nats.

    Of the site as it is written in the model: the density of weights, means, scales and Cholesky
    factors of correlations, each in the user's units, summed over components.

    Raises
    ------
    ValueError
        If the fit is a marginal, which has no priors.
    """
    prior = fit.priors.arrays(fit.n_components, fit.n_features)
    posterior = fit.posterior.transpose(CHAIN, DRAW, ...)
    sites = {str(name): variable.values for name, variable in posterior.items()}
    return log_priors_at(sites, _as_sampled(fit, prior), fit.structure)


def log_priors_at(
    sites: Mapping[str, np.ndarray], prior: PriorArrays, structure: CovarianceStructure
) -> dict[str, np.ndarray]:
    """Log prior density of each site of the model at values of them, nats.

    Parameters
    ----------
    sites : mapping of ndarray, shape (..., *site)
        With the same leading axes.
    prior : PriorArrays
        What belongs to components may have the leading axes too.
    structure : CovarianceStructure

    Returns
    -------
    dict of ndarray, shape (...)
    """
    # Which takes a second to import.
    from scipy.stats import Covariance, halfcauchy, multivariate_normal

    n_axes = sites[WEIGHTS].ndim - 1
    scale = np.asarray(prior.scale_scale)
    if structure.shares_scale:
        scale = np.sqrt(np.mean(scale**2))
    away = sites[MEANS] - prior.mean_loc
    means = multivariate_normal(cov=Covariance.from_cholesky(prior.mean_scale_tril))
    found = {
        WEIGHTS: _dirichlet(sites[WEIGHTS], np.asarray(prior.weight_concentration)),
        MEANS: means.logpdf(away).reshape(away.shape[:-1]),
        SCALES: halfcauchy.logpdf(sites[SCALES], scale=scale),
    }
    if structure.has_correlations(away.shape[-1]):
        factors = sites[CORRELATION_CHOLESKY]
        found[CORRELATION_CHOLESKY] = _lkj(factors, prior.correlation_concentration)
    return {
        name: value.reshape(*value.shape[:n_axes], -1).sum(axis=-1) for name, value in found.items()
    }


def _as_sampled(fit: GMMFit, prior: PriorArrays) -> PriorArrays:
    """What belongs to each component: in an aligned fit, to the one it was when it was sampled."""
    if NUMBERING not in fit.sample_stats:
        return prior
    places = fit.sample_stats[NUMBERING].transpose(CHAIN, DRAW, ...).values
    return prior._replace(
        weight_concentration=prior.weight_concentration[places], mean_loc=prior.mean_loc[places]
    )


def _dirichlet(weights: np.ndarray, concentration: np.ndarray) -> np.ndarray:
    """SciPy's takes one concentration for all draws, and refuses a weight that is too small."""
    constant = gammaln(concentration.sum(-1)) - gammaln(concentration).sum(-1)
    # The weight of an empty component may be too small for a number.
    logs = np.log(np.maximum(weights, np.finfo(float).tiny))
    return ((concentration - 1) * logs).sum(-1) + constant


def _lkj(factors: np.ndarray, concentration: np.ndarray) -> np.ndarray:
    """Of every Cholesky factor L: the product of L_ii^(2 eta - 2 + D - i), i from 1.

    SciPy has no LKJ, and NumPyro's would be compiled.

    Normalised as on page 1999 of Lewandowski, Kurowicka and Joe (2009).
    """
    d = factors.shape[-1]
    power = 2 * concentration - 2 + d - 1 - np.arange(d)
    diagonal = np.diagonal(factors, axis1=-2, axis2=-1)[..., 1:]
    top = concentration + 0.5 * (d - 1)
    constant = 0.5 * (d - 1) * np.log(np.pi) + multigammaln(top - 0.5, d - 1)
    logs = np.log(np.maximum(diagonal, np.finfo(float).tiny))
    return (power[1:] * logs).sum(-1) - constant + gammaln(top) * (d - 1)
