"""The log prior density of every draw, one site of the model at a time.

Closed forms of what NumPyro's distributions say of the draws that are stored, in the user's units,
so that nothing is compiled; a test holds them equal. `core.unconstrained` has their sum on the
unconstrained vector, Jacobian included.
"""

import numpy as np
from scipy.linalg import solve_triangular
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
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.model.priors import PriorArrays

__all__ = ["log_priors"]


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
    concentration, centres = _as_sampled(fit, prior)
    scale = prior.scale_scale
    if fit.structure.shares_scale:
        scale = np.sqrt(np.mean(scale**2))
    found = {
        WEIGHTS: _dirichlet(posterior[WEIGHTS].values, concentration),
        MEANS: _normal(posterior[MEANS].values - centres, prior.mean_scale_tril),
        SCALES: _half_cauchy(posterior[SCALES].values, scale),
    }
    if fit.structure.has_correlations(fit.n_features):
        factors = posterior[CORRELATION_CHOLESKY].values
        found[CORRELATION_CHOLESKY] = _lkj(factors, prior.correlation_concentration)
    return {name: value.reshape(*value.shape[:2], -1).sum(axis=2) for name, value in found.items()}


def _as_sampled(fit: GMMFit, prior: PriorArrays) -> tuple[np.ndarray, np.ndarray]:
    """What belongs to each component: in an aligned fit, to the one it was when it was sampled."""
    if NUMBERING not in fit.sample_stats:
        return prior.weight_concentration, prior.mean_loc
    places = fit.sample_stats[NUMBERING].transpose(CHAIN, DRAW, ...).values
    return prior.weight_concentration[places], prior.mean_loc[places]


def _dirichlet(weights: np.ndarray, concentration: np.ndarray) -> np.ndarray:
    constant = gammaln(concentration.sum(-1)) - gammaln(concentration).sum(-1)
    # The weight of an empty component may be too small for a number.
    logs = np.log(np.maximum(weights, np.finfo(float).tiny))
    return ((concentration - 1) * logs).sum(-1) + constant


def _normal(away: np.ndarray, tril: np.ndarray) -> np.ndarray:
    """Of every mean, given its distance from its centre."""
    d = len(tril)
    white = solve_triangular(tril, away.reshape(-1, d).T, lower=True).T.reshape(away.shape)
    constant = np.log(np.diagonal(tril)).sum() + 0.5 * d * np.log(2 * np.pi)
    return -0.5 * (white**2).sum(-1) - constant


def _half_cauchy(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.log(2 / np.pi) - np.log(scale) - np.log1p((values / scale) ** 2)


def _lkj(factors: np.ndarray, concentration: np.ndarray) -> np.ndarray:
    """Of every Cholesky factor L: the product of L_ii^(2 eta - 2 + D - i), i from 1.

    Normalised as on page 1999 of Lewandowski, Kurowicka and Joe (2009).
    """
    d = factors.shape[-1]
    power = 2 * concentration - 2 + d - 1 - np.arange(d)
    diagonal = np.diagonal(factors, axis1=-2, axis2=-1)[..., 1:]
    top = concentration + 0.5 * (d - 1)
    constant = 0.5 * (d - 1) * np.log(np.pi) + multigammaln(top - 0.5, d - 1)
    logs = np.log(np.maximum(diagonal, np.finfo(float).tiny))
    return (power[1:] * logs).sum(-1) - constant + gammaln(top) * (d - 1)
