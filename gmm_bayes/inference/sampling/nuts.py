"""NUTS, in the coordinates in which the posterior is close to N(0, I), where that is so."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gmm_bayes._vocabulary import (
    CHAINS_AXIS,
    TEMPERING,
    ChainMethod,
    Preconditioning,
)
from gmm_bayes.core.unconstrained import Space
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.sampling.checkpoint.recorder import GroupRecord
from gmm_bayes.inference.sampling.coordinates import unit_map
from gmm_bayes.inference.sampling.drivers.nuts import (
    Adaptation,
    Programs,
    Settings,
    Warmup,
    run_group,
)
from gmm_bayes.inference.sampling.drivers.tempered import TemperedPrograms, what_replicas_did
from gmm_bayes.inference.sampling.mode import blank_map
from gmm_bayes.inference.sampling.plan import Plan
from gmm_bayes.inference.sampling.problem import Draws, Problem, describe, in_fixed_blocks
from gmm_bayes.inference.sampling.sampler import (
    AtLeast0,
    AtLeast1,
    AtLeast2,
    Probability,
    Sampler,
)
from gmm_bayes.inference.sampling.starts import adapted_plan, plain_plan
from gmm_bayes.inference.sampling.state import STATE_PREFIX
from gmm_bayes.machine.devices import cpu_cores
from gmm_bayes.machine.memory import ProblemSize
from gmm_bayes.machine.progress import Progress
from gmm_bayes.machine.threads import in_background, run_in_threads

__all__ = ["NUTS"]

# Warm-up draws where only the step size is adapted, and where the metric is too.
_SHORT_WARMUP, _LONG_WARMUP = 100, 1000


@dataclass(frozen=True)
class NUTS(Sampler):
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
        "auto" is parallel on a CPU, vectorized on a GPU or a mesh of devices, and sequential for
        one chain.
    preconditioning : {"auto", "laplace", "none"}
        "laplace" samples in the coordinates in which the curvature at the mode is the identity,
        with no metric to adapt. "none" adapts the metric in the model's own coordinates. "auto" is
        "laplace" where the posterior is close enough to a normal distribution, as gradients at some
        draws of the normal approximation tell, and "none" elsewhere.
    tempering : int, optional
        Replicas of each chain, for a posterior of several modes. The likelihood of each has a power
        from zero, which is the prior, to one, and neighbours exchange their points after every draw
        [2]_. The warm-up spaces the powers so that all do so equally often. Chains then go from
        mode to mode by way of the prior, and cost as many times more. `fit.run["tempering"]` has
        how often they came, the powers, and the log evidence. Each chain runs in a program of its
        own, in the model's coordinates.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range, or `tempering` comes with settings that it has no use for.

    References
    ----------
    .. [1] M. D. Hoffman, A. Gelman (2014). The No-U-Turn Sampler. JMLR 15.
    .. [2] S. Syed, A. Bouchard-Cote, G. Deligiannidis, A. Doucet (2022). Non-reversible parallel
       tempering: a scalable highly parallel MCMC scheme. JRSS B 84.
    """

    num_warmup: AtLeast0 | None = None
    num_samples: AtLeast1 = 1000
    num_chains: AtLeast1 = 4
    target_accept_prob: Probability = 0.8
    max_tree_depth: AtLeast1 = 10
    dense_mass: bool = False
    chain_method: ChainMethod = "auto"
    preconditioning: Preconditioning = "auto"
    tempering: AtLeast2 | None = None

    warms_up = True
    can_resume = True
    can_batch = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tempering is None:
            return
        for name, unfit in (("preconditioning", "laplace"), ("chain_method", "vectorized")):
            if getattr(self, name) == unfit:
                raise ValueError(f"{name} must not be {unfit!r} with tempering; leave it out")

    @property
    def crosses_modes(self) -> bool:
        """Whether chains go from mode to mode: replicas do, by way of the prior."""
        return self.tempering is not None

    @property
    def longest_trajectory(self) -> int:
        """Steps at which a trajectory is cut."""
        return 2**self.max_tree_depth - 1

    def run(self, problem: Problem, *, progress: bool = False) -> Draws:
        """Sample the posterior of a problem, with a bar if `progress`.

        The run begins where the problem's recorder says, and only its new draws are returned.
        """
        begin = time.perf_counter()
        recorder, mesh = problem.recorder, problem.mesh
        usual, workers = problem.grouping or next(self.groupings(problem.device, mesh))
        size = recorder.fixed("group_size", usual)
        records = [recorder.group(first) for first in range(0, self.num_chains, size)]
        # A program depends on shapes alone: it is compiled while the start is being found.
        job = partial(self._compile, problem, size)
        with in_background(job, problem.device, alone=mesh is not None) as compiling:
            plan = recorder.plan(lambda: self._plan(problem).agreed(mesh))
            initialised = time.perf_counter()
            # Needed for the verdict, and slow to import: better now than after the sampling.
            arviz_bridge.import_arviz()
            programs = compiling.result()
        warmup = self.warmup(plan.adapted)
        programs.settings = Settings(warmup, plan.affine, problem.data)
        compiled = time.perf_counter()
        fields = self._sample(problem, programs, plan, records, workers, progress)
        warmup_steps = fields.pop("warmup_steps")
        n_gradients = int(warmup_steps.sum() + fields["n_steps"].sum())
        state = _final_state(records, plan, size)
        tempering = {} if self.tempering is None else {TEMPERING: what_replicas_did(fields, state)}
        facts = {
            **plan.facts,
            **tempering,
            "chain_method": self._chain_method(problem.device, mesh),
            "chains_at_once": size * min(workers, len(records)),
            "num_warmup": warmup.num_draws,
            "n_gradients": n_gradients,
            **({"resumed": recorder.n_resumed} if recorder.n_resumed else {}),
        }
        sites, stats = self._describe(problem, plan, fields)
        seconds = {
            "initialise": initialised - begin,
            "compile": compiled - initialised,
            "sample": time.perf_counter() - compiled,
            **({"earlier": recorder.earlier_seconds} if recorder.earlier_seconds else {}),
        }
        return Draws(sites, stats, facts, seconds, state)

    def _plan(self, problem: Problem) -> Plan:
        mixture = problem.find_start()
        if not self._hopes_for_laplace:
            identity = unit_map(problem.space.dimension)
            reason = "as asked for" if self.tempering is None else "replicas range over all modes"
            plan = plain_plan(problem, mixture, identity, reason)
        else:
            plan = adapted_plan(problem, mixture, forced=self.preconditioning == "laplace")
        # With the plan it outlives the process.
        return plan._replace(facts={**plan.facts, **problem.looked_for})

    def _sample(
        self,
        problem: Problem,
        programs: Programs,
        plan: Plan,
        records: Sequence[GroupRecord],
        workers: int,
        progress: bool,
    ) -> dict[str, np.ndarray]:
        """Run every group of chains to its end: arrays (num_chains, num_samples, ...)."""
        size = self.num_chains // len(records)
        total = self.num_chains * (programs.settings.warmup.num_draws + self.num_samples)
        before = size * sum(record.done for record in records)
        n_divergences = sum(record.divergences for record in records)
        with Progress(total, shown=progress, before=before, n_divergences=n_divergences) as bar:
            jobs: list[Callable[..., Any]] = []
            for first, record in zip(range(0, self.num_chains, size), records, strict=True):
                group = slice(first, first + size)
                start, key = plan.starts[group], plan.keys[group]
                jobs.append(partial(run_group, programs, self.num_samples, start, key, record, bar))
            groups = run_in_threads(jobs, min(workers, len(jobs)), problem.device)
        return {name: np.concatenate([g[name] for g in groups]) for name in groups[0]}

    def _describe(self, problem: Problem, plan: Plan, fields: dict[str, np.ndarray]) -> Any:
        """Sites and statistics of the draws of all chains."""

        def describe_block(eta: np.ndarray, slope: np.ndarray, potential: np.ndarray) -> Any:
            z, gradient = plan.affine.apply(eta), plan.affine.push_forward(slope)
            return describe(problem, z, potential, gradient)

        arrays = (fields.pop("eta"), fields.pop("slope"), fields["potential"])
        sites, stats = in_fixed_blocks(describe_block, arrays, problem.recorder.n_draws_before)
        stats["tree_depth"] = np.ceil(np.log2(fields["n_steps"] + 1)).astype(int)
        return sites, {**fields, **stats}

    def _compile(self, problem: Problem, size: int) -> Programs:
        """The program, which serves a start that turns out not to be adapted as well."""
        data, spec, hoped = problem.data, problem.spec, self._hopes_for_laplace
        affine = blank_map(data, spec) if hoped else unit_map(problem.space.dimension)
        longest = max(self.warmup(adapted).num_draws for adapted in {hoped, False})
        adaptation = Adaptation(longest, self.max_tree_depth, self.dense_mass)
        settings = Settings(self.warmup(hoped), affine, data)
        if self.tempering is not None:
            return TemperedPrograms(adaptation, spec, settings, self.tempering).compile()
        return Programs(adaptation, spec, size, settings).compile()

    @property
    def _hopes_for_laplace(self) -> bool:
        return self.preconditioning != "none" and self.tempering is None

    def warmup(self, adapted: bool) -> Warmup:
        """What the warm-up does where chains start adapted, and where they do not."""
        usual = _SHORT_WARMUP if adapted else _LONG_WARMUP
        num_draws = usual if self.num_warmup is None else self.num_warmup
        return Warmup(num_draws, not adapted, self.target_accept_prob)

    def size(self, n_obs: int, space: Space) -> ProblemSize:
        """What the memory of a run depends on."""
        more = {"max_tree_depth": self.max_tree_depth, "dense_mass": self.dense_mass}
        more["n_replicas"] = self.tempering or 1
        return ProblemSize.of(n_obs, space, self.num_chains, self.num_samples, **more)

    def check_mesh(self, mesh: Mesh | None) -> None:
        """Raise ValueError unless the chains can run on a mesh."""
        if mesh is None:
            return
        if self.tempering is not None:
            raise ValueError("replicas run on one device, got a mesh; leave tempering out")
        groups = mesh.shape[CHAINS_AXIS]
        if self.chain_method == "parallel":
            raise ValueError(
                "chain_method must be 'vectorized', 'sequential' or 'auto' on a mesh, got "
                "'parallel': chains in threads would wait for each other's devices"
            )
        if self.num_chains % groups or (self.chain_method == "sequential" and groups > 1):
            raise ValueError(
                f"num_chains must be a multiple of the {groups} groups of devices that chains are "
                f"dealt to, and not run one by one, got num_chains={self.num_chains}, "
                f"chain_method={self.chain_method!r}"
            )

    def groupings(self, device: jax.Device, mesh: Mesh | None) -> Iterator[tuple[int, int]]:
        """Chains in one program, and programs at once: the fastest first, the smallest last."""
        method, size = self._chain_method(device, mesh), 0
        largest, workers = self._group_size(method), cpu_cores() if method == "parallel" else 1
        multiple = 1 if mesh is None else mesh.shape[CHAINS_AXIS]
        for size in range(largest, 0, -1):
            if self.num_chains % size == 0 and size % multiple == 0:
                yield size, min(workers, self.num_chains // size)
        yield from ((multiple, at_once) for at_once in range(workers - 1, 0, -1))

    def _chain_method(self, device: jax.Device, mesh: Mesh | None = None) -> str:
        if self.chain_method != "auto":
            return self.chain_method
        if self.num_chains == 1:
            return "sequential"
        if device.platform == "cpu" and mesh is None:
            return "parallel"
        return "vectorized" if self.tempering is None else "sequential"

    def _group_size(self, method: str) -> int:
        """Chains in one program: all groups are equal, so that one program serves them all."""
        if method == "sequential" or self.tempering is not None:
            return 1
        if method == "vectorized":
            return self.num_chains
        fitting = [g for g in range(1, self.num_chains + 1) if self.num_chains % g == 0]
        return max((g for g in fitting if self.num_chains // g >= cpu_cores()), default=1)


def _final_state(records: Sequence[GroupRecord], plan: Plan, size: int) -> dict[str, np.ndarray]:
    """What more draws can be made from: the plan, and where every chain ended."""
    states = [record.final_state() for record in records]
    joined = {
        f"{STATE_PREFIX}{name}": np.concatenate([s[name] for s in states]) for name in states[0]
    }
    return {**joined, **plan.to_arrays(), "group_size": np.array(size)}
