"""ChEES-HMC: many short chains at once, which share their step size and trajectory length.

All chains take the same number of leapfrog steps, so that a batch of a thousand wastes nothing
waiting for its longest trajectory, as a batch of NUTS does. BlackJAX has the kernel and the
adaptation; the coordinates and the starts are those of `starting`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmm_bayes._validation import check_integer, check_probability
from gmm_bayes.errors import MissingDependencyError
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.affine import AffineMap, BlockMap
from gmm_bayes.inference.chains import draws_per_call
from gmm_bayes.inference.draws import Draws, Problem, describe
from gmm_bayes.inference.laplace import blank_map
from gmm_bayes.inference.potential import Data, ModelSpec, potential
from gmm_bayes.inference.progress import Progress
from gmm_bayes.inference.starting import Plan, adapted_plan, is_near_normal
from gmm_bayes.inference.threads import in_background

__all__ = ["ChEES"]

# Warm-up draws where the posterior is close to normal in its coordinates, and elsewhere.
_SHORT_WARMUP, _LONG_WARMUP = 100, 1000
# In N(0, I) a quarter of a turn takes a trajectory of pi / 2: the adaptation begins there.
_FIRST_STEP_SIZE, _FIRST_LENGTH = 0.25, np.pi / 2
# Of Adam, and of the running averages, as Hoffman, Radul and Sountsov (2021) have them.
_LEARNING_RATE, _DECAY = 0.025, 0.5
# Superchains are as many as this, if each has so many chains: with fewer its draws are too few for
# nested R-hat.
_MOST_SUPERCHAINS, _CHAINS_TOGETHER = 16, 8
# Bits of the Halton sequence by which trajectories are shortened: it repeats after 2**16 draws.
_HALTON_BITS = 16
_FIRST_BLOCK = 5
# A call should take about this long, so that a bar moves and Ctrl-C works.
_SECONDS_PER_CALL = 0.5


class _State(NamedTuple):
    """Where all chains are, and what they share."""

    chains: Any
    adaptation: Any
    key: Any


class _Settings(NamedTuple):
    """The arguments of the program that stay the same during a run."""

    target_accept_prob: float
    max_leapfrog_steps: int
    affine: AffineMap | BlockMap
    data: Data


@partial(jax.jit, static_argnames=("spec", "block"))
def _advance(
    state: _State | None,
    fresh: Any,
    start: Any,
    key: Any,
    n_draws: Any,
    warming: Any,
    settings: _Settings,
    *,
    spec: ModelSpec,
    block: int,
) -> tuple[_State, dict[str, jax.Array]]:
    """Make `n_draws` (at most `block`) transitions from `state`, or from `start` if `fresh`."""
    initial, transition = _kernel(settings, spec)
    state = jax.lax.cond(fresh, lambda _: initial(start, key), lambda state: state, state)

    def step(state: _State, i: jax.Array) -> tuple[_State, dict[str, jax.Array]]:
        blank = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(transition, state, warming)[1]
        )
        return jax.lax.cond(
            i < n_draws, lambda s: transition(s, warming), lambda s: (s, blank), state
        )

    return jax.lax.scan(step, state, jnp.arange(block))


def _kernel(settings: _Settings, spec: ModelSpec) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions that make the first state, and of a state the next one and its record."""
    import optax
    from blackjax.adaptation import chees_adaptation
    from blackjax.mcmc import dynamic_hmc, hmc

    unit = jnp.ones_like(settings.affine.loc)
    move = hmc.build_kernel()
    share = partial(dynamic_hmc.halton_sequence, max_bits=_HALTON_BITS)
    begin, adapt = chees_adaptation.base(
        share,
        lambda i: i + 1,
        optax.adam(_LEARNING_RATE),
        settings.target_accept_prob,
        _DECAY,
        settings.max_leapfrog_steps,
    )

    def log_density(eta: jax.Array) -> jax.Array:
        return -potential(settings.affine.apply(eta), settings.data, spec)

    def initial(start: jax.Array, key: jax.Array) -> _State:
        chains = jax.vmap(lambda eta: hmc.init(eta, log_density))(start)
        shared = begin(jnp.zeros((), int), jnp.asarray(_FIRST_STEP_SIZE))._replace(
            log_step_size_moving_average=np.log(_FIRST_STEP_SIZE),
            trajectory_length=_FIRST_LENGTH,
            log_trajectory_length_moving_average=np.log(_FIRST_LENGTH),
        )
        return _State(chains, jax.tree.map(lambda a: jnp.array(a, jnp.result_type(a)), shared), key)

    def transition(state: _State, warming: Any) -> tuple[_State, dict[str, jax.Array]]:
        key, now = jax.random.split(state.key)
        shared, before = state.adaptation, state.chains
        averages = shared.log_step_size_moving_average, shared.log_trajectory_length_moving_average
        step_size = jnp.where(warming, shared.step_size, jnp.exp(averages[0]))
        length = jnp.where(warming, shared.trajectory_length, jnp.exp(averages[1]))
        n_steps = jnp.ceil(share(shared.random_generator_arg) * length / step_size)
        n_steps = jnp.clip(n_steps, 1, settings.max_leapfrog_steps).astype(int)
        after, info = jax.vmap(
            lambda key, chain: move(key, chain, log_density, step_size, unit, n_steps)
        )(jax.random.split(now, len(before.position)), before)
        proposed, accepted = info.proposal, info.acceptance_rate
        tuned = adapt(
            shared,
            proposed.position,
            proposed.momentum,
            before.position,
            accepted,
            info.is_divergent,
            unit,
        )
        kept = shared._replace(random_generator_arg=shared.random_generator_arg + 1)
        shared = jax.tree.map(
            lambda new, old: jnp.where(warming, new, old).astype(old.dtype), tuned, kept
        )
        everywhere = jnp.ones_like(accepted)
        record = {
            "eta": after.position,
            "slope": -after.logdensity_grad,
            "potential": -after.logdensity,
            "energy": 0.5 * jnp.sum(info.momentum**2, axis=-1) - before.logdensity,
            "acceptance_rate": accepted,
            "n_steps": n_steps * everywhere.astype(int),
            "diverging": info.is_divergent,
            "step_size": step_size * everywhere,
        }
        return _State(after, shared, key), record

    return initial, transition


class _Program:
    """The compiled program of a run."""

    def __init__(self, num_chains: int, spec: ModelSpec, settings: _Settings) -> None:
        self.settings, self._spec, self._num_chains = settings, spec, num_chains
        self.block = draws_per_call(num_chains, len(settings.affine.loc))

    def compile(self) -> "_Program":
        """Run the program for no draws at all; settings may change later."""
        start = np.zeros((self._num_chains, len(self.settings.affine.loc)))
        key = np.zeros(2, np.uint32)
        initial, _ = _kernel(self.settings, self._spec)
        shapes = jax.eval_shape(initial, start, key)
        # A state of the right shape, which the fresh start overwrites.
        self.blank = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
        jax.block_until_ready(self.advance(self.blank, True, start, key, 0, True))
        return self

    def advance(self, *arguments: Any) -> Any:
        """Make some draws with every chain."""
        return _advance(*arguments, self.settings, spec=self._spec, block=self.block)

    def run(
        self, start: np.ndarray, key: np.ndarray, num_warmup: int, num_samples: int, bar: Progress
    ) -> tuple[dict[str, np.ndarray], int]:
        """Run all chains to their end: arrays (chains, num_samples, ...), and warm-up gradients."""
        state, fresh = self.blank, True
        blocks: list[dict[str, np.ndarray]] = []
        done, size, warmup_steps = 0, min(_FIRST_BLOCK, self.block), 0
        while done < num_warmup + num_samples:
            sampling = done >= num_warmup
            n_draws = min(size, num_samples * sampling + num_warmup - done)
            began = time.perf_counter()
            state, out = self.advance(state, fresh, start, key, n_draws, not sampling)
            if sampling:
                made = {name: np.asarray(values)[:n_draws] for name, values in out.items()}
                blocks.append(made)
            else:
                warmup_steps += int(np.asarray(out["n_steps"])[:n_draws].sum())
            seconds = max(time.perf_counter() - began, 1e-9)
            size = int(np.clip(n_draws * _SECONDS_PER_CALL / seconds, 1, self.block))
            fresh, done = False, done + n_draws
            n_divergences = int(np.asarray(out["diverging"])[:n_draws].sum())
            bar.update(n_draws * len(start), sampling=sampling, n_divergences=n_divergences)
        joined = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
        return {name: np.swapaxes(values, 0, 1) for name, values in joined.items()}, warmup_steps


@dataclass(frozen=True)
class ChEES:
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

    num_warmup: int | None = None
    num_samples: int = 50
    num_chains: int = 128
    num_superchains: int | None = None
    target_accept_prob: float = 0.8
    max_leapfrog_steps: int = 1000

    judged_by = "chains"

    def __post_init__(self) -> None:
        minima = {"num_warmup": 0, "num_samples": 1, "num_chains": 2, "max_leapfrog_steps": 1}
        if self.num_warmup is None:
            del minima["num_warmup"]
        for name, minimum in minima.items():
            object.__setattr__(self, name, check_integer(getattr(self, name), name, minimum))
        n, groups = self.num_chains, self.num_superchains
        if groups is None:
            most = int(np.clip(n // _CHAINS_TOGETHER, 4, _MOST_SUPERCHAINS))
            groups = max((g for g in range(2, most + 1) if n % g == 0), default=n)
        else:
            groups = check_integer(groups, "num_superchains", 2)
        if n % groups:
            raise ValueError(
                f"num_superchains must divide num_chains, got {groups} and {n}; take a multiple of "
                f"{groups} chains, or leave num_superchains out"
            )
        object.__setattr__(self, "num_superchains", groups)
        accept = check_probability(self.target_accept_prob, "target_accept_prob")
        object.__setattr__(self, "target_accept_prob", accept)

    @property
    def rejected_share(self) -> float:
        """Share of draws, when all is well, that repeat the one before."""
        return 1 - self.target_accept_prob

    @staticmethod
    def check_installed() -> None:
        """Raise where the engine is missing.

        Raises
        ------
        MissingDependencyError
            If BlackJAX is not installed.
        """
        if find_spec("blackjax") is None:
            raise MissingDependencyError(
                "the sampler ChEES needs blackjax; install it with pip install "
                "'gmm-bayes[engines]', or take sampler=NUTS()"
            )

    def run(self, problem: Problem, *, progress: bool = False) -> Draws:
        """Sample the posterior of a problem, with a bar if `progress`."""
        self.check_installed()
        begin = time.perf_counter()
        data, spec = problem.data, problem.spec
        blank = _Settings(
            self.target_accept_prob, self.max_leapfrog_steps, blank_map(data, spec), data
        )
        job = _Program(self.num_chains, spec, blank).compile
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
        fewer = problem._replace(rngs=problem.rngs[::size])
        plan = adapted_plan(fewer, problem.find_start(), forced=True)
        return plan._replace(starts=np.repeat(plan.starts, size, axis=0))
