"""Are ranks uniform? Simultaneous bands for their ECDF, p-values, and which way they lean."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binom, norm, poisson

__all__ = ["Band", "counts_below", "departure", "p_values", "simultaneous_band"]

# Quantiles further out are not found; p-values are then about this times the number of points.
_SMALLEST_LEVEL = 1e-13
# Of a bisection over the pointwise level of a band.
_HALVINGS = 40
# Standard errors by which a mean or a spread must be off before it is given as the direction.
_CLEAR = 2.0
# Posterior standard deviations of a bias above which most truths are beyond all draws, and their
# ranks say nothing about the width.
_FAR_OFF = 1.0


class Band(NamedTuple):
    """Where the ECDF of uniform ranks stays, all along at once, with a given probability.

    Attributes
    ----------
    points : ndarray, shape (L,)
        Ranks divided by L + 1, at which the ECDF is looked at: 1 / (L + 1) ... L / (L + 1).
    low, high : ndarray, shape (L,)
        The ECDF's smallest and largest value within the band.
    """

    points: np.ndarray
    low: np.ndarray
    high: np.ndarray


def counts_below(ranks: np.ndarray, n_draws: int) -> np.ndarray:
    """How many ranks lie below 1, 2, ... L: shape (..., L) for ranks (n_simulations, ...).

    Parameters
    ----------
    ranks : ndarray of int, shape (n_simulations, ...)
        Each in 0 ... L.
    n_draws : int
        L, the draws among which each truth was ranked.
    """
    flat = ranks.reshape(len(ranks), -1)
    per_rank = np.stack([np.bincount(column, minlength=n_draws + 1) for column in flat.T])
    return per_rank.cumsum(axis=1)[:, :-1].reshape(*ranks.shape[1:], n_draws)


def p_values(counts: np.ndarray, n_simulations: int) -> np.ndarray:
    """Probability that uniform ranks leave their ECDF's expected path at least as far as these do.

    Parameters
    ----------
    counts : ndarray of int, shape (..., L)
        Of `counts_below`.
    n_simulations : int

    Returns
    -------
    ndarray, shape (...)

    Notes
    -----
    The path is as far off as its most improbable point, by the two tails of the binomial
    distribution there [1]_. The probability that no point of the path of uniform ranks is as
    improbable is exact: with equal steps it is a sequence of convolutions with a Poisson
    distribution, because binomial counts are Poisson counts given their total [2]_.

    References
    ----------
    .. [1] T. Saeilynoja, P.-C. Buerkner, A. Vehtari (2022). Graphical test for discrete uniformity
       and its applications in goodness-of-fit evaluation and multiple sample comparison. Statistics
       and Computing 32.
    .. [2] A. Moscovich, B. Nadler (2017). Fast calculation of boundary crossing probabilities for
       Poisson processes. Statistics and Probability Letters 123.
    """
    share = _points(counts.shape[-1])
    below = binom.cdf(counts, n_simulations, share)
    above = binom.sf(counts - 1, n_simulations, share)
    level = np.maximum(2 * np.minimum(below, above).min(axis=-1), _SMALLEST_LEVEL)
    # A point exactly as improbable as the worst counts as outside.
    inside = [
        _inside_probability(*_limits(one * (1 + 1e-9), n_simulations, share), n_simulations)
        for one in np.ravel(level)
    ]
    return np.clip(1 - np.reshape(inside, level.shape), 0.0, 1.0)


def simultaneous_band(probability: float, n_simulations: int, n_draws: int) -> Band:
    """Return the band that the ECDF of uniform ranks leaves with probability 1 - `probability`.

    Parameters
    ----------
    probability : float
    n_simulations : int
        How many ranks there are.
    n_draws : int
        L: ranks are 0 ... L.

    Notes
    -----
    Its pointwise level is the one at which the whole path stays inside often enough, as by
    `p_values`: a path leaves the band if and only if its p-value is at most 1 - `probability`.
    """
    share = _points(n_draws)
    inner, outer = 0.0, 1.0
    for _ in range(_HALVINGS):
        level = (inner + outer) / 2
        inside = _inside_probability(*_limits(level, n_simulations, share), n_simulations)
        inner, outer = (level, outer) if inside >= probability else (inner, level)
    low, high = _limits(inner, n_simulations, share)
    return Band(share, low / n_simulations, high / n_simulations)


def departure(ranks: np.ndarray, n_draws: int) -> str:
    """Say in words what ranks that are not uniform mean, for the posterior they come from.

    Parameters
    ----------
    ranks : ndarray of int, shape (n_simulations,)
    n_draws : int
        L: ranks are 0 ... L.
    """
    # As normal scores, of which a bias moves the mean alone, and a wrong width the variance alone.
    possible = norm.ppf((np.arange(n_draws + 1) + 0.5) / (n_draws + 1))
    scores = possible[ranks] / possible.std()
    shift = scores.mean() * np.sqrt(len(ranks))
    spread = (scores.var() - 1) * np.sqrt(len(ranks) / 2)
    if abs(scores.mean()) > _FAR_OFF:
        spread = 0.0
    words = []
    if abs(shift) > _CLEAR:
        words.append((abs(shift), f"biased {'low' if shift > 0 else 'high'}"))
    if abs(spread) > _CLEAR:
        words.append((abs(spread), f"too {'narrow' if spread > 0 else 'wide'}"))
    if not words:
        return "of another shape"
    return " and ".join(word for _, word in sorted(words, reverse=True))


def _points(n_draws: int) -> np.ndarray:
    return np.arange(1, n_draws + 1) / (n_draws + 1)


def _limits(level: float, n: int, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest count of which each tail holds more than half of the level."""
    low = binom.ppf(level / 2, n, share)
    low = low + (binom.cdf(low, n, share) <= level / 2)
    high = binom.isf(level / 2, n, share) + 1
    high = high - (binom.sf(high - 1, n, share) <= level / 2)
    return low.astype(int), np.minimum(high, n).astype(int)


def _inside_probability(low: np.ndarray, high: np.ndarray, n: int) -> float:
    """Probability that cumulative counts of n uniform ranks stay within limits, at all points."""
    if (low > high).any():
        return 0.0
    widest = int((high - np.concatenate([[0], low[:-1]])).max())
    last = n - int(low[-1])
    step = poisson.pmf(np.arange(max(widest, last) + 1), n / (len(low) + 1))
    here, begin = np.ones(1), 0
    for lo, hi in zip([*low, n], [*high, n], strict=True):
        reached = np.convolve(here, step)
        here, begin = reached[lo - begin : hi - begin + 1], int(lo)
    return float(here[0] / poisson.pmf(n, n)) if len(here) else 0.0
