"""How chains begin: adapted to the curvature at the mode where that helps, plainly elsewhere.

One data set is planned here. `batch.starts` plans many by the same rules; what differs is how the
mode is found (see there) and that points are evaluated a block of sets at a time.
"""

from collections.abc import Callable, Sequence
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
    "chain_keys",
    "departure_from_normal",
    "is_near_normal",
    "plain_plan",
    "until_finite",
    "worst_difference",
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
    starts = _starts(problem, lambda rng: rng.standard_normal(dimension), found.affine.apply)
    if starts is not None:
        known = {"preconditioning": "laplace", **facts}
        return Plan(found.affine, starts, True, known, chain_keys(problem.rngs))
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
    """Start near a mixture, in the model's own coordinates; near others too if the problem has any.

    Coordinates are no mode's own here, so chains are dealt among the mixtures.

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

    mixtures = [mixture, *problem.find_others()]
    began = [c % len(mixtures) for c in range(len(problem.rngs))]
    begins_at = dict(zip(map(id, problem.rngs), began, strict=True))

    def near(rng: np.random.Generator) -> np.ndarray:
        chosen = mixtures[begins_at[id(rng)]]
        return problem.vector(jitter(chosen, problem.spec, problem.n_obs, rng))

    starts = _starts(problem, near, lambda z: z)
    if starts is not None:
        dealt = {"began": began} if len(mixtures) > 1 else {}
        known = {"preconditioning": "none", "reason": reason, **(facts or {}), **dealt}
        return Plan(identity, starts, False, known, chain_keys(problem.rngs))
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
        worst = max(worst, float(worst_difference(difference[None])))
        if not worst < LARGEST_DEPARTURE:
            break
    return worst


def worst_difference(differences: np.ndarray) -> np.ndarray:
    """The largest root mean square (...) of differences (..., n_probes, dimension)."""
    return np.sqrt(np.mean(differences**2, axis=-1)).max(axis=-1)


def until_finite(
    wanted: np.ndarray,
    draw: Callable[[int], np.ndarray],
    are_finite: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Draw starts of some sets, anew for those at one of whose starts the density is not finite.

    Parameters
    ----------
    wanted : ndarray of bool, shape (n_sets,)
    draw : callable
        Draws the starts (num_chains, dimension) of the set of that number.
    are_finite : callable
        Says of starts (n_sets, num_chains, dimension) which sets' are good, shape (n_sets,).

    Returns
    -------
    starts : ndarray, shape (n_sets, num_chains, dimension)
    found : ndarray of bool, shape (n_sets,)
        Which sets have good ones, after at most `ATTEMPTS` draws of each.
    """
    left = wanted.copy()
    starts: Any = 0.0
    for _ in range(ATTEMPTS):
        if not left.any():
            break
        drawn = {int(i): draw(int(i)) for i in np.flatnonzero(left)}
        if np.ndim(starts) == 0:
            starts = np.zeros((len(wanted), *next(iter(drawn.values())).shape))
        # A new array: whoever was given the one before keeps it.
        starts = starts.copy()
        starts[list(drawn)] = list(drawn.values())
        left &= ~are_finite(starts)
    return starts, wanted & ~left


def chain_keys(rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Keys of the chains' own random numbers, shape (num_chains, 2)."""
    return np.stack([rng.integers(0, 2**32, 2, dtype=np.uint32) for rng in rngs])


def _starts(
    problem: Problem,
    draw: Callable[[np.random.Generator], np.ndarray],
    place: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray | None:
    """A start for each chain, at whose place in z the density is finite; None if there are none."""
    starts, found = until_finite(
        np.ones(1, bool),
        lambda _: np.stack([draw(rng) for rng in problem.rngs]),
        lambda starts: np.array([_finite(place(starts[0]), problem)]),
    )
    return starts[0] if found[0] else None


def _finite(points: np.ndarray, problem: Problem) -> bool:
    """Whether the potential and its gradient are finite at every point."""
    found = [value_and_gradient(z, problem.data, problem.spec) for z in points]
    return all(np.isfinite(value) and np.isfinite(slope).all() for value, slope in found)
