"""R-hat and effective sample sizes of many fits at once, of what does not depend on labels."""

from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from scipy.special import ndtri
from scipy.stats import rankdata

from gmm_bayes._vocabulary import MEANS, WEIGHTS

__all__ = ["Agreement", "agreement", "label_free_draws"]


class Agreement(NamedTuple):
    """How well the chains of each set agree, shapes (n_sets,): the worst over quantities.

    Attributes
    ----------
    rhat : ndarray
        Rank-normalised split R-hat, folded draws included.
    ess_bulk : ndarray
        Of all chains together.
    """

    rhat: np.ndarray
    ess_bulk: np.ndarray


def agreement(values: np.ndarray) -> Agreement:
    """Judge draws by ranks (Vehtari et al. 2021), all quantities in one pass.

    Parameters
    ----------
    values : ndarray, shape (n_sets, num_chains, num_samples, n_quantities)

    Returns
    -------
    Agreement
        Not a number where draws are not finite or do not move.
    """
    half = values.shape[2] // 2
    if half < 2:
        unknown = np.full(len(values), np.nan)
        return Agreement(unknown, unknown.copy())
    # Half chains are chains.
    split = np.concatenate([values[:, :, :half], values[:, :, -half:]], axis=1)
    middle = np.median(split, axis=(1, 2), keepdims=True)
    # NumPyro's functions want chains and draws first.
    bulk, folded = (np.moveaxis(_normal_scores(v), 0, 2) for v in (split, abs(split - middle)))
    with np.errstate(invalid="ignore", divide="ignore"):
        rhat = np.maximum(gelman_rubin(bulk), gelman_rubin(folded))
        ess = effective_sample_size(bulk)
    known = np.isfinite(values).all(axis=(1, 2, 3))
    return Agreement(
        np.where(known, rhat.max(axis=1), np.nan), np.where(known, ess.min(axis=1), np.nan)
    )


def label_free_draws(
    sites: dict[str, np.ndarray], covariances: np.ndarray, stats: dict[str, np.ndarray]
) -> np.ndarray:
    """Numbers of every draw that stay the same when components change places.

    The log-likelihood, the log joint, the weights in order of size, and the mean and covariance of
    the whole mixture.

    Parameters
    ----------
    sites : dict of ndarray, shape (..., *site)
    covariances : ndarray, shape (..., K, D, D)
    stats : dict of ndarray, shape (...)

    Returns
    -------
    ndarray, shape (..., n_quantities)
    """
    weights, means = sites[WEIGHTS], sites[MEANS]
    mean = np.einsum("...k,...kd->...d", weights, means)
    away = means - mean[..., None, :]
    within = covariances + away[..., :, None] * away[..., None, :]
    spread = np.einsum("...k,...kij->...ij", weights, within)
    parts = [
        stats["log_likelihood"][..., None],
        stats["potential"][..., None],
        # The smallest follows from the others.
        -np.sort(-weights, axis=-1)[..., :-1],
        mean,
        spread[..., *np.tril_indices(mean.shape[-1])],
    ]
    return np.concatenate(parts, axis=-1)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Ranks among all draws of a set, as quantiles of the normal distribution (Blom 1958)."""
    n_sets, n_chains, n_draws, n_quantities = values.shape
    flat = values.reshape(n_sets, n_chains * n_draws, n_quantities)
    ranks = rankdata(flat, axis=1)
    return ndtri((ranks - 0.375) / (flat.shape[1] + 0.25)).reshape(values.shape)
