"""Draws of many posteriors: the record of all, and what is written into it, set by set."""

from functools import cached_property

import jax
import numpy as np

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.core.unconstrained import Space
from gmm_bayes.inference.batch.starts import Plans
from gmm_bayes.inference.potential import Data, ModelSpec
from gmm_bayes.inference.sampling.checkpoint.recorder import MemoryRecorder
from gmm_bayes.inference.sampling.coordinates import AffineMap
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.inference.sampling.problem import Problem, describe

__all__ = ["Made", "ManyDraws", "describe_set"]

_STATS = ("potential", "energy", "n_steps", "diverging", "acceptance_rate", "step_size")
_COUNTS = {"n_steps": np.int32, "n_occupied": np.int32, "diverging": bool}


class ManyDraws:
    """Draws of many posteriors.

    Attributes
    ----------
    z : ndarray, shape (n_sets, num_chains, num_samples, dimension)
        Unconstrained vectors.
    stats : dict of ndarray, shape (n_sets, num_chains, num_samples)
        `potential` (minus the log joint), `log_likelihood` and `energy` in nats, `n_occupied`,
        `n_steps`, `diverging`, `acceptance_rate`, `step_size`; the first three of weighted draws.
    facts : dict of ndarray, shape (n_sets,)
        `adapted`: whether chains ran in the coordinates of the normal approximation;
        `departure_from_normal`, not a number where there is no such approximation; `mode_gradients`
        and `n_gradients`, spent in search of the mode and by the chains, warm-up included;
        `num_warmup`; `n_draws`: of each chain, fewer than the arrays have room for where a set was
        stopped. The rest is not a number. Of weighted draws, `pareto_k` and `importance_ess`.
    seconds : dict
        Spent to initialise, to wait for the compiler after that, and to sample.
    """

    def __init__(
        self,
        space: Space,
        z: np.ndarray,
        stats: dict[str, np.ndarray],
        facts: dict[str, np.ndarray],
        seconds: dict[str, float],
    ) -> None:
        self._space, self.z, self.stats, self.facts, self.seconds = space, z, stats, facts, seconds

    def __len__(self) -> int:
        return len(self.z)

    @cached_property
    def sites(self) -> dict[str, np.ndarray]:
        """The model's sites, shapes (n_sets, num_chains, num_samples, ...)."""
        return self._space.sites(self.z)

    def sites_of(self, i: int | slice) -> dict[str, np.ndarray]:
        """The sites of one set, shapes (num_chains, n_draws, ...), or of some, with all draws."""
        z = self.z[i] if isinstance(i, slice) else self.z[i, :, : self.facts["n_draws"][i]]
        return self._space.sites(z)


class Made:
    """What blocks and chains write their draws into."""

    def __init__(self, n_sets: int, sampler: NUTS, dimension: int) -> None:
        shape = (n_sets, sampler.num_chains, sampler.num_samples)
        self.z = np.full((*shape, dimension), np.nan)
        self.stats = {
            name: np.full(shape, 0 if name in _COUNTS else np.nan, _COUNTS.get(name, float))
            for name in (*_STATS, "log_likelihood", "n_occupied")
        }
        self.n_gradients = np.zeros(n_sets, int)
        self.num_warmup = np.zeros(n_sets, int)
        self.n_draws = np.zeros(n_sets, int)

    def write(
        self,
        fields: dict[str, np.ndarray],
        i: int,
        num_warmup: int,
        n_gradients: int,
        plans: Plans,
        data: Data,
        spec: ModelSpec,
    ) -> None:
        """Keep the draws (chain, draw, ...) of one set, none or some, in place of any it has."""
        self.z[i] = np.nan
        for name, values in self.stats.items():
            values[i] = 0 if name in _COUNTS else np.nan
        self.num_warmup[i], self.n_draws[i] = num_warmup, 0
        self.n_gradients[i] += n_gradients
        if not fields:
            return
        affine = AffineMap(plans.affine.loc[i], plans.affine.factor[i])
        z = affine.apply(fields["eta"])
        gradient = affine.push_forward(fields["slope"])
        stats = describe_set(i, z, fields["potential"], gradient, data, spec)
        n_draws = self.n_draws[i] = z.shape[1]
        self.z[i, :, :n_draws] = z
        for name, values in {**fields, **stats}.items():
            if name in self.stats:
                self.stats[name][i, :, :n_draws] = values


def describe_set(
    i: int, z: np.ndarray, potential: np.ndarray, gradient: np.ndarray, data: Data, spec: ModelSpec
) -> dict[str, np.ndarray]:
    """The log-likelihood and the number of occupied components of draws of one of the sets."""
    own = jax.tree.map(lambda a: a[i], data)
    n_obs = round(float(own.rows.weights.sum()))
    problem = Problem(own, spec, n_obs, _no_start, [], MemoryRecorder())
    return describe(problem, z, potential, gradient)[1]


def _no_start() -> MixtureParameters:
    raise AssertionError("the start of a set was found before")
