"""How chains begin: adapted to the curvature at the mode where that helps, plainly elsewhere."""

from typing import Any

import numpy as np

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference.em.starts import jitter
from gmm_bayes.inference.sampling.coordinates import AffineMap, BlockMap
from gmm_bayes.inference.sampling.mode import (
    Approximation,
    blank_map,
    normal_approximation,
    value_and_gradient,
)
from gmm_bayes.inference.sampling.plan import Plan
from gmm_bayes.inference.sampling.problem import Problem

__all__ = [
    "ATTEMPTS",
    "LARGEST_DEPARTURE",
    "PROBES",
    "adapted_plan",
    "departure_from_normal",
    "is_near_normal",
    "plain_plan",
]

ATTEMPTS = 5
PROBES = 100
# Of `departure_from_normal`. Measured: 0.1 to 0.93 where chains in the new coordinates are the
# better ones, 1.2 to 18 with empty or overlapping components.
LARGEST_DEPARTURE = 1.0


def adapted_plan(problem: Problem, mixture: MixtureParameters, *, forced: bool) -> Plan:
    """Start from draws of the normal approximation, in its coordinates, if it is good enough.

    Parameters
    ----------
    problem : Problem
    mixture : MixtureParameters
        Where the search for the mode begins.
    forced : bool
        Take the approximation however bad, as long as there is one.
    """
    # Of the shape of the map that was hoped for, so that the same compiled program serves.
    identity = blank_map(problem.data, problem.spec)
    start = problem.vector(mixture)
    found = normal_approximation(start, problem.data, problem.spec, exact=False)
    if found is None:
        return plain_plan(problem, mixture, identity, "there is no curvature at the mode")
    departure = departure_from_normal(found, problem, problem.rngs[0])
    facts = {
        "curvature": found.curvature,
        "mode_gradients": found.n_gradients,
        "departure_from_normal": departure,
    }
    if not forced and not departure < LARGEST_DEPARTURE:
        reason = (
            f"the posterior is not close to a normal distribution at its mode (departure "
            f"{departure:.2g}, at most {LARGEST_DEPARTURE}): components overlap or are empty"
        )
        return plain_plan(problem, mixture, identity, reason, facts)
    dimension = problem.space.dimension
    for _ in range(ATTEMPTS):
        starts = np.stack([rng.standard_normal(dimension) for rng in problem.rngs])
        if _finite(found.affine.apply(starts), problem):
            words = {"preconditioning": "laplace", **facts}
            return Plan(found.affine, starts, True, words, _keys(problem))
    reason = "the normal approximation leaves the support"
    return plain_plan(problem, mixture, identity, reason, facts)


def is_near_normal(plan: Plan) -> bool:
    """Whether the posterior is close to a normal distribution in the coordinates of a plan."""
    return plan.adapted and plan.facts["departure_from_normal"] < LARGEST_DEPARTURE


def plain_plan(
    problem: Problem,
    mixture: MixtureParameters,
    identity: AffineMap | BlockMap,
    reason: str,
    facts: dict[str, Any] | None = None,
) -> Plan:
    """Start near a mixture, in the model's own coordinates.

    Parameters
    ----------
    problem : Problem
    mixture : MixtureParameters
    identity : AffineMap or BlockMap
        The map that changes nothing, of the shape that the compiled program expects.
    reason : str
        Why, for the record.
    facts : dict, optional
        What else is known.

    Raises
    ------
    InferenceError
        If the density is not finite at several sets of starts.
    """
    for _ in range(ATTEMPTS):
        moved = [jitter(mixture, problem.spec, problem.n_obs, rng) for rng in problem.rngs]
        starts = np.stack([problem.vector(one) for one in moved])
        if _finite(starts, problem):
            words = {"preconditioning": "none", "reason": reason, **(facts or {})}
            return Plan(identity, starts, False, words, _keys(problem))
    raise InferenceError(
        f"the log density is not finite at {ATTEMPTS} sets of starting points near the EM "
        "solution: check the priors against the units of the data, or give init=MixtureParameters"
    )


def departure_from_normal(
    found: Approximation, problem: Problem, rng: np.random.Generator
) -> float:
    """How far the posterior's gradient is from the normal's where the normal has its mass.

    In the coordinates eta in which the approximation is N(0, I), its gradient at eta is eta. The
    largest root mean square of the difference over some draws is 0 for a normal posterior, and 1
    where the gradient is wrong by as much as its own size. Unlike importance weights it does not
    grow with the dimension.
    """
    worst = 0.0
    for eta in rng.standard_normal((PROBES, len(found.affine.loc))):
        _, gradient = value_and_gradient(found.affine.apply(eta), problem.data, problem.spec)
        difference = found.affine.pull_back(np.asarray(gradient)) - eta
        worst = max(worst, float(np.sqrt(np.mean(difference**2))))
        if not worst < LARGEST_DEPARTURE:
            break
    return worst


def _keys(problem: Problem) -> np.ndarray:
    return np.stack([rng.integers(0, 2**32, 2, dtype=np.uint32) for rng in problem.rngs])


def _finite(points: np.ndarray, problem: Problem) -> bool:
    """Whether the potential and its gradient are finite at every point."""
    found = [value_and_gradient(z, problem.data, problem.spec) for z in points]
    return all(np.isfinite(value) and np.isfinite(slope).all() for value, slope in found)
