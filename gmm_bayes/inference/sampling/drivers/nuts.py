"""The driver: one compiled program that advances a chain, or a few at once, by some draws.

The number of draws is an argument, not a constant, so that one program serves the start, the
warm-up, the sampling and a second fit, and the host gets a say (a bar, an interrupt) in between.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from numpyro import infer
from numpyro.infer.hmc_util import build_adaptation_schedule

from gmm_bayes.core.sharding import by_chain
from gmm_bayes.inference.potential import Data, ModelSpec, potential
from gmm_bayes.inference.rows.placement import agree, on_host, spread_chains
from gmm_bayes.inference.sampling.checkpoint.recorder import GroupRecord
from gmm_bayes.inference.sampling.coordinates import AffineMap, BlockMap
from gmm_bayes.machine.compilation import compiled
from gmm_bayes.machine.progress import Progress

__all__ = [
    "Adaptation",
    "Programs",
    "Settings",
    "Warmup",
    "advance",
    "away_from_resonance",
    "draws_per_call",
    "run_group",
]

# Draws that one call of the compiled program can make at most, and numbers that it can return: the
# size of its output buffers.
_BLOCK, _MOST_NUMBERS = 50, 2**23
_FIRST_BLOCK = 5
# A call to the compiled program should take about this long, so that a bar moves and Ctrl-C works.
_SECONDS_PER_CALL = 0.5


class Adaptation(NamedTuple):
    """The settings that a compiled program depends on."""

    num_warmup: int
    max_tree_depth: int
    dense_mass: bool

    def kernel(self, warmup: "Warmup", potential_fn: Callable[[Any], Any]) -> infer.NUTS:
        """NumPyro's kernel for a potential."""
        return infer.NUTS(
            potential_fn=potential_fn,
            target_accept_prob=warmup.target_accept_prob,
            max_tree_depth=self.max_tree_depth,
            dense_mass=self.dense_mass,
        )

    def start(self, kernel: infer.NUTS, key: Any, eta: Any, warmup: "Warmup") -> Any:
        """The state of a chain that begins at `eta`."""
        state = kernel.init(key, self.num_warmup, eta, (), {})
        # The metric is adapted in the middle windows of the schedule alone, and the step size
        # begins anew at the end of each: a chain put into the last window keeps the identity, and
        # gives the step size all the time there is.
        last = len(build_adaptation_schedule(self.num_warmup)) - 1
        adapt = state.adapt_state
        window = jnp.where(warmup.adapt_metric, adapt.window_idx, max(last, 0))
        return state._replace(
            i=state.i + self.num_warmup - warmup.num_draws,
            adapt_state=adapt._replace(window_idx=window),
        )


class Warmup(NamedTuple):
    """What a run does of the warm-up that was compiled. Arguments: one program serves all.

    Attributes
    ----------
    num_draws : int
        At most the `num_warmup` of the program.
    adapt_metric : bool
        Or only the step size.
    target_accept_prob : float
    """

    num_draws: int
    adapt_metric: bool
    target_accept_prob: float


def draws_per_call(num_chains: int, dimension: int) -> int:
    """Draws of all chains whose positions and gradients one call may return."""
    return int(np.clip(_MOST_NUMBERS // (2 * num_chains * dimension), 1, _BLOCK))


class Settings(NamedTuple):
    """The arguments of a program that stay the same during a run."""

    warmup: Warmup
    affine: AffineMap | BlockMap
    data: Data

    def potential(self, spec: ModelSpec) -> Callable[[Any], Any]:
        """Of the posterior, in the coordinates of the map."""
        return lambda eta: potential(self.affine.apply(eta), self.data, spec)


def advance(
    state: Any,
    fresh: Any,
    start: Any,
    key: Any,
    n_draws: Any,
    settings: Settings,
    *,
    adaptation: Adaptation,
    spec: ModelSpec,
    block: int,
) -> tuple[Any, dict[str, jax.Array]]:
    """Make `n_draws` (at most `block`) transitions from `state`, or from `start` if `fresh`."""
    kernel = adaptation.kernel(settings.warmup, settings.potential(spec))
    # The kernel must be initialised in every trace, if only to be traced.
    state = jax.lax.cond(
        fresh,
        lambda state: adaptation.start(kernel, key, start, settings.warmup),
        lambda state: state,
        state,
    )

    def transition(state: Any) -> Any:
        return kernel.sample(state, (), {})

    def step(state: Any, i: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        state = jax.lax.cond(i < n_draws, transition, lambda state: state, state)
        return state, {
            "eta": state.z,
            "slope": state.z_grad,
            "potential": state.potential_energy,
            "energy": state.energy,
            "acceptance_rate": state.accept_prob,
            "n_steps": state.num_steps,
            "diverging": state.diverging,
            "step_size": state.adapt_state.step_size,
        }

    return jax.lax.scan(step, state, jnp.arange(block))


def _advance_group(
    state: Any, fresh: Any, start: Any, key: Any, n_draws: Any, settings: Settings, **fixed: Any
) -> Any:
    one: Callable[..., Any] = partial(advance, **fixed)
    axes = (0, None, 0, 0, None, None)
    split = settings.data.rows.split
    if split is None:
        return jax.vmap(one, in_axes=axes)(state, fresh, start, key, n_draws, settings)

    def on_device(chained: Any, shared: Any) -> Any:
        (state, start, key), (fresh, n_draws, settings) = chained, shared
        return jax.vmap(one, in_axes=axes)(state, fresh, start, key, n_draws, settings)

    state, out = by_chain(on_device, split, (state, start, key), (fresh, n_draws, settings))
    # Every process reads all draws.
    return state, jax.lax.with_sharding_constraint(out, NamedSharding(split.mesh, P()))


_advance_compiled = compiled(_advance_group, static_argnames=("adaptation", "spec", "block"))


class Programs:
    """The compiled program of a run, for groups of chains of one size.

    Parameters
    ----------
    adaptation : Adaptation
    spec : ModelSpec
    size : int
        Chains of a group.
    settings : Settings
    """

    def __init__(
        self, adaptation: Adaptation, spec: ModelSpec, size: int, settings: Settings
    ) -> None:
        self.adaptation, self.spec, self.size = adaptation, spec, size
        self.settings = settings
        self.block = draws_per_call(size, settings.affine.loc.shape[-1])
        self.blank: Any = None

    def compile(self) -> Self:
        """Run the program for no draws at all, which compiles it; settings may change later."""
        split, dimension = self.settings.data.rows.split, self.settings.affine.loc.shape[-1]
        start = spread_chains(np.zeros((self.size, dimension)), split)
        key = spread_chains(np.zeros((self.size, 2), np.uint32), split)
        shapes = jax.eval_shape(self.initial, start, key)
        # A state of the right shape, which the fresh start overwrites.
        blank = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
        self.blank = spread_chains(blank, split)
        jax.block_until_ready(self.advance(self.blank, True, start, key, 0))
        return self

    def advance(self, state: Any, fresh: bool, start: Any, key: Any, n_draws: int) -> Any:
        """Make some draws with every chain of a group."""
        fixed = {"adaptation": self.adaptation, "spec": self.spec, "block": self.block}
        return _advance_compiled(state, fresh, start, key, n_draws, self.settings, **fixed)

    def initial(self, start: Any, key: Any) -> Any:
        """The states of chains that begin there, leading axes as of `advance`."""
        return jax.vmap(partial(self.begin, self.settings))(start, key)

    def begin(self, settings: Settings, start: Any, key: Any) -> Any:
        """The state of one chain that begins there."""
        kernel = self.adaptation.kernel(settings.warmup, settings.potential(self.spec))
        return self.adaptation.start(kernel, key, start, settings.warmup)


def away_from_resonance(step_size: np.ndarray) -> np.ndarray:
    """Return step sizes for which a trajectory in N(0, I) turns before it has come full circle.

    There every coordinate goes round with the same period. After L steps of angle a the
    trajectory's displacement points along the momentum it began with as long as sin(L a) > 0. NUTS
    looks at L = 1, 3, 7, ...: if L a is just below pi and the next, (2 L + 1) a, just above 2 pi,
    it sees no turn at either and goes round many times. Such a step is made a little larger, so
    that the turn is seen after L steps.
    """
    angle = 2 * np.arcsin(np.minimum(step_size / 2, 1.0))
    lengths = 2.0 ** np.arange(1, 11) - 1
    low, high = 0.95 * 2 * np.pi / (2 * lengths + 1), 1.03 * np.pi / lengths
    for begin, end in zip(low, high, strict=True):
        if end < np.pi:
            inside = (angle > begin) & (angle < end)
            step_size = np.where(inside, 2 * np.sin(end / 2), step_size)
    return step_size


def run_group(
    programs: Programs,
    num_samples: int,
    starts: np.ndarray,
    keys: np.ndarray,
    record: GroupRecord,
    bar: Progress,
    stop: threading.Event,
    seconds_per_call: float = _SECONDS_PER_CALL,
) -> dict[str, np.ndarray]:
    """Run a group of chains to its end, from where its record says that it is.

    Returns
    -------
    dict of ndarray, shape (chains, num_samples, ...)
        And `warmup_steps` (chains, num_warmup), the leapfrog steps of the warm-up.

    Raises
    ------
    KeyboardInterrupt
        If told to stop, after saving.
    """
    warmup, split = programs.settings.warmup, programs.settings.data.rows.split
    mesh = None if split is None else split.mesh
    total = warmup.num_draws + num_samples
    state, done = record.begin(programs.blank)
    state, starts, keys = (spread_chains(tree, split) for tree in (state, starts, keys))
    size, n_divergences = min(_FIRST_BLOCK, programs.block), 0
    halt = mesh is None and stop.is_set()
    while done < total and not halt:
        sampling = done >= warmup.num_draws
        n_draws = min(size, (total if sampling else warmup.num_draws) - done)
        begin = time.perf_counter()
        state, out = programs.advance(state, done == 0, starts, keys, n_draws)
        made = {name: np.asarray(values)[:, :n_draws] for name, values in out.items()}
        seconds = time.perf_counter() - begin
        record.add(made if sampling else {"warmup_steps": made["n_steps"]})
        done += n_draws
        if done == warmup.num_draws and not warmup.adapt_metric:
            adapted = state.adapt_state
            step_size = spread_chains(away_from_resonance(made["step_size"][:, -1]), split)
            state = state._replace(adapt_state=adapted._replace(step_size=step_size))
        n_new = int(made["diverging"].sum()) if sampling else 0
        n_divergences += n_new
        bar.update(
            n_draws * len(starts),
            sampling=sampling,
            n_divergences=n_new,
            step_size=float(np.mean(made["step_size"][:, -1])),
        )
        due = done in (warmup.num_draws, total) or record.is_due()
        # What the clock and signals decide, the first process decides for all.
        wanted = int(np.clip(n_draws * seconds_per_call / max(seconds, 1e-9), 1, programs.block))
        decided = (wanted, due, stop.is_set())
        size, due, halt = (n.item() for n in map(np.asarray, agree(decided, mesh)))
        if due or halt:
            record.save(jax.tree.map(on_host, state), done, n_divergences)
    if done < total:
        raise KeyboardInterrupt
    return {"warmup_steps": np.zeros((len(starts), 0), int), **record.draws()}
