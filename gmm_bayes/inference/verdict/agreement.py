"""R-hat and effective sample sizes of all quantities in one pass: ArviZ's numbers of each.

ArviZ's functions of arrays go through quantities one by one, and rank the draws of each three
times. Here the formulas are the same, and a test holds the numbers equal to a billionth.
"""

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri

from gmm_bayes._vocabulary import MEANS, WEIGHTS
from gmm_bayes.core.draws import mixture_moments

__all__ = [
    "Agreement",
    "agreement",
    "agreement_of_sets",
    "draws_within_chains",
    "label_free_draws",
]

# Numbers that are ranked together: a few megabytes stay in cache.
_CHUNK = 2**16
# Of the tails, as ArviZ's.
_TAILS = (0.05, 0.95)


class Agreement(NamedTuple):
    """How well chains agree, shapes (n,): not a number where draws are not finite, or too few.

    Attributes
    ----------
    rhat : ndarray
        Rank-normalised split R-hat, folded draws included; at least two chains.
    ess_bulk, ess_tail : ndarray
        Effective draws of all chains together.
    """

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def agreement(values: np.ndarray, *, tails: bool = True) -> Agreement:
    """Judge the draws of many quantities by their ranks [1]_.

    Parameters
    ----------
    values : ndarray, shape (n, num_chains, num_samples)
    tails : bool
        Whether the ESS of the tails is wanted; it costs as much as the rest.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Buerkner (2021). Rank-
       normalization, folding, and localization. Bayesian Analysis 16.
    """
    n, num_chains, num_samples = values.shape
    found = Agreement(*(np.full(n, np.nan) for _ in Agreement._fields))
    if num_samples < 4:
        return found
    size = max(1, _CHUNK // (num_chains * num_samples))
    # A NaN has no rank.
    known = np.flatnonzero(~np.isnan(values).any(axis=(1, 2)))
    for begin in range(0, len(known), size):
        some = known[begin : begin + size]
        for out, one in zip(found, _judge(values[some], tails), strict=True):
            out[some] = one
    return found


def agreement_of_sets(values: np.ndarray) -> Agreement:
    """The worst over quantities, for each of many fits, shapes (n_sets,); tails are not looked at.

    Parameters
    ----------
    values : ndarray, shape (n_sets, num_chains, num_samples, n_quantities)

    Returns
    -------
    Agreement
        Not a number where a draw is not finite, or a quantity does not move.
    """
    n_sets, _, num_samples, n_quantities = values.shape
    if num_samples < 4:
        return Agreement(*(np.full(n_sets, np.nan) for _ in Agreement._fields))
    by_quantity = np.moveaxis(values, 3, 1).reshape(-1, *values.shape[1:3])
    moves = np.ptp(by_quantity, axis=(1, 2)) > 0
    usable = moves & np.isfinite(by_quantity).all(axis=(1, 2))
    found = agreement(np.where(usable[:, None, None], by_quantity, np.nan), tails=False)
    rhat, bulk, tail = (one.reshape(n_sets, n_quantities) for one in found)
    return Agreement(rhat.max(axis=1), bulk.min(axis=1), tail.min(axis=1))


def draws_within_chains(values: np.ndarray) -> float:
    """Effective draws of one chain (num_chains, num_samples), whether or not the chains agree."""
    away = values - values.mean(axis=1, keepdims=True)
    return float(_ess(away[None])[0]) / len(values)


def _judge(values: np.ndarray, tails: bool) -> Agreement:
    """Quantities (n, num_chains, num_samples) without a NaN."""
    halves = _halves(values)
    unknown = np.full(len(values), np.nan)
    z = _normal_scores(halves)
    rhat = unknown
    if values.shape[1] > 1:
        middle = np.median(halves, axis=(1, 2), keepdims=True)
        with np.errstate(invalid="ignore"):
            # The distance of infinity from infinity.
            folded = np.nan_to_num(abs(halves - middle), nan=np.inf, posinf=np.inf)
        rhat, of_folded = _rhat(z), _rhat(_normal_scores(folded))
        # Of two values the folded draws are constant, and say nothing.
        rhat = np.where(of_folded > rhat, of_folded, rhat)
    if not tails:
        return Agreement(rhat, _ess(z), unknown)
    ends = np.quantile(values, _TAILS, axis=(1, 2))[..., None, None]
    below = [_ess((halves <= end).astype(float)) for end in ends]
    return Agreement(rhat, _ess(z), np.minimum(*below))


def _halves(values: np.ndarray) -> np.ndarray:
    """Half chains as chains."""
    half = values.shape[2] // 2
    return np.concatenate([values[:, :, :half], values[:, :, -half:]], axis=1)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Ranks among all draws of a quantity, as quantiles of the normal distribution (Blom 1958)."""
    flat = values.reshape(len(values), -1)
    scores = ndtri((_ranks(flat) - 0.375) / (flat.shape[1] + 0.25))
    return scores.reshape(values.shape)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in each line (n, S), their average where draws are equal: SciPy's, in half the time."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    place = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    other = np.ones((len(values), 1), bool)
    begins = np.concatenate([other, ordered[:, 1:] != ordered[:, :-1]], axis=1)
    ends = np.concatenate([begins[:, 1:], other], axis=1)
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    last = np.where(ends, place, values.shape[1])[:, ::-1]
    last = np.minimum.accumulate(last, axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def _rhat(values: np.ndarray) -> np.ndarray:
    n_draws = values.shape[2]
    between = n_draws * values.mean(axis=2).var(axis=1, ddof=1)
    within = values.var(axis=2, ddof=1).mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((between / within + n_draws - 1) / n_draws)


def _ess(values: np.ndarray) -> np.ndarray:
    """By Geyer's initial monotone sequence of sums of two autocorrelations."""
    n, n_chains, n_draws = values.shape
    size = next_fast_len(2 * n_draws, real=True)
    away = values - values.mean(axis=2, keepdims=True)
    spectrum = rfft(away, size, axis=2)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=1)
    covariance = irfft(power, size, axis=1)[:, :n_draws] / n_draws
    within = covariance[:, :1] * n_draws / (n_draws - 1)
    total = within * (n_draws - 1) / n_draws
    if n_chains > 1:
        total += values.mean(axis=2).var(axis=1, ddof=1)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = 1 - (within - covariance) / total
    rho[:, 0] = 1
    # Pairs are summed as long as they are positive, and one more is looked at.
    n_pairs = max(1, (n_draws - 1) // 2)
    even = rho[:, : 2 * n_pairs : 2]
    pairs = even + rho[:, 1 : 2 * n_pairs : 2]
    ends = pairs <= 0
    last = np.where(ends.any(axis=1), ends.argmax(axis=1), n_pairs - 1)
    before = np.arange(n_pairs) < last[:, None]
    monotone = np.minimum.accumulate(pairs, axis=1)
    lines = np.arange(n)
    final = even[lines, last]
    final = np.where((final > 0) | (pairs[lines, last] >= 0), final, 0)
    tau = -1 + 2 * np.where(before, monotone, 0).sum(axis=1) + final
    everything = n_chains * n_draws
    ess = everything / np.maximum(tau, 1 / np.log10(everything))
    flat = values.reshape(n, -1)
    constant = flat.max(axis=1) - flat.min(axis=1) < np.finfo(float).resolution
    return np.where(constant, everything, ess)


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
    mean, spread = mixture_moments(weights, means, covariances)
    parts = [
        stats["log_likelihood"][..., None],
        stats["potential"][..., None],
        # The smallest follows from the others.
        -np.sort(-weights, axis=-1)[..., :-1],
        mean,
        spread[..., *np.tril_indices(mean.shape[-1])],
    ]
    return np.concatenate(parts, axis=-1)
