"""How the chains of many data sets begin: the rules of `sampling.starts`, block by block."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gmm_bayes._vocabulary import Preconditioning
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference.batch.programs import gradients_at, modes_and_curvatures
from gmm_bayes.inference.em.starts import jitter
from gmm_bayes.inference.potential import Data, ModelSpec, mixture_at, site_values, space
from gmm_bayes.inference.sampling.coordinates import AffineMap
from gmm_bayes.inference.sampling.mode import inverse_factor
from gmm_bayes.inference.sampling.starts import (
    ATTEMPTS,
    LARGEST_DEPARTURE,
    PROBES,
    until_finite,
    worst_difference,
)
from gmm_bayes.machine.threads import run_in_threads

__all__ = ["Plans", "blocks_of", "plan_many", "plan_plainly", "points_at"]

# Points of each set that are evaluated in one call.
_POINTS = 1000

Rngs = Sequence[Sequence[np.random.Generator]]


class Plans(NamedTuple):
    """Where the chains of many sets begin, and in which coordinates.

    Attributes
    ----------
    affine : AffineMap
        With a leading axis of n_sets.
    starts : ndarray, shape (n_sets, num_chains, dimension)
        In the coordinates of the maps.
    facts : dict of ndarray, shape (n_sets,)
        `adapted`, `departure_from_normal`, `mode_gradients`.
    """

    affine: AffineMap
    starts: np.ndarray
    facts: dict[str, np.ndarray]


def plan_many(
    data: Data,
    z: np.ndarray,
    spec: ModelSpec,
    rngs: Rngs,
    preconditioning: Preconditioning,
    size: int,
    device: jax.Device,
    largest_departure: float = LARGEST_DEPARTURE,
) -> Plans:
    """Find the coordinates and the starts of every set, in blocks of `size` sets.

    Parameters
    ----------
    data : Data
        With a leading axis of n_sets.
    z : ndarray, shape (n_sets, dimension)
        Where the searches for the modes begin.
    spec : ModelSpec
    rngs : sequence of sequences of numpy.random.Generator
        One for each chain of each set.
    preconditioning : {"auto", "laplace", "none"}
    size : int
    device : jax.Device
    largest_departure : float
        From a normal distribution, with which "auto" takes the coordinates of the curvature.

    Raises
    ------
    InferenceError
        If no finite start of a set is found; the message names its number.
    """
    n_sets, dimension = z.shape
    shape = (n_sets, len(rngs[0]), dimension)
    identity = np.broadcast_to(np.eye(dimension), (n_sets, dimension, dimension))
    plans = Plans(
        AffineMap(np.zeros_like(z), identity.copy()),
        np.empty(shape),
        {
            "adapted": np.zeros(n_sets, bool),
            "departure_from_normal": np.full(n_sets, np.nan),
            "mode_gradients": np.zeros(n_sets, int),
        },
    )

    def plan(sets: np.ndarray, stop: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        block = _Block(sets, size, data, spec, rngs, plans)
        if preconditioning != "none":
            forced = preconditioning == "laplace"
            block.approximate(z, np.inf if forced else largest_departure)
        block.start_plainly(z)

    jobs: list[Callable[..., None]] = [partial(plan, s) for s in blocks_of(n_sets, size)]
    # One at a time: two such programs at once, each with batches of eigenvalue problems, were seen
    # to wait for each other for ever on two cores. It is little beside the sampling.
    run_in_threads(jobs, 1, device)
    return plans


def plan_plainly(
    plans: Plans,
    sets: np.ndarray,
    data: Data,
    z: np.ndarray,
    spec: ModelSpec,
    rngs: Rngs,
    size: int,
) -> None:
    """Plan some of the sets anew, in the model's own coordinates, and write it into the plans."""
    plans.facts["adapted"][sets] = False
    plans.affine.loc[sets], plans.affine.factor[sets] = 0, np.eye(z.shape[1])
    for some in blocks_of(len(sets), size):
        _Block(sets[some], size, data, spec, rngs, plans).start_plainly(z)


def points_at(
    eta: np.ndarray, sets: np.ndarray, size: int, data: Data, spec: ModelSpec, plans: Plans
) -> tuple[np.ndarray, np.ndarray]:
    """The potential and its gradient in z at points (n, n_points, dimension) of a block of sets.

    Points are in the coordinates of each set's map. There are at most `size` sets.
    """
    block = _Block(sets, size, data, spec, [], plans)
    parts = []
    for first in range(0, eta.shape[1], _POINTS):
        some = eta[:, first : first + _POINTS]
        short = _POINTS - some.shape[1]
        # All of one size, so that one program serves.
        filled = np.pad(some, [(0, 0), (0, short if first else 0), (0, 0)])
        values, gradients = block.at(filled)
        parts.append((values[:, : some.shape[1]], gradients[:, : some.shape[1]]))
    values, gradients = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    return values, gradients


def blocks_of(n_sets: int, size: int) -> list[np.ndarray]:
    """Numbers of the sets of each block; the last may be smaller."""
    return [np.arange(first, min(first + size, n_sets)) for first in range(0, n_sets, size)]


class _Block(NamedTuple):
    """Some sets, and the record in which their plans are written."""

    sets: np.ndarray
    size: int
    data: Data
    spec: ModelSpec
    rngs: Rngs
    plans: Plans

    def approximate(self, z: np.ndarray, largest_departure: float) -> None:
        """Put those sets that are close to normal into the coordinates of their curvature."""
        facts, affine = self.plans.facts, self.plans.affine
        found = modes_and_curvatures(self._fill(z), self._fill(self.data), spec=self.spec)
        modes, hessians, n_gradients = (np.asarray(a)[: len(self.sets)] for a in found)
        facts["mode_gradients"][self.sets] = n_gradients
        factored = [inverse_factor(hessian) for hessian in hessians]
        for i, mode, factor in zip(self.sets, modes, factored, strict=True):
            if factor is not None:
                affine.loc[i], affine.factor[i] = mode, factor[0]
        # Of those without a curvature too: a generator's draws are in their order.
        probes = self._per_set(lambda i: self.rngs[i][0].standard_normal((PROBES, z.shape[1])))
        _, gradients = self.at(probes)
        white = gradients @ affine.factor[self.sets] - probes
        departure = worst_difference(white)
        departure[[factor is None for factor in factored]] = np.nan
        facts["departure_from_normal"][self.sets] = departure
        hopeful = departure < largest_departure
        self._take(hopeful, lambda i, rng: rng.standard_normal(z.shape[1]), adapted=True)
        for i in self.sets[~facts["adapted"][self.sets]]:
            affine.loc[i], affine.factor[i] = 0, np.eye(z.shape[1])

    def start_plainly(self, z: np.ndarray) -> None:
        """Start the other sets near their mixtures, in the model's own coordinates."""
        left = ~self.plans.facts["adapted"][self.sets]
        left &= ~self._take(left, lambda i, rng: self._near(z[i], i, rng), adapted=False)
        if left.any():
            raise InferenceError(
                f"the log density of set {self.sets[left][0]} is not finite at {ATTEMPTS} sets of "
                "starting points near the EM solution: check the priors against the units of the "
                "data"
            )

    def _take(self, wanted: np.ndarray, draw: Callable[..., Any], *, adapted: bool) -> np.ndarray:
        """Keep starts of those sets at all of whose starts the density is finite."""

        def of_set(place: int) -> np.ndarray:
            i = self.sets[place]
            return np.stack([draw(i, rng) for rng in self.rngs[i]])

        def are_finite(starts: np.ndarray) -> np.ndarray:
            values, gradients = self.at(starts)
            return np.isfinite(values).all(axis=1) & np.isfinite(gradients).all(axis=(1, 2))

        starts, found = until_finite(wanted, of_set, are_finite)
        if found.any():
            self.plans.starts[self.sets[found]] = starts[found]
            self.plans.facts["adapted"][self.sets[found]] = adapted
        return found

    def _near(self, z: np.ndarray, i: int, rng: np.random.Generator) -> np.ndarray:
        n_features = self.data.n_features
        n_obs = round(float(self.data.rows.weights[i].sum()))
        moved = jitter(mixture_at(z, self.spec, n_features), self.spec, n_obs, rng)
        return space(self.spec, n_features).vector(site_values(moved, self.spec))

    def at(self, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The potential and its gradient at points in the coordinates of each set."""
        n_points = eta.shape[1]
        # One program for probes and starts.
        filled = np.zeros((self.size, max(PROBES, n_points), eta.shape[2]))
        filled[: len(eta), :n_points] = eta
        affine = self._fill(self.plans.affine)
        found = gradients_at(filled, affine, self._fill(self.data), spec=self.spec)
        values, gradients = (np.asarray(a)[: len(eta), :n_points] for a in found)
        return values, gradients

    def _fill(self, arrays: Any) -> Any:
        """The sets' arrays, with copies of the last set where the block is not full."""
        places = np.minimum(np.arange(self.size), len(self.sets) - 1)
        return jax.tree.map(lambda a: np.asarray(a)[self.sets[places]], arrays)

    def _per_set(self, draw: Callable[[int], np.ndarray]) -> np.ndarray:
        return np.stack([draw(i) for i in self.sets])
