"""Samplers: frozen settings that know how to draw from the posterior of a problem.

NUTS runs in the coordinates in which the posterior is close to N(0, I), where that is so, and
adapts itself where it is not. Laplace draws from the normal approximation alone, corrected by
importance weights.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from gmm_bayes._validation import check_choice, check_integer, check_probability
from gmm_bayes._vocabulary import (
    CHAIN_METHODS,
    PRECONDITIONING,
    ChainMethod,
    Preconditioning,
)
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.affine import unit_map
from gmm_bayes.inference.chains import Adaptation, Programs, Settings, Warmup, run_group
from gmm_bayes.inference.devices import cpu_cores
from gmm_bayes.inference.draws import Draws, Problem, describe
from gmm_bayes.inference.laplace import blank_map, normal_approximation, value_and_gradient
from gmm_bayes.inference.progress import Progress
from gmm_bayes.inference.starting import Plan, adapted_plan, plain_plan
from gmm_bayes.inference.threads import in_background, run_in_threads

__all__ = ["NUTS", "Laplace"]

# Warm-up draws where only the step size is adapted, and where the metric is too.
_SHORT_WARMUP, _LONG_WARMUP = 100, 1000
# Proposals for each draw that Laplace keeps.
_PROPOSALS = 4


@dataclass(frozen=True)
class NUTS:
    """Settings of the No-U-Turn sampler.

    Parameters
    ----------
    num_warmup : int, optional
        Draws that adapt the sampler, per chain. They are not kept. None takes 100 where chains
        start adapted, so that only the step size is left to find, and 1000 where they do not.
    num_samples : int
        Draws kept, per chain.
    num_chains : int
        Independent chains.
    target_accept_prob : float
        Acceptance that the step size is tuned for, strictly between 0 and 1.
    max_tree_depth : int
        A trajectory has at most 2**max_tree_depth - 1 leapfrog steps.
    dense_mass : bool
        Adapt a dense metric rather than a diagonal one, where a metric is adapted.
    chain_method : {"auto", "parallel", "sequential", "vectorized"}
        "parallel" runs chains in threads, as many groups of chains as there are cores, each group
        in one program; "vectorized" runs all of them in one program, "sequential" one by one.
        "auto" is parallel on a CPU, vectorized on a GPU, and sequential for one chain.
    preconditioning : {"auto", "laplace", "none"}
        "laplace" samples in the coordinates in which the curvature at the mode is the identity,
        with no metric to adapt. "none" adapts the metric in the model's own coordinates. "auto" is
        "laplace" where the posterior is close enough to a normal distribution, as gradients at some
        draws of the normal approximation tell, and "none" elsewhere.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range.

    References
    ----------
    .. [1] M. D. Hoffman, A. Gelman (2014). The No-U-Turn Sampler. JMLR 15.
    """

    num_warmup: int | None = None
    num_samples: int = 1000
    num_chains: int = 4
    target_accept_prob: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False
    chain_method: ChainMethod = "auto"
    preconditioning: Preconditioning = "auto"

    def __post_init__(self) -> None:
        minima = {"num_warmup": 0, "num_samples": 1, "num_chains": 1, "max_tree_depth": 1}
        if self.num_warmup is None:
            del minima["num_warmup"]
        for name, minimum in minima.items():
            object.__setattr__(self, name, check_integer(getattr(self, name), name, minimum))
        accept = check_probability(self.target_accept_prob, "target_accept_prob")
        object.__setattr__(self, "target_accept_prob", accept)
        if not isinstance(self.dense_mass, bool):
            raise TypeError(f"dense_mass must be True or False, got {self.dense_mass!r}")
        check_choice(self.chain_method, "chain_method", CHAIN_METHODS)
        check_choice(self.preconditioning, "preconditioning", PRECONDITIONING)

    def run(self, problem: Problem, *, progress: bool = False) -> Draws:
        """Sample the posterior of a problem, with a bar if `progress`."""
        begin = time.perf_counter()
        method = self._chain_method(problem.device)
        hoped = self.preconditioning != "none"
        # A program depends on shapes alone: it is compiled while the start is being found.
        job = partial(self._compile, problem, method, hoped)
        with in_background(job, problem.device) as compiling:
            mixture = problem.find_start()
            if hoped:
                plan = adapted_plan(problem, mixture, forced=self.preconditioning == "laplace")
            else:
                identity = unit_map(problem.space.dimension)
                plan = plain_plan(problem, mixture, identity, "as asked for")
            initialised = time.perf_counter()
            # Needed for the verdict, and slow to import: better now than after the sampling.
            arviz_bridge.import_arviz()
            programs = compiling.result()
        programs.settings = Settings(self.warmup(plan.adapted), plan.affine, problem.data)
        compiled = time.perf_counter()
        fields = self._sample(problem, programs, plan, method, progress)
        warmup_steps = fields.pop("warmup_steps")
        z = plan.affine.apply(fields.pop("eta"))
        gradient = plan.affine.push_forward(fields.pop("slope"))
        sites, stats = describe(problem, z, fields["potential"], gradient)
        facts = {
            **plan.facts,
            "chain_method": method,
            "num_warmup": programs.settings.warmup.num_draws,
            "n_gradients": int(warmup_steps.sum() + fields["n_steps"].sum()),
        }
        seconds = {
            "initialise": initialised - begin,
            "compile": compiled - initialised,
            "sample": time.perf_counter() - compiled,
        }
        return Draws(sites, {**fields, **stats}, facts, seconds)

    def _sample(
        self, problem: Problem, programs: Programs, plan: Plan, method: str, progress: bool
    ) -> dict[str, np.ndarray]:
        """Run every group of chains: arrays (num_chains, num_samples, ...)."""
        keys = np.stack([rng.integers(0, 2**32, 2, dtype=np.uint32) for rng in problem.rngs])
        size = self._group_size(method)
        total = self.num_chains * (programs.settings.warmup.num_draws + self.num_samples)
        with Progress(total, shown=progress) as bar:
            jobs: list[Callable[..., Any]] = []
            for first in range(0, self.num_chains, size):
                group = slice(first, first + size)
                start, key = plan.starts[group], keys[group]
                jobs.append(partial(run_group, programs, self.num_samples, start, key, bar))
            workers = min(len(jobs), cpu_cores()) if method == "parallel" else 1
            groups = run_in_threads(jobs, workers, problem.device)
        return {name: np.concatenate([g[name] for g in groups]) for name in groups[0]}

    def _compile(self, problem: Problem, method: str, hoped: bool) -> Programs:
        """The program, which serves a start that turns out not to be adapted as well."""
        data, spec = problem.data, problem.spec
        affine = blank_map(data, spec) if hoped else unit_map(problem.space.dimension)
        longest = max(self.warmup(adapted).num_draws for adapted in {hoped, False})
        adaptation = Adaptation(longest, self.max_tree_depth, self.dense_mass)
        settings = Settings(self.warmup(hoped), affine, data)
        return Programs(adaptation, spec, self._group_size(method), settings).compile()

    def warmup(self, adapted: bool) -> Warmup:
        """What the warm-up does where chains start adapted, and where they do not."""
        usual = _SHORT_WARMUP if adapted else _LONG_WARMUP
        num_draws = usual if self.num_warmup is None else self.num_warmup
        return Warmup(num_draws, not adapted, self.target_accept_prob)

    def _chain_method(self, device: jax.Device) -> str:
        if self.chain_method != "auto":
            return self.chain_method
        if self.num_chains == 1:
            return "sequential"
        return "parallel" if device.platform == "cpu" else "vectorized"

    def _group_size(self, method: str) -> int:
        """Chains in one program: all groups are equal, so that one program serves them all."""
        if method == "vectorized":
            return self.num_chains
        if method == "sequential":
            return 1
        fitting = [g for g in range(1, self.num_chains + 1) if self.num_chains % g == 0]
        return max((g for g in fitting if self.num_chains // g >= cpu_cores()), default=1)


@dataclass(frozen=True)
class Laplace:
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

    num_samples: int = 1000

    num_chains = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_samples", check_integer(self.num_samples, "num_samples", 1))

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
        eta = rng.standard_normal((_PROPOSALS * self.num_samples, dimension))
        z = found.affine.apply(eta)
        potential, gradient = np.empty(len(z)), np.empty(z.shape)
        with Progress(len(z), shown=progress) as bar:
            for i, point in enumerate(z):
                value, slope = value_and_gradient(point, problem.data, problem.spec)
                potential[i], gradient[i] = value, slope
                bar.update(1, sampling=True, n_divergences=0)
        log_weights = 0.5 * np.sum(eta**2, axis=1) - (potential - found.potential)
        weights, pareto_k = arviz_bridge.smoothed_weights(log_weights)
        kept = _resample(weights, self.num_samples, rng)
        sites, stats = describe(problem, z[kept], potential[kept], gradient[kept])
        facts = {
            "curvature": found.curvature,
            "mode_gradients": found.n_gradients,
            "n_gradients": len(z),
            "pareto_k": pareto_k,
            "importance_ess": float(1 / np.sum(weights**2)),
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


def _resample(weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic resampling, in random order: each proposal as often as its weight, rounded."""
    ends = np.cumsum(weights)
    picks = (rng.random() + np.arange(n_draws)) / n_draws * ends[-1]
    return rng.permutation(np.minimum(np.searchsorted(ends, picks), len(weights) - 1))
