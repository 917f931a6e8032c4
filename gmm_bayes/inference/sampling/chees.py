"""ChEES-HMC: settings of many short chains that share their step size and trajectory length."""

import time
from dataclasses import dataclass

import numpy as np

from gmm_bayes.core.unconstrained import Space
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.sampling.drivers.chees import Program, Settings
from gmm_bayes.inference.sampling.drivers.nuts import draws_per_call
from gmm_bayes.inference.sampling.mode import blank_map
from gmm_bayes.inference.sampling.plan import Plan
from gmm_bayes.inference.sampling.problem import Draws, Problem, describe
from gmm_bayes.inference.sampling.sampler import (
    AtLeast0,
    AtLeast1,
    AtLeast2,
    Probability,
    Sampler,
)
from gmm_bayes.inference.sampling.starts import adapted_plan, is_near_normal
from gmm_bayes.machine.memory import ProblemSize
from gmm_bayes.machine.progress import Progress
from gmm_bayes.machine.threads import in_background

__all__ = ["ChEES"]

# Warm-up draws where the posterior is close to normal in its coordinates, and elsewhere.
_SHORT_WARMUP, _LONG_WARMUP = 100, 1000
# Superchains are as many as this, if each has so many chains: with fewer its draws are too few for
# nested R-hat.
_MOST_SUPERCHAINS, _CHAINS_TOGETHER = 16, 8


@dataclass(frozen=True)
class ChEES(Sampler):
    """Settings of ChEES-HMC: many short chains in one batch, for a GPU above all.

    Hamiltonian Monte Carlo with one step size and one trajectory length for all chains, which they
    adapt together: the length by maximising the change in the estimator of the expected square
    [1]_. Chains run in the coordinates in which the curvature at the mode is the identity, whether
    or not the posterior is close to a normal distribution there. They are too short for R-hat, so
    groups of them, superchains, start from one point each, and the verdict takes nested R-hat [2]_.

    Needs BlackJAX: ``pip install 'gmm-bayes[engines]'``.

    Parameters
    ----------
    num_warmup : int, optional
        Draws that adapt the sampler and forget the start, per chain. They are not kept. None takes
        100 where the posterior is close to a normal distribution and 1000 elsewhere.
    num_samples : int
        Draws kept, per chain.
    num_chains : int
        Chains, at least 2.
    num_superchains : int, optional
        Groups of chains with one start each; divides `num_chains`. None takes 16 groups, or fewer
        where these would have less than eight chains each, but four at least.
    target_accept_prob : float
        Harmonic mean of the chains' acceptance that the step size is tuned for, strictly between 0
        and 1.
    max_leapfrog_steps : int
        A trajectory has at most so many.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range.

    References
    ----------
    .. [1] M. D. Hoffman, A. Radul, P. Sountsov (2021). An adaptive-MCMC scheme for setting
       trajectory lengths in Hamiltonian Monte Carlo. AISTATS.
    .. [2] C. C. Margossian, M. D. Hoffman, P. Sountsov, L. Riou-Durand, A. Vehtari, A. Gelman
       (2024). Nested R-hat: assessing the convergence of Markov chain Monte Carlo when running many
       short chains. Bayesian Analysis.
    """

    num_warmup: AtLeast0 | None = None
    num_samples: AtLeast1 = 50
    num_chains: AtLeast2 = 128
    num_superchains: AtLeast2 | None = None
    target_accept_prob: Probability = 0.8
    max_leapfrog_steps: AtLeast1 = 1000

    needs = ("blackjax", "engines")
    warms_up = True

    def __post_init__(self) -> None:
        super().__post_init__()
        n, groups = self.num_chains, self.num_superchains
        if groups is None:
            most = int(np.clip(n // _CHAINS_TOGETHER, 4, _MOST_SUPERCHAINS))
            groups = max((g for g in range(2, most + 1) if n % g == 0), default=n)
        if n % groups:
            raise ValueError(
                f"num_superchains must divide num_chains, got {groups} and {n}; take a multiple of "
                f"{groups} chains, or leave num_superchains out"
            )
        object.__setattr__(self, "num_superchains", groups)

    @property
    def rejected_share(self) -> float:
        """Share of draws, when all is well, that repeat the one before."""
        return 1 - self.target_accept_prob

    def size(self, n_obs: int, space: Space) -> ProblemSize:
        """What the memory of a run depends on."""
        block = draws_per_call(self.num_chains, space.dimension)
        return ProblemSize.of(n_obs, space, self.num_chains, self.num_samples, block_draws=block)

    def run(self, problem: Problem, *, progress: bool = False) -> Draws:
        """Sample the posterior of a problem, with a bar if `progress`."""
        self.check_installed()
        begin = time.perf_counter()
        data, spec = problem.data, problem.spec
        blank = Settings(
            self.target_accept_prob, self.max_leapfrog_steps, blank_map(data, spec), data
        )
        job = Program(self.num_chains, spec, blank).compile
        with in_background(job, problem.device) as compiling:
            plan = self._plan(problem)
            initialised = time.perf_counter()
            # Needed for the verdict, and slow to import: better now than after the sampling.
            arviz_bridge.import_arviz()
            program = compiling.result()
        program.settings = blank._replace(affine=plan.affine)
        compiled = time.perf_counter()
        usual = _SHORT_WARMUP if is_near_normal(plan) else _LONG_WARMUP
        num_warmup = usual if self.num_warmup is None else self.num_warmup
        key = problem.rngs[0].integers(0, 2**32, 2, dtype=np.uint32)
        with Progress(self.num_chains * (num_warmup + self.num_samples), shown=progress) as bar:
            fields, warmup_steps = program.run(plan.starts, key, num_warmup, self.num_samples, bar)
        z = plan.affine.apply(fields.pop("eta"))
        gradient = plan.affine.push_forward(fields.pop("slope"))
        sites, stats = describe(problem, z, fields["potential"], gradient)
        facts = {
            **plan.facts,
            "chain_method": "vectorized",
            "num_warmup": num_warmup,
            "n_gradients": warmup_steps + int(fields["n_steps"].sum()),
        }
        seconds = {
            "initialise": initialised - begin,
            "compile": compiled - initialised,
            "sample": time.perf_counter() - compiled,
        }
        return Draws(sites, {**fields, **stats}, facts, seconds)

    def _plan(self, problem: Problem) -> Plan:
        """One start for each superchain, at which its chains begin; they are neighbours."""
        assert self.num_superchains is not None
        size = self.num_chains // self.num_superchains
        fewer = problem._replace(rngs=problem.rngs[::size], find_others=list)
        plan = adapted_plan(fewer, problem.find_start(), forced=True)
        return plan._replace(starts=np.repeat(plan.starts, size, axis=0))
