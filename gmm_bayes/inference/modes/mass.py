"""The mass of a piece of the posterior, by bridge sampling."""

import logging

import numpy as np

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference.modes.bridge import Bridge, Normal, bridge
from gmm_bayes.inference.modes.draws import every, mixtures_of_draws, stacked
from gmm_bayes.inference.modes.nearest import Chain, Nearest, speaking
from gmm_bayes.inference.potential import mixture_at
from gmm_bayes.inference.sampling.problem import Draws, Problem, evaluate
from gmm_bayes.model.matching import match_to_pivot
from gmm_bayes.model.numberings import log_permanent, log_prior_ratios
from gmm_bayes.model.priors import PriorArrays

__all__ = ["mass_of"]

logger = logging.getLogger(__name__)

# Draws of each half of the chains, and proposals, that make a bridge: so many, and more where the
# normal distribution between has more parameters. Below two a dimension it cannot be fitted.
_BRIDGE_DRAWS, _DRAWS_EACH, _FEWEST_EACH = 1000, 4, 2
# The sum over numberings takes 2^(K - 1) K steps a draw.
_MOST_NUMBERED = 12
_UNKNOWN = Bridge(np.nan, np.inf, 0, 0.0, False)


def mass_of(
    problem: Problem,
    prior: PriorArrays,
    piece: list[Chain],
    near: Nearest,
    elsewhere: np.ndarray,
    rng: np.random.Generator,
) -> Bridge:
    """The integral of the density where no mode of another piece is the nearest.

    Parameters
    ----------
    problem : Problem
    prior : PriorArrays
        In standard units.
    piece : list of Chain
    near : Nearest
    elsewhere : ndarray of bool, shape (n_modes,)
        Which modes are another piece's.
    rng : numpy.random.Generator

    Returns
    -------
    Bridge
        Of infinite error, and without a mass, where the draws and a normal distribution do not
        meet, or where they are too few for one.
    """
    dimension = problem.space.dimension
    draws = _thinned(piece, max(_BRIDGE_DRAWS, _DRAWS_EACH * dimension))
    potential = draws.stats["potential"]
    if potential.size < 2 * _FEWEST_EACH * dimension:
        return _UNKNOWN
    flat = [
        problem.space.vector({name: values[c, t] for name, values in draws.sites.items()})
        for c, t in np.ndindex(*potential.shape)
    ]
    z, half = np.reshape(flat, (*potential.shape, -1)), potential.shape[1] // 2
    fitted, used = z[:, :half], z[:, half:]

    def belongs(points: np.ndarray) -> np.ndarray:
        modes = near.mode(mixture_at(points, problem.spec, problem.data.n_features))
        return ~elsewhere[modes]

    try:
        normal = Normal.fit(fitted, np.ones(fitted.shape[:2]))
        proposals = normal.sample(rng, _BRIDGE_DRAWS)
        with np.errstate(over="ignore", invalid="ignore"):
            log_f = np.where(belongs(proposals), -evaluate(problem, proposals)[0], -np.inf)
        at_proposals = np.nan_to_num(log_f, nan=-np.inf) - normal.log_density(proposals)
        lines = used.reshape(-1, used.shape[-1])
        at_draws = -potential[:, half:] - normal.log_density(lines).reshape(used.shape[:2])
        counted = belongs(lines).reshape(used.shape[:2]).astype(float)
        # A chain that has left says nothing of where it was.
        there = counted.any(axis=1)
        if not there.any():
            return _UNKNOWN
        found = bridge(at_draws[there], at_proposals, counted[there])
    except InferenceError as error:
        logger.info("the mass of a mode is not known: %s", error)
        return _UNKNOWN
    more = _other_numberings(mixtures_of_draws(problem, draws), prior, potential.ravel())
    return found._replace(log_constant=found.log_constant + more)


def _other_numberings(
    mixtures: MixtureParameters, prior: PriorArrays, potential: np.ndarray
) -> float:
    """Log of the factor by which a mass is larger with all numberings of its components.

    The draws (S, ...) are of some numberings, of one as a rule. Those that are numbered as the best
    of them is are of one; summed over all numberings, the prior of a mixture is a permanent.
    """
    if mixtures.weights.shape[1] > _MOST_NUMBERED:
        return 0.0
    pivot = MixtureParameters(*(a[potential.argmin()] for a in mixtures))
    numbered = match_to_pivot(mixtures, pivot) == np.arange(mixtures.weights.shape[1])
    every = log_permanent(log_prior_ratios(mixtures, prior))
    return float(np.log(np.mean(np.exp(every) * numbered.all(axis=1))))


def _thinned(piece: list[Chain], wanted: int) -> Draws:
    """The draws of a piece, some of each chain where halves have more than are wanted."""
    draws = stacked([chain.draws for chain in speaking(piece)])
    step = max(1, draws.stats["potential"].size // (2 * wanted))
    return every(draws, slice(None), step)
