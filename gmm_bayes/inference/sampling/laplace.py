"""Draws from the normal approximation alone, corrected by importance weights."""

import time
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from gmm_bayes.core.unconstrained import Space
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.sampling.mode import normal_approximation
from gmm_bayes.inference.sampling.problem import Draws, Problem, describe, evaluate
from gmm_bayes.inference.sampling.sampler import AtLeast1, Sampler
from gmm_bayes.machine.memory import ProblemSize
from gmm_bayes.machine.progress import Progress

__all__ = ["PROPOSALS", "Laplace", "weigh"]

# Proposals for each draw that is kept.
PROPOSALS = 4


@dataclass(frozen=True)
class Laplace(Sampler):
    """Draws from the normal approximation at the mode, corrected by importance weights.

    For the impatient: no chains, no warm-up. Proposals are drawn from the normal distribution that
    has the posterior's mode and curvature, weighted by Pareto-smoothed importance weights [1]_ and
    resampled. The shape k of the weights' tail says whether that can be believed: above 0.7 it
    cannot, and the verdict of the fit says so.

    Parameters
    ----------
    num_samples : int
        Draws kept; four times as many proposals are weighted.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range.

    References
    ----------
    .. [1] A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry (2024). Pareto smoothed importance
       sampling. JMLR 25.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> X = gb.datasets.load_old_faithful()
    >>> quick = gb.fit(X, 2, sampler=gb.Laplace(num_samples=1000), seed=1)
    >>> quick.posterior["weights"].mean(("chain", "draw")).round(1).values
    array([0.4, 0.6])
    """

    num_samples: AtLeast1 = 1000

    num_chains = 1
    judged_by = "weights"
    can_batch = True

    def size(self, n_obs: int, space: Space) -> ProblemSize:
        """What the memory of a run depends on."""
        return ProblemSize.of(n_obs, space, 1, PROPOSALS * self.num_samples)

    def check_mesh(self, mesh: Mesh | None) -> None:
        """Any mesh will do."""

    def run(self, problem: Problem, *, progress: bool = False) -> Draws:
        """Draw from the approximate posterior of a problem, with a bar if `progress`.

        Raises
        ------
        InferenceError
            If there is no curvature at the mode.
        """
        begin = time.perf_counter()
        (rng,) = problem.rngs
        mixture = problem.find_start()
        found = normal_approximation(problem.vector(mixture), problem.data, problem.spec)
        if found is None:
            raise InferenceError(
                "there is no normal approximation: the log density has no finite curvature at its "
                "mode; take sampler=NUTS(), or check the priors against the units of the data"
            )
        initialised = time.perf_counter()
        dimension = problem.space.dimension
        eta = rng.standard_normal((PROPOSALS * self.num_samples, dimension))
        z = found.affine.apply(eta)
        with Progress(len(z), shown=progress) as bar:
            potential, gradient = evaluate(problem, z, bar)
        kept, trust = weigh(eta, potential - found.potential, self.num_samples, rng)
        sites, stats = describe(problem, z[kept], potential[kept], gradient[kept])
        facts = {
            "curvature": found.curvature,
            "mode_gradients": found.n_gradients,
            "n_gradients": len(z),
            **trust,
            "chain_method": "independent draws",
        }
        seconds = {
            "initialise": initialised - begin,
            "compile": 0.0,
            "sample": time.perf_counter() - initialised,
        }
        stats["potential"] = potential[kept]
        sites, stats = jax.tree.map(lambda a: a[None], (sites, stats))
        return Draws(sites, stats, facts, seconds)


def weigh(
    eta: np.ndarray, loss: np.ndarray, n_draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, float]]:
    """Pick draws from proposals of N(0, I) by their weights, and say how far these can be trusted.

    Parameters
    ----------
    eta : ndarray, shape (n_proposals, dimension)
    loss : ndarray, shape (n_proposals,)
        Their potentials in nats, from any level.
    n_draws : int
    rng : numpy.random.Generator

    Returns
    -------
    kept : ndarray of int, shape (n_draws,)
    facts : dict
        `pareto_k` and `importance_ess`.
    """
    log_weights = 0.5 * np.sum(eta**2, axis=1) - loss
    weights, pareto_k = arviz_bridge.smoothed_weights(log_weights)
    facts = {"pareto_k": pareto_k, "importance_ess": float(1 / np.sum(weights**2))}
    return _resample(weights, n_draws, rng), facts


def _resample(weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic resampling, in random order: each proposal as often as its weight, rounded."""
    ends = np.cumsum(weights)
    picks = (rng.random() + np.arange(n_draws)) / n_draws * ends[-1]
    return rng.permutation(np.minimum(np.searchsorted(ends, picks), len(weights) - 1))
