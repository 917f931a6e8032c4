"""Many posteriors by their normal approximations: what `Laplace` does for one, block by block."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from gmm_bayes.inference.batch.draws import ManyDraws, describe_set
from gmm_bayes.inference.batch.sampling import SETS_PER_BLOCK
from gmm_bayes.inference.batch.starts import Plans, blocks_of, plan_many, points_at
from gmm_bayes.inference.potential import Data, ModelSpec, space
from gmm_bayes.inference.sampling.laplace import PROPOSALS, Laplace, weigh
from gmm_bayes.machine.progress import SetProgress
from gmm_bayes.machine.threads import run_in_threads

__all__ = ["weigh_many"]


def weigh_many(
    data: Data,
    z: np.ndarray,
    spec: ModelSpec,
    sampler: Laplace,
    seeds: Sequence[np.random.SeedSequence],
    *,
    device: jax.Device,
    progress: bool = False,
) -> ManyDraws:
    """Draw from the normal approximations of many data sets of one padded shape.

    Parameters
    ----------
    data : Data
        With a leading axis of n_sets.
    z : ndarray, shape (n_sets, dimension)
        Where the searches for the modes begin.
    spec : ModelSpec
    sampler : Laplace
    seeds : sequence of SeedSequence
        One for each set.
    device : jax.Device
    progress : bool

    Returns
    -------
    ManyDraws
        Of a set without a curvature at its mode there are none: its `n_draws` is 0.
    """
    begin = time.perf_counter()
    n_sets, here = len(z), space(spec, data.n_features)
    size = min(SETS_PER_BLOCK, n_sets)
    rngs = [[np.random.default_rng(seed)] for seed in seeds]
    plans = plan_many(data, z, spec, rngs, "laplace", size, device)
    initialised = time.perf_counter()
    shape = (n_sets, 1, sampler.num_samples)
    drawn = np.full((*shape, here.dimension), np.nan)
    stats = {name: np.full(shape, np.nan) for name in ("potential", "log_likelihood")}
    stats["n_occupied"] = np.zeros(shape, np.int32)
    found = plans.facts.pop("adapted")
    facts = {
        **plans.facts,
        "pareto_k": np.full(n_sets, np.nan),
        "importance_ess": np.full(n_sets, np.nan),
        "n_gradients": np.full(n_sets, PROPOSALS * sampler.num_samples),
        "n_draws": np.where(found, sampler.num_samples, 0),
    }
    draws = ManyDraws(here, drawn, stats, facts, {})

    def block(bar: SetProgress, sets: np.ndarray, stop: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        _weigh(sets[found[sets]], data, spec, sampler, rngs, plans, size, draws)
        bar.finish(len(sets))

    with SetProgress(n_sets, len(blocks_of(n_sets, size)), shown=progress) as bar:
        jobs: list[Callable[..., Any]] = [partial(block, bar, s) for s in blocks_of(n_sets, size)]
        # One at a time, as the searches for the modes: a block is little work.
        run_in_threads(jobs, 1, device)
    seconds = time.perf_counter() - initialised
    draws.seconds.update(initialise=initialised - begin, compile=0.0, sample=seconds)
    return draws


def _weigh(
    sets: np.ndarray,
    data: Data,
    spec: ModelSpec,
    sampler: Laplace,
    rngs: Sequence[Sequence[np.random.Generator]],
    plans: Plans,
    size: int,
    draws: ManyDraws,
) -> None:
    """Draw proposals for the sets of a block, and keep of each as many as are asked for."""
    if not len(sets):
        return
    shape = (PROPOSALS * sampler.num_samples, draws.z.shape[-1])
    eta = np.stack([rngs[i][0].standard_normal(shape) for i in sets])
    values, gradients = points_at(eta, sets, size, data, spec, plans)
    for i, proposed, potential, gradient in zip(sets, eta, values, gradients, strict=True):
        kept, facts = weigh(proposed, potential - potential.min(), sampler.num_samples, rngs[i][0])
        z = plans.affine.loc[i] + proposed[kept] @ plans.affine.factor[i].T
        of_set = describe_set(int(i), z, potential[kept], gradient[kept], data, spec)
        draws.z[i, 0] = z
        for name, value in {**of_set, "potential": potential[kept]}.items():
            draws.stats[name][i, 0] = value
        for name, fact in facts.items():
            draws.facts[name][i] = fact
