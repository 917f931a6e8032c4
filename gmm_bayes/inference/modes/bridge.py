"""Bridge sampling: the integral of a density, from draws of it and of a normal distribution."""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.special import digamma, expit, polygamma

from gmm_bayes._vocabulary import CHAIN, DRAW
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference import arviz_bridge

__all__ = ["Bridge", "Normal", "bridge", "effective_size", "largest_constant"]

_TOLERANCE = 1e-10
_MAX_ITERATIONS = 1000
_NO_BRIDGE = (
    "log_evidence could not be computed: the draws and the normal distribution fitted to half of "
    "them do not meet; run more draws (num_samples) or take fewer components"
)


class Normal(NamedTuple):
    """A multivariate normal distribution.

    Attributes
    ----------
    loc : ndarray, shape (dimension,)
    factor : ndarray, shape (dimension, dimension)
        Lower Cholesky factor of the covariance.
    """

    loc: np.ndarray
    factor: np.ndarray

    @classmethod
    def fit(cls, points: np.ndarray, weights: np.ndarray) -> "Normal":
        """Return the one with the moments of weighted points (..., dimension).

        Raises
        ------
        InferenceError
            If the points lie in a plane.
        """
        flat = points.reshape(-1, points.shape[-1])
        loc = np.average(flat, axis=0, weights=weights.ravel())
        covariance = np.atleast_2d(np.cov(flat, rowvar=False, aweights=weights.ravel()))
        try:
            return cls(loc, cholesky(covariance, lower=True))
        except (LinAlgError, ValueError):
            raise InferenceError(_NO_BRIDGE) from None

    def sample(self, rng: np.random.Generator, n_draws: int) -> np.ndarray:
        """Independent draws, shape (n_draws, dimension)."""
        return self.loc + rng.standard_normal((n_draws, len(self.loc))) @ self.factor.T

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log density at points (S, dimension), shape (S,), in nats."""
        white = solve_triangular(self.factor, (points - self.loc).T, lower=True)
        constant = 0.5 * len(self.loc) * math.log(2 * math.pi)
        constant += np.log(np.diagonal(self.factor)).sum()
        return -0.5 * (white**2).sum(axis=0) - constant


class Bridge(NamedTuple):
    """What bridge sampling found.

    Attributes
    ----------
    log_constant : float
        Log of the integral of the unnormalised density.
    error : float
        Its standard error, nats.
    n_iterations : int
    ess : float
        Independent draws of the density that would have served as well as those of the chains.
    settled : bool
        Whether the iterations converged.
    """

    log_constant: float
    error: float
    n_iterations: int
    ess: float
    settled: bool


def bridge(at_draws: np.ndarray, at_proposals: np.ndarray, weights: np.ndarray) -> Bridge:
    """Estimate log Z of a density f / Z by the optimal bridge to a density g.

    Parameters
    ----------
    at_draws : ndarray, shape (num_chains, num_draws)
        log f - log g at draws of f / Z.
    at_proposals : ndarray, shape (n_proposals,)
        log f - log g at independent draws of g; minus infinity where f is zero.
    weights : ndarray, shape (num_chains, num_draws)
        Importance weights of the draws.

    Returns
    -------
    Bridge

    Raises
    ------
    InferenceError
        If no draw of the one is where the other has density.

    Notes
    -----
    With the shares s1 of draws, counted by their effective size, and s2 of proposals,

        Z <- Z E_g[f / (s1 f + s2 Z g)] / E_f[Z g / (s1 f + s2 Z g)]

    is iterated to a relative change of 1e-10 [1]_. The error is the root of the relative mean
    squared error [2]_: the variances of both averages, that over chains by its effective size.

    References
    ----------
    .. [1] X.-L. Meng, W. H. Wong (1996). Simulating ratios of normalizing constants via a simple
       identity. Statistica Sinica 6.
    .. [2] S. Fruehwirth-Schnatter (2004). Estimating marginal likelihoods for mixture and Markov
       switching models using bridge sampling techniques. The Econometrics Journal 7.
    """
    weights = weights / weights.mean(axis=1, keepdims=True)
    share = 1 / (1 + len(at_proposals) / effective_size(at_draws))
    log_z, n_iterations, settled = float(np.median(at_draws)), 0, False
    while n_iterations < _MAX_ITERATIONS and not settled:
        of_f, of_g = _terms(at_draws, at_proposals, log_z, share)
        with np.errstate(divide="ignore"):
            change = float(np.log(of_f.mean()) - np.log((weights * of_g).mean()))
        if not np.isfinite(change):
            raise InferenceError(_NO_BRIDGE)
        log_z += change
        n_iterations += 1
        settled = abs(change) < _TOLERANCE
    of_f, of_g = _terms(at_draws, at_proposals, log_z, share)
    # What each draw adds to a weighted average, to first order.
    parts = weights * (of_g / (weights * of_g).mean() - 1)
    ess = effective_size(parts)
    squared = of_f.var() / of_f.mean() ** 2 / len(of_f) + parts.var() / ess
    return Bridge(log_z, float(np.sqrt(squared)), n_iterations, ess, settled)


def largest_constant(z: np.ndarray, log_f: np.ndarray) -> float:
    """A bound that log Z of a density f / Z is not above, but by chance.

    Parameters
    ----------
    z : ndarray, shape (num_chains, num_draws, dimension)
        Draws of f / Z.
    log_f : ndarray, shape (num_chains, num_draws)

    Returns
    -------
    float
        Infinite where the draws are worth fewer than twice as many independent ones as there are
        dimensions.

    Notes
    -----
    log Z = E log f + H, and of all densities with a given covariance the normal has the largest
    entropy H [1]_. Of so many independent draws the log determinant of the covariance is that of a
    Wishart matrix: its bias is taken off, and two standard errors are added.

    References
    ----------
    .. [1] T. M. Cover, J. A. Thomas (2006). Elements of Information Theory, 2nd ed., theorem 8.6.5.
    """
    dimension = z.shape[-1]
    # Draws that alternate are worth more for a mean, but not for a covariance.
    n = min(effective_size(z), log_f.size)
    if n < 2 * dimension:
        return np.inf
    covariance = np.atleast_2d(np.cov(z.reshape(-1, dimension), rowvar=False))
    halves = (n - np.arange(dimension)) / 2
    log_det = np.linalg.slogdet(covariance)[1] - np.sum(digamma(halves) - math.log(n / 2))
    error = math.hypot(
        log_f.std() / math.sqrt(effective_size(log_f)), 0.5 * math.sqrt(polygamma(1, halves).sum())
    )
    entropy = 0.5 * (dimension * math.log(2 * math.pi * math.e) + log_det)
    return float(log_f.mean() + entropy + 2 * error)


def _terms(
    at_draws: np.ndarray, at_proposals: np.ndarray, log_z: float, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """(f / Z) / (s1 f / Z + s2 g) at the proposals, and g / (s1 f / Z + s2 g) at the draws."""
    odds = math.log1p(-share) - math.log(share)
    of_f = expit(at_proposals - log_z - odds) / share
    of_g = expit(odds + log_z - at_draws) / (1 - share)
    return of_f, of_g


def effective_size(values: np.ndarray) -> float:
    """Effective size of the mean over chains of values (num_chains, num_draws, ...): the least."""
    if not np.ptp(values) > 0:
        return float(values.size)
    others = [f"axis{i}" for i in range(values.ndim - 2)]
    dataset = xr.Dataset({"values": ((CHAIN, DRAW, *others), values)})
    return float(arviz_bridge.ess(dataset, "mean")["values"].min())
