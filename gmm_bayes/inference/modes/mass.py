"""The mass of a piece of the posterior, by bridge sampling."""

import logging
from collections.abc import Callable

import numpy as np

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference.modes.bridge import Bridge, Normal, bridge, largest_constant
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
# Share of a chain's draws that must be the piece's, beside that of the chain with most.
_MOSTLY = 0.1
# Nats: a bridge with a larger error may be out by far more, where draws are far from normal.
_POOR = 0.1


def mass_of(
    problem: Problem,
    prior: PriorArrays,
    piece: list[Chain],
    near: Nearest,
    elsewhere: np.ndarray,
    rng: np.random.Generator,
) -> Bridge:
    """The integral of the density where no mode of another piece is the nearest.

    It is found by the draws that are numbered as the best of them is, for chains may have come to
    one piece under several numberings, and is then summed over all numberings.

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
        No more than the draws' covariance allows, where the error is large. Of infinite error, and
        with what that allows for a mass, where the draws and a normal distribution do not meet;
        without a mass where the draws are too few.
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
    z = np.reshape(flat, (*potential.shape, -1))
    mixtures = mixtures_of_draws(problem, draws)
    here = ~elsewhere[near.mode(mixtures)]
    if not here.any():
        return _UNKNOWN
    lowest = np.where(here, potential.ravel(), np.inf).argmin()
    best = MixtureParameters(*(a[lowest] for a in mixtures))

    def belongs(points: MixtureParameters) -> np.ndarray:
        """Whether points are the piece's, and numbered as its best draw is."""
        numbered = match_to_pivot(points, best) == np.arange(len(best.weights))
        return ~elsewhere[near.mode(points)] & numbered.all(axis=1)

    counted = belongs(mixtures).reshape(potential.shape)
    # A chain that is numbered otherwise, or has left, says nothing of where it was.
    share = counted.mean(axis=1)
    there = share > _MOSTLY * share.max()
    kept = (there[:, None] & counted).ravel()
    z, potential, counted = z[there], potential[there], counted[there]
    found = _bridged(problem, z, potential, counted, belongs, rng)
    if not found.error < _POOR:
        bound = largest_constant(z, -potential)
        found = found._replace(log_constant=float(np.fmin(found.log_constant, bound)))
    if not np.isfinite(found.log_constant):
        return _UNKNOWN
    more = _other_numberings(MixtureParameters(*(a[kept] for a in mixtures)), prior)
    return found._replace(log_constant=found.log_constant + more)


def _bridged(
    problem: Problem,
    z: np.ndarray,
    potential: np.ndarray,
    counted: np.ndarray,
    belongs: Callable[[MixtureParameters], np.ndarray],
    rng: np.random.Generator,
) -> Bridge:
    """The integral where points belong, from draws (chains, draws, dimension), some counted."""
    half = potential.shape[1] // 2
    try:
        normal = Normal.fit(z[:, :half], counted[:, :half].astype(float))
        proposals = normal.sample(rng, _BRIDGE_DRAWS)
        inside = belongs(mixture_at(proposals, problem.spec, problem.data.n_features))
        with np.errstate(over="ignore", invalid="ignore"):
            log_f = np.where(inside, -evaluate(problem, proposals)[0], -np.inf)
        at_proposals = np.nan_to_num(log_f, nan=-np.inf) - normal.log_density(proposals)
        lines = z[:, half:].reshape(-1, z.shape[-1])
        at_draws = -potential[:, half:] - normal.log_density(lines).reshape(len(z), -1)
        used = counted[:, half:].astype(float)
        there = used.any(axis=1)
        if not there.any():
            return _UNKNOWN
        return bridge(at_draws[there], at_proposals, used[there])
    except (InferenceError, ZeroDivisionError) as error:
        logger.info("the mass of a mode is not known: %s", error)
        return _UNKNOWN


def _other_numberings(mixtures: MixtureParameters, prior: PriorArrays) -> float:
    """Log of the factor by which a mass is larger with all numberings of its components.

    The draws (S, ...) are of one numbering; summed over all, the prior of a mixture is a permanent.
    """
    if mixtures.weights.shape[1] > _MOST_NUMBERED:
        return 0.0
    return float(np.log(np.mean(np.exp(log_permanent(log_prior_ratios(mixtures, prior))))))


def _thinned(piece: list[Chain], wanted: int) -> Draws:
    """The draws of a piece, some of each chain where halves have more than are wanted."""
    draws = stacked([chain.draws for chain in speaking(piece)])
    step = max(1, draws.stats["potential"].size // (2 * wanted))
    return every(draws, slice(None), step)
