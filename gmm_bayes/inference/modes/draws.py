"""Draws cut, put together, and picked from several pieces of a posterior."""

from typing import Any

import numpy as np

from gmm_bayes._vocabulary import CORRELATION_CHOLESKY, MEANS, SCALES, WEIGHTS
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.sampling.problem import Draws, Problem

__all__ = ["every", "mixed", "mixtures_of_draws", "so_many", "stacked"]


def every(draws: Draws, chains: slice, step: int = 1) -> Draws:
    """Some chains, and every so many of their draws."""
    sites, stats = (
        {n: a[chains, ::step] for n, a in d.items()} for d in (draws.sites, draws.stats)
    )
    return draws._replace(sites=sites, stats=stats, state={})


def stacked(parts: list[Draws]) -> Draws:
    """The chains of all, one after the other."""
    sites, stats = (
        {name: np.concatenate([getattr(part, what)[name] for part in parts]) for name in names}
        for what, names in (("sites", parts[0].sites), ("stats", parts[0].stats))
    )
    return parts[0]._replace(sites=sites, stats=stats)


def so_many(chains: list[Draws], n_chains: int, n_draws: int) -> Draws:
    """So many of the chains, and of their draws; where there are fewer, some twice."""
    every_one = stacked([chains[c % len(chains)] for c in range(n_chains)])
    again = np.arange(n_draws) % every_one.stats["potential"].shape[1]
    sites, stats = (
        {name: a[:, again] for name, a in d.items()} for d in (every_one.sites, every_one.stats)
    )
    return every_one._replace(sites=sites, stats=stats)


def mixed(parts: list[Draws], share: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """As many draws of each part, in each chain, as its share is, in random order.

    The energy is left out: its steps from draw to draw would be those between modes.
    """
    n_chains, n_draws = parts[0].stats["potential"].shape
    ends = np.cumsum(share / share.sum())[:-1]
    even = (rng.random((n_chains, 1)) + np.arange(n_draws)) / n_draws
    which = np.searchsorted(ends, even, side="right")
    which = rng.permuted(which, axis=1) if len(parts) > 1 else which

    def pick(arrays: list[np.ndarray]) -> np.ndarray:
        out = arrays[0].copy()
        for i, array in enumerate(arrays[1:], 1):
            out[which == i] = array[which == i]
        return out

    names = [n for n in parts[0].stats if n != "energy" or len(parts) == 1]
    return {
        "sites": {n: pick([part.sites[n] for part in parts]) for n in parts[0].sites},
        "stats": {n: pick([part.stats[n] for part in parts]) for n in names},
    }


def mixtures_of_draws(problem: Problem, draws: Draws) -> MixtureParameters:
    """The mixtures of all draws, (S, ...)."""
    here, sites = problem.space, draws.sites
    k, d = sites[MEANS].shape[-2:]
    tril = here.structure.scale_tril(sites[SCALES], sites.get(CORRELATION_CHOLESKY), k, d)
    tril = np.broadcast_to(tril, (*sites[WEIGHTS].shape, d, d))
    flat = (a.reshape(-1, *a.shape[2:]) for a in (sites[WEIGHTS], sites[MEANS], np.asarray(tril)))
    return MixtureParameters(*flat)
