"""Functions of parameters and data whose ranks tell whether a posterior is the right one."""

import numpy as np

from gmm_bayes._vocabulary import (
    CORRELATION_CHOLESKY,
    MEANS,
    SCALES,
    WEIGHTS,
)
from gmm_bayes.core.covariance import CovarianceStructure
from gmm_bayes.core.draws import log_density_and_entropy, mixture_moments
from gmm_bayes.inference.verdict.log_priors import log_priors_at
from gmm_bayes.model.priors import PriorArrays

__all__ = ["quantities"]


def quantities(
    sites: dict[str, np.ndarray],
    X: np.ndarray,
    prior: PriorArrays,
    structure: CovarianceStructure,
) -> dict[str, np.ndarray]:
    """Every quantity that is ranked, at some parameters and one data set.

    Parameters
    ----------
    sites : dict of ndarray, shape (S, ...)
        Values of the model's sites.
    X : ndarray, shape (n_obs, n_features)
    prior : PriorArrays
        The prior of the model.
    structure : CovarianceStructure

    Returns
    -------
    dict of ndarray, shape (S,)
        By name: first `log_likelihood`, `log_prior` and `log_joint` (up to a constant), then what
        stays the same when components change places (`sorted_weights`, `mixture_mean`,
        `mixture_trace` and `mixture_log_det` of the mixture's covariance, `entropy` of the
        responsibilities, `log_density` of the mixture at the prior's centres), then the parameters,
        without those that follow from others. Nats where they are logs.

    Notes
    -----
    Parameters alone would pass a sampler that ignores the data, whose posterior is the prior;
    quantities of the data, above all the log-likelihood, would not [1]_.

    References
    ----------
    .. [1] M. Modrak, A. H. Moon, S. Kim, P. Buerkner, N. Huurre, K. Faltejskova, A. Gelman,
       A. Vehtari (2025). Simulation-based calibration checking for Bayesian computation: the choice
       of test quantities shapes sensitivity. Bayesian Analysis 20.
    """
    parts = {**_of_mixture(sites, X, prior, structure), **_parameters(sites)}
    flat = {}
    for name, values in parts.items():
        for place in np.ndindex(values.shape[1:]):
            label = f"{name}[{', '.join(map(str, place))}]" if place else name
            flat[label] = values[(slice(None), *place)]
    return flat


def _of_mixture(
    sites: dict[str, np.ndarray],
    X: np.ndarray,
    prior: PriorArrays,
    structure: CovarianceStructure,
) -> dict[str, np.ndarray]:
    weights, means = sites[WEIGHTS], sites[MEANS]
    k, d = means.shape[1:]
    tril = structure.scale_tril(sites[SCALES], sites.get(CORRELATION_CHOLESKY), k, d)
    log_likelihood, entropy, log_density = _of_rows(X, prior.mean_loc, weights, means, tril)
    log_prior = _log_prior(sites, prior, structure)
    mean, covariance = mixture_moments(weights, means, tril @ tril.swapaxes(-1, -2))
    found = {
        "log_likelihood": log_likelihood,
        "log_prior": log_prior,
        "log_joint": log_likelihood + log_prior,
        "sorted_weights": -np.sort(-weights, axis=1)[:, :-1],
        "mixture_mean": mean,
        "mixture_trace": np.trace(covariance, axis1=-2, axis2=-1),
        "mixture_log_det": np.linalg.slogdet(covariance)[1],
        "entropy": entropy,
        "log_density": log_density,
    }
    if k == 1:
        # Then it is always zero, and one feature's determinant is its trace.
        del found["entropy"]
    if d == 1:
        del found["mixture_log_det"]
    return found


def _of_rows(
    X: np.ndarray, anchors: np.ndarray, weights: np.ndarray, means: np.ndarray, tril: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood (S,), mean entropy of the responsibilities (S,), log density at anchors."""
    n_obs = len(X)
    log_density, entropy = log_density_and_entropy(
        np.concatenate([X, anchors]), weights, means, tril
    )
    return (
        log_density[:, :n_obs].sum(axis=1),
        entropy[:, :n_obs].mean(axis=1),
        log_density[:, n_obs:],
    )


def _log_prior(
    sites: dict[str, np.ndarray], prior: PriorArrays, structure: CovarianceStructure
) -> np.ndarray:
    """Log prior density of the sites, shape (S,), up to a constant: of correlation matrices.

    The model has their Cholesky factors L, whose density is larger by the product of L_ii^(D - i).
    """
    total = np.sum(list(log_priors_at(sites, prior, structure).values()), axis=0)
    if CORRELATION_CHOLESKY in sites:
        diagonal = np.diagonal(sites[CORRELATION_CHOLESKY], axis1=-2, axis2=-1)
        power = np.arange(diagonal.shape[-1])[::-1]
        total -= _sum(power * np.log(diagonal))
    return total


def _parameters(sites: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The free ones of the parameters."""
    parts = {WEIGHTS: sites[WEIGHTS][:, :-1], MEANS: sites[MEANS], SCALES: sites[SCALES]}
    if CORRELATION_CHOLESKY in sites:
        factor = sites[CORRELATION_CHOLESKY]
        correlation = factor @ factor.swapaxes(-1, -2)
        rows, columns = np.tril_indices(factor.shape[-1], -1)
        parts["correlations"] = correlation[..., rows, columns]
    return parts


def _sum(values: np.ndarray) -> np.ndarray:
    """Sum over all but the first axis."""
    return values.reshape(len(values), -1).sum(axis=1)
