"""What a sampler is given and what it returns."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.core.unconstrained import Space
from gmm_bayes.inference.potential import Data, ModelSpec, site_values, space
from gmm_bayes.inference.sampling.checkpoint.recorder import Recorder
from gmm_bayes.inference.sampling.mode import value_and_gradient
from gmm_bayes.machine.devices import first_device
from gmm_bayes.machine.progress import Progress

__all__ = ["Draws", "Problem", "describe", "evaluate", "in_fixed_blocks"]

_DRAWS_PER_BLOCK = 64


class Problem(NamedTuple):
    """What a sampler is given.

    Attributes
    ----------
    data : Data
        Rows and priors in standard units, on the device or devices.
    spec : ModelSpec
    n_obs : int
    find_start : callable
        Finds the mixture from which to start, in standard units; it takes a while.
    rngs : list of numpy.random.Generator
        One for each chain.
    recorder : Recorder
        What is kept of the run, and what it goes on from.
    grouping : tuple of int, optional
        Chains in one program and programs at once, as the memory allows; None takes the fastest.
    looked_for : dict
        What is known of the search for the start, once it has been found.
    find_others : callable
        Other mixtures that chains should start from too, where that costs nothing.
    """

    data: Data
    spec: ModelSpec
    n_obs: int
    find_start: Callable[[], MixtureParameters]
    rngs: list[np.random.Generator]
    recorder: Recorder
    grouping: tuple[int, int] | None = None
    looked_for: Mapping[str, Any] = MappingProxyType({})
    find_others: Callable[[], list[MixtureParameters]] = list

    @property
    def space(self) -> Space:
        """The unconstrained parameters."""
        return space(self.spec, self.data.n_features)

    @property
    def device(self) -> jax.Device:
        """Where the data are; of several devices, the first of this process."""
        return first_device(self.data.rows.values)

    @property
    def mesh(self) -> Mesh | None:
        """The devices over which data and chains are spread."""
        split = self.data.rows.split
        return None if split is None else split.mesh

    def vector(self, mixture: MixtureParameters) -> np.ndarray:
        """Return the unconstrained vector of a mixture."""
        return self.space.vector(site_values(mixture, self.spec))


class Draws(NamedTuple):
    """What a sampler returns.

    Attributes
    ----------
    sites : dict of ndarray, shape (num_chains, num_samples, ...)
    stats : dict of ndarray, shape (num_chains, num_samples)
    facts : dict
        How the run went, in strings and numbers.
    seconds : dict
        Spent to initialise, to wait for the compiler after that, and to sample.
    state : dict of ndarray
        What more draws can be made from; empty where they cannot.
    """

    sites: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    facts: dict[str, Any]
    seconds: dict[str, float]
    state: dict[str, np.ndarray] = {}  # noqa: RUF012

    @classmethod
    def at(cls, problem: Problem, z: np.ndarray, facts: dict[str, Any]) -> "Draws":
        """Draws at points of which nothing else is known yet.

        Parameters
        ----------
        problem : Problem
        z : ndarray, shape (num_chains, num_samples, dimension)
            Unconstrained vectors.
        facts : dict
            How the run went.
        """
        begin = time.perf_counter()
        shape, dimension = z.shape[:-1], z.shape[-1]
        potential, gradient = evaluate(problem, z.reshape(-1, dimension))
        potential, gradient = potential.reshape(shape), gradient.reshape(z.shape)
        sites, stats = describe(problem, z, potential, gradient)
        seconds = {"initialise": 0.0, "compile": 0.0, "sample": time.perf_counter() - begin}
        known = {"n_gradients": potential.size, **facts}
        return cls(sites, {**stats, "potential": potential}, known, seconds)


def evaluate(
    problem: Problem, z: np.ndarray, bar: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the potential and its gradient at points (n, dimension); a bar is told of each."""
    potential, gradient = np.empty(len(z)), np.empty(z.shape)
    for i, point in enumerate(z):
        potential[i], gradient[i] = value_and_gradient(point, problem.data, problem.spec)
        if bar is not None:
            bar.update(1, sampling=True)
    return potential, gradient


def describe(
    problem: Problem, z: np.ndarray, potential: np.ndarray, gradient: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return sites, and the log-likelihood (nats) and number of occupied components, of draws.

    No pass over the rows is needed: the sampler has evaluated the potential and its gradient at
    every draw, and both numbers follow from them.

    Parameters
    ----------
    problem : Problem
    z, gradient : ndarray, shape (..., dimension)
        Draws, and the gradient of the potential there.
    potential : ndarray, shape (...)
    """
    here, prior = problem.space, jax.tree.map(np.asarray, problem.data.prior)
    counts = here.counts(-gradient, z, prior, problem.n_obs)
    stats = {
        "log_likelihood": -potential - here.log_density(z, prior),
        # A component is occupied when its responsibilities add up to one row at least; a sum that
        # is exactly one row must not depend on rounding.
        "n_occupied": np.sum(counts >= 1 - 1e-6, axis=-1),
    }
    return here.sites(z), stats


def in_fixed_blocks(function: Callable[..., Any], arrays: Sequence[np.ndarray], first: int) -> Any:
    """Apply a function of draws to blocks of them, all of one size, and join the answers.

    A library rounds a product of matrices by its shape and each row by its place. In blocks that
    begin at the same draws whatever the length of a run, a draw comes out the same in a longer one.

    Parameters
    ----------
    function : callable
        From arrays (chain, draw, ...) to arrays (chain, draw, ...).
    arrays : sequence of ndarray, shape (num_chains, num_samples, ...)
    first : int
        The number of the first draw.
    """
    n_draws, before = arrays[0].shape[1], first % _DRAWS_PER_BLOCK
    after = -(before + n_draws) % _DRAWS_PER_BLOCK
    filled = [
        np.pad(a, [(0, 0), (before, after), *[(0, 0)] * (a.ndim - 2)], "edge") for a in arrays
    ]
    answers = [
        function(*(np.ascontiguousarray(a[:, i : i + _DRAWS_PER_BLOCK]) for a in filled))
        for i in range(0, before + n_draws + after, _DRAWS_PER_BLOCK)
    ]
    return jax.tree.map(
        lambda *parts: np.concatenate(parts, axis=1)[:, before : before + n_draws], *answers
    )
