"""NUTS: frozen settings that know how to run a potential.

One jitted driver around NumPyro's kernel does warm-up and sampling. It advances a chain by a number
of draws that is an argument, not a constant, so that one compiled program serves the start, the
warm-up, the sampling and a second fit, and the host gets a say (a bar, an interrupt) in between.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import infer

from gmm_bayes._validation import check_choice, check_integer, check_probability
from gmm_bayes._vocabulary import CHAIN_METHODS, ChainMethod
from gmm_bayes.inference.devices import cpu_cores, double_precision
from gmm_bayes.inference.potential import Data, ModelSpec, constrain, potential, row_statistics
from gmm_bayes.inference.progress import Progress

__all__ = ["NUTS", "Draws"]

# Draws that one call of the compiled program can make at most: the size of its output buffers.
_BLOCK = 50
_FIRST_BLOCK = 5
# A call to the compiled program should take about this long, so that a bar moves and Ctrl-C works.
_SECONDS_PER_CALL = 0.5


class Draws(NamedTuple):
    """What a sampler returns.

    Attributes
    ----------
    sites : dict of ndarray, shape (num_chains, num_samples, ...)
    stats : dict of ndarray, shape (num_chains, num_samples)
    chain_method : str
        How the chains were run.
    compile_seconds, sample_seconds : float
    """

    sites: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    chain_method: str
    compile_seconds: float
    sample_seconds: float


@dataclass(frozen=True)
class NUTS:
    """Settings of the No-U-Turn sampler.

    Parameters
    ----------
    num_warmup : int
        Draws that adapt step size and metric, per chain. They are not kept.
    num_samples : int
        Draws kept, per chain.
    num_chains : int
        Independent chains.
    target_accept_prob : float
        Acceptance that the step size is tuned for, strictly between 0 and 1.
    max_tree_depth : int
        A trajectory has at most 2**max_tree_depth - 1 leapfrog steps.
    dense_mass : bool
        Adapt a dense metric rather than a diagonal one.
    chain_method : {"auto", "parallel", "sequential", "vectorized"}
        "parallel" runs chains in threads, one per core; "vectorized" batches them into one
        program. "auto" is parallel on a CPU, vectorized on a GPU, and sequential for one chain.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range.

    References
    ----------
    .. [1] M. D. Hoffman, A. Gelman (2014). The No-U-Turn Sampler. JMLR 15.
    """

    num_warmup: int = 1000
    num_samples: int = 1000
    num_chains: int = 4
    target_accept_prob: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False
    chain_method: ChainMethod = "auto"

    def __post_init__(self) -> None:
        for name, minimum in {
            "num_warmup": 0,
            "num_samples": 1,
            "num_chains": 1,
            "max_tree_depth": 1,
        }.items():
            object.__setattr__(self, name, check_integer(getattr(self, name), name, minimum))
        accept = check_probability(self.target_accept_prob, "target_accept_prob")
        object.__setattr__(self, "target_accept_prob", accept)
        if not isinstance(self.dense_mass, bool):
            raise TypeError(f"dense_mass must be True or False, got {self.dense_mass!r}")
        check_choice(self.chain_method, "chain_method", CHAIN_METHODS)

    def run(
        self,
        starts: np.ndarray,
        keys: np.ndarray,
        data: Data,
        spec: ModelSpec,
        *,
        progress: bool = False,
    ) -> Draws:
        """Sample the posterior of `spec` given `data`.

        Parameters
        ----------
        starts : ndarray, shape (num_chains, dimension)
            Unconstrained starting points.
        keys : ndarray, shape (num_chains, 2)
            Raw JAX keys.
        data : Data
        spec : ModelSpec
        progress : bool
            Draw a bar.
        """
        adaptation = _Adaptation(
            self.num_warmup, self.target_accept_prob, self.max_tree_depth, self.dense_mass
        )
        method = self._chain_method(data)
        vectorized = method == "vectorized"
        batches = [(starts, keys)] if vectorized else list(zip(starts, keys, strict=True))
        workers = min(len(batches), cpu_cores()) if method == "parallel" else 1
        programs = _Programs(adaptation, spec, data, vectorized)
        begin = time.perf_counter()
        programs.compile(batches[0])
        compiled = time.perf_counter()
        total = self.num_chains * (self.num_warmup + self.num_samples)
        with Progress(total, shown=progress) as bar:
            jobs = [partial(_run_batch, programs, self, batch, bar) for batch in batches]
            (device,) = data.rows.values.devices()
            finished = _run_in_threads(jobs, workers, device)
        fields = {name: np.concatenate([f[name] for f in finished]) for name in finished[0]}
        sites = {n.removeprefix("site."): v for n, v in fields.items() if n.startswith("site.")}
        stats = {n: v for n, v in fields.items() if not n.startswith("site.")}
        return Draws(sites, stats, method, compiled - begin, time.perf_counter() - compiled)

    def _chain_method(self, data: Data) -> str:
        if self.chain_method != "auto":
            return self.chain_method
        if self.num_chains == 1:
            return "sequential"
        on_cpu = all(d.platform == "cpu" for d in data.rows.values.devices())
        return "parallel" if on_cpu else "vectorized"


class _Adaptation(NamedTuple):
    """The settings that a compiled program depends on."""

    num_warmup: int
    target_accept_prob: float
    max_tree_depth: int
    dense_mass: bool

    def kernel(self, data: Data, spec: ModelSpec) -> infer.NUTS:
        return infer.NUTS(
            potential_fn=lambda z: potential(z, data, spec),
            target_accept_prob=self.target_accept_prob,
            max_tree_depth=self.max_tree_depth,
            dense_mass=self.dense_mass,
        )


def _initial_state(
    start: Any, key: Any, *, data: Data, adaptation: _Adaptation, spec: ModelSpec
) -> Any:
    return adaptation.kernel(data, spec).init(key, adaptation.num_warmup, start, (), {})


def _advance(
    state: Any,
    fresh: Any,
    start: Any,
    key: Any,
    n_draws: Any,
    *,
    data: Data,
    adaptation: _Adaptation,
    spec: ModelSpec,
) -> tuple[Any, dict[str, jax.Array]]:
    """Make `n_draws` (at most _BLOCK) transitions from `state`, or from `start` if `fresh`."""
    kernel = adaptation.kernel(data, spec)
    # The kernel must be initialised in every trace; keeping the result costs one gradient a call
    # and saves a program of its own for the start.
    initial = kernel.init(key, adaptation.num_warmup, start, (), {})
    state = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), initial, state)

    def transition(state: Any) -> Any:
        return kernel.sample(state, (), {})

    def step(state: Any, i: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        state = jax.lax.cond(i < n_draws, transition, lambda state: state, state)
        return state, {
            "z": state.z,
            "potential": state.potential_energy,
            "energy": state.energy,
            "acceptance_rate": state.accept_prob,
            "n_steps": state.num_steps,
            "diverging": state.diverging,
            "step_size": state.adapt_state.step_size,
        }

    return jax.lax.scan(step, state, jnp.arange(_BLOCK))


def _describe(z: jax.Array, *, data: Data, spec: ModelSpec) -> dict[str, jax.Array]:
    """Sites and what the rows say of a block of draws, one draw at a time."""

    def one(z: jax.Array) -> dict[str, jax.Array]:
        sites = constrain(z, data, spec)
        out = {f"site.{name}": value for name, value in sites.items()}
        total, counts = row_statistics(sites, data, spec)
        # A component is occupied when its responsibilities add up to one row at least.
        return {**out, "log_likelihood": total, "n_occupied": jnp.sum(counts >= 1)}

    return jax.lax.map(one, z)


def _advance_batch(state: Any, fresh: Any, start: Any, key: Any, n_draws: Any, **fixed: Any) -> Any:
    one: Callable[..., Any] = partial(_advance, **fixed)
    return jax.vmap(one, in_axes=(0, None, 0, 0, None))(state, fresh, start, key, n_draws)


def _describe_batch(z: jax.Array, **fixed: Any) -> Any:
    one: Callable[..., Any] = partial(_describe, **fixed)
    return jax.vmap(one)(z)


_STATIC = ("adaptation", "spec")
_advance_one = jax.jit(_advance, static_argnames=_STATIC)
_advance_many = jax.jit(_advance_batch, static_argnames=_STATIC)
_describe_one = jax.jit(_describe, static_argnames="spec")
_describe_many = jax.jit(_describe_batch, static_argnames="spec")


class _Programs:
    """The two compiled programs of a fit, for one chain or for a batch of them."""

    def __init__(
        self, adaptation: _Adaptation, spec: ModelSpec, data: Data, vectorized: bool
    ) -> None:
        advance, describe = (
            (_advance_many, _describe_many) if vectorized else (_advance_one, _describe_one)
        )
        self.advance = partial(advance, data=data, adaptation=adaptation, spec=spec)
        self.describe = partial(describe, data=data, spec=spec)
        self.vectorized = vectorized
        self._initial = partial(_initial_state, data=data, adaptation=adaptation, spec=spec)

    def compile(self, batch: tuple[Any, Any]) -> None:
        """Run both programs for no draws at all, which compiles them."""
        start, key = batch
        initial = jax.vmap(self._initial) if self.vectorized else self._initial
        shapes = jax.eval_shape(initial, start, key)
        # A state of the right shape, which the fresh start overwrites.
        self.blank = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
        _, out = self.advance(self.blank, True, start, key, 0)
        jax.block_until_ready(self.describe(out["z"]))


def _run_batch(
    programs: _Programs,
    settings: NUTS,
    batch: tuple[Any, Any],
    bar: Progress,
    stop: threading.Event,
) -> dict[str, np.ndarray]:
    """Run one chain, or one batch of chains, to its end: arrays (chains, num_samples, ...)."""
    start, key = batch
    axis, n_chains = (1, len(start)) if programs.vectorized else (0, 1)
    total = settings.num_warmup + settings.num_samples
    state, fresh, blocks = programs.blank, True, []
    done, size = 0, _FIRST_BLOCK
    while done < total:
        if stop.is_set():
            raise KeyboardInterrupt
        sampling = done >= settings.num_warmup
        n_draws = min(size, (total if sampling else settings.num_warmup) - done)
        begin = time.perf_counter()
        state, out = programs.advance(state, fresh, start, key, n_draws)
        made = np.arange(n_draws)
        n_divergences = int(np.asarray(out["diverging"]).take(made, axis=axis).sum())
        seconds = time.perf_counter() - begin
        if sampling:
            out = {**out, **programs.describe(out.pop("z"))}
            blocks.append({k: np.asarray(v).take(made, axis=axis) for k, v in out.items()})
        size = int(np.clip(n_draws * _SECONDS_PER_CALL / max(seconds, 1e-9), 1, _BLOCK))
        fresh, done = False, done + n_draws
        bar.update(n_draws * n_chains, sampling=sampling, n_divergences=n_divergences)
    joined = {name: np.concatenate([b[name] for b in blocks], axis=axis) for name in blocks[0]}
    return joined if programs.vectorized else {name: v[None] for name, v in joined.items()}


def _run_in_threads(jobs: Sequence[Callable[..., Any]], workers: int, device: Any) -> list[Any]:
    """Run jobs in threads. XLA lets go of the interpreter lock, so chains use a core each."""
    stop = threading.Event()

    def run(job: Callable[..., Any]) -> Any:
        # Both settings belong to a thread, not to the process.
        with double_precision(), jax.default_device(device):
            return job(stop)

    if workers == 1:
        return [run(job) for job in jobs]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            # One failed chain ends the run; the others need not finish first.
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
        # Only of those that ended by themselves: a chain that was told to stop raises too.
        failed = next((f for f in done if f.exception()), None)
        if failed is not None:
            pool.shutdown(cancel_futures=True)
            failed.result()
        return [future.result() for future in futures]
