"""The driver of many chains: one compiled program that advances all of them by some draws.

All chains take the same number of leapfrog steps, so that a batch of a thousand wastes nothing
waiting for its longest trajectory, as a batch of NUTS does. BlackJAX has the kernel and the
adaptation.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmm_bayes.inference.potential import Data, ModelSpec, potential
from gmm_bayes.inference.sampling.coordinates import AffineMap, BlockMap
from gmm_bayes.inference.sampling.drivers.nuts import draws_per_call
from gmm_bayes.machine.compilation import compiled
from gmm_bayes.machine.progress import Progress

__all__ = ["Program", "Settings"]

# In N(0, I) a quarter of a turn takes a trajectory of pi / 2: the adaptation begins there.
_FIRST_STEP_SIZE, _FIRST_LENGTH = 0.25, np.pi / 2
# Of Adam, and of the running averages, as Hoffman, Radul and Sountsov (2021) have them.
_LEARNING_RATE, _DECAY = 0.025, 0.5
# Bits of the Halton sequence by which trajectories are shortened: it repeats after 2**16 draws.
_HALTON_BITS = 16
_FIRST_BLOCK = 5
# A call should take about this long, so that a bar moves and Ctrl-C works.
_SECONDS_PER_CALL = 0.5


class Settings(NamedTuple):
    """The arguments of the program that stay the same during a run."""

    target_accept_prob: float
    max_leapfrog_steps: int
    affine: AffineMap | BlockMap
    data: Data


class _State(NamedTuple):
    """Where all chains are, and what they share."""

    chains: Any
    adaptation: Any
    key: Any


def _log_density(settings: Settings, spec: ModelSpec) -> Callable[[jax.Array], jax.Array]:
    """Of the posterior, in the coordinates of the map."""
    return lambda eta: -potential(settings.affine.apply(eta), settings.data, spec)


def _share(i: jax.Array) -> jax.Array:
    """The share of the whole trajectory, in (0, 1), that draw i takes."""
    from blackjax.mcmc.dynamic_hmc import halton_sequence

    return halton_sequence(i, max_bits=_HALTON_BITS)


def _adaptation(settings: Settings) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions that begin the adaptation and go on with it."""
    import optax
    from blackjax.adaptation import chees_adaptation

    return chees_adaptation.base(
        _share,
        lambda i: i + 1,
        optax.adam(_LEARNING_RATE),
        settings.target_accept_prob,
        _DECAY,
        settings.max_leapfrog_steps,
    )


def _initial(settings: Settings, spec: ModelSpec, start: jax.Array, key: jax.Array) -> _State:
    from blackjax.mcmc import hmc

    log_density = _log_density(settings, spec)
    chains = jax.vmap(lambda eta: hmc.init(eta, log_density))(start)
    begin, _ = _adaptation(settings)
    shared = begin(jnp.zeros((), int), jnp.asarray(_FIRST_STEP_SIZE))._replace(
        log_step_size_moving_average=np.log(_FIRST_STEP_SIZE),
        trajectory_length=_FIRST_LENGTH,
        log_trajectory_length_moving_average=np.log(_FIRST_LENGTH),
    )
    return _State(chains, jax.tree.map(lambda a: jnp.array(a, jnp.result_type(a)), shared), key)


def _transition(
    settings: Settings, spec: ModelSpec, state: _State, warming: Any
) -> tuple[_State, dict[str, jax.Array]]:
    """One draw of every chain, and what is to be said of it; adapted, if `warming`."""
    from blackjax.mcmc import hmc

    key, now = jax.random.split(state.key)
    shared, before = state.adaptation, state.chains
    log_step_size = shared.log_step_size_moving_average
    log_length = shared.log_trajectory_length_moving_average
    step_size = jnp.where(warming, shared.step_size, jnp.exp(log_step_size))
    length = jnp.where(warming, shared.trajectory_length, jnp.exp(log_length))
    n_steps = jnp.ceil(_share(shared.random_generator_arg) * length / step_size)
    n_steps = jnp.clip(n_steps, 1, settings.max_leapfrog_steps).astype(int)
    log_density, unit = _log_density(settings, spec), jnp.ones(before.position.shape[1])
    move = hmc.build_kernel()
    after, info = jax.vmap(
        lambda key, chain: move(key, chain, log_density, step_size, unit, n_steps)
    )(jax.random.split(now, len(before.position)), before)
    _, adapt = _adaptation(settings)
    tuned = adapt(
        shared,
        info.proposal.position,
        info.proposal.momentum,
        before.position,
        info.acceptance_rate,
        info.is_divergent,
        unit,
    )
    kept = shared._replace(random_generator_arg=shared.random_generator_arg + 1)
    shared = jax.tree.map(
        lambda new, old: jnp.where(warming, new, old).astype(old.dtype), tuned, kept
    )
    everywhere = jnp.ones(len(before.position), int)
    record = {
        "eta": after.position,
        "slope": -after.logdensity_grad,
        "potential": -after.logdensity,
        "energy": 0.5 * jnp.sum(info.momentum**2, axis=-1) - before.logdensity,
        "acceptance_rate": info.acceptance_rate,
        "n_steps": n_steps * everywhere,
        "diverging": info.is_divergent,
        "step_size": step_size * everywhere,
    }
    return _State(after, shared, key), record


@partial(compiled, static_argnames=("spec", "block"))
def _advance(
    state: _State,
    fresh: Any,
    start: Any,
    key: Any,
    n_draws: Any,
    warming: Any,
    settings: Settings,
    *,
    spec: ModelSpec,
    block: int,
) -> tuple[_State, dict[str, jax.Array]]:
    """Make `n_draws` (at most `block`) transitions from `state`, or from `start` if `fresh`."""
    state = jax.lax.cond(
        fresh, lambda _: _initial(settings, spec, start, key), lambda state: state, state
    )

    def transition(state: _State) -> tuple[_State, dict[str, jax.Array]]:
        return _transition(settings, spec, state, warming)

    shapes = jax.eval_shape(transition, state)[1]

    def step(state: _State, i: jax.Array) -> tuple[_State, dict[str, jax.Array]]:
        blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return jax.lax.cond(i < n_draws, transition, lambda state: (state, blank), state)

    return jax.lax.scan(step, state, jnp.arange(block))


class Program:
    """The compiled program of a run."""

    def __init__(self, num_chains: int, spec: ModelSpec, settings: Settings) -> None:
        self.settings, self._spec, self._num_chains = settings, spec, num_chains
        self.block = draws_per_call(num_chains, len(settings.affine.loc))

    def compile(self) -> "Program":
        """Run the program for no draws at all; settings may change later."""
        start = np.zeros((self._num_chains, len(self.settings.affine.loc)))
        key = np.zeros(2, np.uint32)
        shapes = jax.eval_shape(partial(_initial, self.settings, self._spec), start, key)
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
