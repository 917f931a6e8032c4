"""Many posteriors of one shape, sampled together: one compiled program over blocks of data sets.

What `NUTS` does for one data set is done here for thousands that share their padded number
of rows, D, K and covariance structure. The chains of a block of sets advance in step, so a block is
as slow as its longest trajectory: sets of a kind share a block, and blocks run in threads.
"""

import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gmm_bayes.core.likelihood import RowBlocks
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.core.unconstrained import LogPrior, Space
from gmm_bayes.inference.batch.programs import SetPrograms
from gmm_bayes.inference.batch.starts import Plans, plan_many, plan_plainly
from gmm_bayes.inference.potential import Data, ModelSpec, site_values, space
from gmm_bayes.inference.sampling.checkpoint.recorder import MemoryGroup, MemoryRecorder
from gmm_bayes.inference.sampling.coordinates import AffineMap
from gmm_bayes.inference.sampling.drivers.nuts import Adaptation, Settings, Warmup, run_group
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.inference.sampling.problem import Problem, describe
from gmm_bayes.inference.sampling.starts import LARGEST_DEPARTURE, chain_keys
from gmm_bayes.machine.devices import cpu_cores
from gmm_bayes.machine.progress import Progress
from gmm_bayes.machine.threads import in_background, run_in_threads

__all__ = ["ManyDraws", "sample_many", "stack"]

# Data sets in a block: more sets make better use of vector instructions, but wait for the longest
# trajectory among them and leave the cache. A guess, not tuned.
_SETS_PER_BLOCK = 32
# A call that makes few draws pays for all it could make.
_SECONDS_PER_CALL = 5.0
# Departure from normal up to which the coordinates of the curvature are tried where it will be seen
# whether the chains did well in them. Measured on 30 to 60 rows in two groups 6 apart: 1 to 5, and
# ten times less time; on rows in one group 1 to 28, where no chains do well.
_WORTH_A_TRY = 4.0
_STATS = ("potential", "energy", "n_steps", "diverging", "acceptance_rate", "step_size")


class ManyDraws:
    """Draws of many posteriors.

    Attributes
    ----------
    z : ndarray, shape (n_sets, num_chains, num_samples, dimension)
        Unconstrained vectors.
    stats : dict of ndarray, shape (n_sets, num_chains, num_samples)
        `potential` (minus the log joint), `log_likelihood` and `energy` in nats, `n_occupied`,
        `n_steps`, `diverging`, `acceptance_rate`, `step_size`.
    facts : dict of ndarray, shape (n_sets,)
        `adapted`: whether chains ran in the coordinates of the normal approximation;
        `departure_from_normal`, not a number where there is no such approximation; `mode_gradients`
        and `n_gradients`, spent in search of the mode and by the chains, warm-up included;
        `num_warmup`.
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
        """The sites of one set, shapes (num_chains, num_samples, ...), or of some."""
        return self._space.sites(self.z[i])


class _Job(NamedTuple):
    """A block of sets that run together: their numbers, and how many of those count."""

    sets: np.ndarray
    n_real: int
    warmup: Warmup


def sample_many(
    rows: RowBlocks,
    log_priors: LogPrior,
    starts: MixtureParameters | np.ndarray,
    spec: ModelSpec,
    sampler: NUTS,
    seed: np.random.SeedSequence | Sequence[np.random.SeedSequence],
    *,
    device: jax.Device,
    progress: bool = False,
    sets_per_block: int | None = None,
    trusted: Callable[[ManyDraws], np.ndarray] | None = None,
) -> ManyDraws:
    """Sample the posteriors of many data sets of one padded shape.

    Call it under `double_precision`. A set's draws depend on its own rows, prior, start and seed,
    and but for rounding not on its neighbours, its place or the size of a block.

    Parameters
    ----------
    rows : RowBlocks
        NumPy arrays with a leading axis of n_sets; rows that only fill weigh 0.
    log_priors : LogPrior
        The same, in the units of the rows.
    starts : MixtureParameters or ndarray, shape (n_sets, dimension)
        Where the searches for the modes begin: mixtures with a leading axis, or vectors.
    spec : ModelSpec
    sampler : NUTS
        `chain_method` plays no part: chains always run together.
    seed : SeedSequence, or one for each set
        Of one, every set is given a child.
    device : jax.Device
    progress : bool
        Draw a bar.
    sets_per_block : int, optional
        None takes 32.
    trusted : callable, optional
        Says of each set, shape (n_sets,), whether its draws may be believed. Then short chains in
        the coordinates of the curvature are tried on sets that are not quite normal too, and those
        whose draws are not believed are sampled again as they would have been without it.

    Returns
    -------
    ManyDraws

    Raises
    ------
    InferenceError
        If the density of a set is not finite near its start; the message names its number.
    """
    begin = time.perf_counter()
    data = Data(rows, log_priors)
    n_sets, here = len(rows.values), space(spec, data.n_features)
    z = _vectors(starts, here, spec)
    seeds = _children(seed, n_sets) if isinstance(seed, np.random.SeedSequence) else seed
    rngs = [[*map(np.random.default_rng, _children(s, sampler.num_chains))] for s in seeds]
    size = min(sets_per_block or _SETS_PER_BLOCK, n_sets)
    identity = np.broadcast_to(np.eye(here.dimension), (size, here.dimension, here.dimension))
    blank = AffineMap(np.zeros((size, here.dimension)), identity)
    some = Settings(Warmup(0, False, 0.5), blank, _block(data, np.zeros(size, int)))
    programs = SetPrograms(_adaptation(sampler), spec, sampler.num_chains, some)
    # Not beside the search for modes: see `plan_many`.
    with in_background(programs.compile, device, alone=True) as job:
        most = LARGEST_DEPARTURE if trusted is None else _WORTH_A_TRY
        plans = plan_many(data, z, spec, rngs, sampler.preconditioning, size, device, most)
        initialised = time.perf_counter()
        job.result()
    compiled = time.perf_counter()
    made = _Made(n_sets, sampler, here.dimension)

    def sample(sets: np.ndarray) -> None:
        keys = np.zeros((n_sets, sampler.num_chains, 2), np.uint32)
        keys[sets] = [chain_keys(rngs[i]) for i in sets]
        jobs = _jobs(plans, sets, sampler, size)
        total = sum(size * sampler.num_chains * _draws(j, sampler) for j in jobs)
        with Progress(total, shown=progress) as bar:
            calls: list[Callable[..., None]] = [
                partial(_run, job, programs, data, plans, keys, sampler, bar, made) for job in jobs
            ]
            workers = min(len(calls), cpu_cores()) if device.platform == "cpu" else 1
            run_in_threads(calls, workers, device)

    sample(np.arange(n_sets))
    facts = {**plans.facts, "n_gradients": made.n_gradients, "num_warmup": made.num_warmup}
    seconds = {"initialise": initialised - begin, "compile": compiled - initialised}
    draws = ManyDraws(here, made.z, made.stats, facts, seconds)
    if trusted is not None and sampler.preconditioning == "auto":
        tried = facts["adapted"] & (facts["departure_from_normal"] >= LARGEST_DEPARTURE)
        again = np.flatnonzero(tried & ~trusted(draws)) if tried.any() else np.array([], int)
        if len(again):
            plan_plainly(plans, again, data, z, spec, rngs, size)
            sample(again)
    seconds["sample"] = time.perf_counter() - compiled
    return draws


class _Made:
    """What the blocks write their draws into."""

    def __init__(self, n_sets: int, sampler: NUTS, dimension: int) -> None:
        shape = (n_sets, sampler.num_chains, sampler.num_samples)
        self.z = np.empty((*shape, dimension))
        kinds = {"n_steps": np.int32, "n_occupied": np.int32, "diverging": bool}
        names = (*_STATS, "log_likelihood", "n_occupied")
        self.stats = {name: np.empty(shape, kinds.get(name, float)) for name in names}
        self.n_gradients = np.zeros(n_sets, int)
        self.num_warmup = np.empty(n_sets, int)


def _run(
    job: _Job,
    programs: SetPrograms,
    data: Data,
    plans: Plans,
    keys: np.ndarray,
    sampler: NUTS,
    bar: Progress,
    made: _Made,
    stop: Any,
) -> None:
    """Run the chains of one block, and describe their draws."""
    some = _block(data, job.sets)
    affine = AffineMap(plans.affine.loc[job.sets], plans.affine.factor[job.sets])
    of_block = programs.with_settings(Settings(job.warmup, affine, some))
    # A group of `run_group` is all chains of all sets of the block.
    starts, own = (a[job.sets].reshape(-1, a.shape[-1]) for a in (plans.starts, keys))
    record, call = MemoryGroup(), _SECONDS_PER_CALL
    fields = run_group(of_block, sampler.num_samples, starts, own, record, bar, stop, call)
    shape = (len(job.sets), sampler.num_chains)
    fields = {name: a.reshape(*shape, *a.shape[1:]) for name, a in fields.items()}
    for place, i in enumerate(job.sets[: job.n_real]):
        one = {name: a[place] for name, a in fields.items()}
        _describe(one, int(i), plans, data, programs.spec, made)
        made.num_warmup[i] = job.warmup.num_draws


def _describe(
    fields: dict[str, np.ndarray], i: int, plans: Plans, data: Data, spec: ModelSpec, made: _Made
) -> None:
    """Write what is kept of one set's draws."""
    affine = AffineMap(plans.affine.loc[i], plans.affine.factor[i])
    z = affine.apply(fields["eta"])
    gradient = affine.push_forward(fields["slope"])
    own = jax.tree.map(lambda a: a[i], data)
    problem = Problem(
        own, spec, round(float(own.rows.weights.sum())), _no_start, [], MemoryRecorder()
    )
    _, stats = describe(problem, z, fields["potential"], gradient)
    made.z[i] = z
    for name, values in {**fields, **stats}.items():
        if name in made.stats:
            made.stats[name][i] = values
    made.n_gradients[i] += fields["warmup_steps"].sum() + fields["n_steps"].sum()


def _no_start() -> MixtureParameters:
    raise AssertionError("the start of a set was found before")


def _jobs(plans: Plans, sets: np.ndarray, sampler: NUTS, size: int) -> list[_Job]:
    """Cut some sets into blocks: those that need the long warm-up first, like with like."""
    jobs = []
    for adapted in (False, True):
        chosen = sets[plans.facts["adapted"][sets] == adapted]
        chosen = chosen[np.argsort(plans.facts["departure_from_normal"][chosen], kind="stable")]
        for first in range(0, len(chosen), size):
            some = chosen[first : first + size]
            # A block that is not full is filled with copies of its last set.
            filled = np.concatenate([some, np.repeat(some[-1:], size - len(some))])
            jobs.append(_Job(filled, len(some), sampler.warmup(adapted)))
    return jobs


def _draws(job: _Job, sampler: NUTS) -> int:
    return job.warmup.num_draws + sampler.num_samples


def _children(seed: np.random.SeedSequence, n: int) -> list[np.random.SeedSequence]:
    """The first children of a seed, the same ones whoever has asked for some before."""
    return np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key).spawn(n)


def _adaptation(sampler: NUTS) -> Adaptation:
    longest = max(sampler.warmup(adapted).num_draws for adapted in (False, True))
    return Adaptation(longest, sampler.max_tree_depth, sampler.dense_mass)


def stack(each: Sequence[Any]) -> Any:
    """Join equal records of arrays, one for each set, into one with a leading axis."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *each)


def _block(data: Data, sets: np.ndarray) -> Data:
    return jax.tree.map(lambda a: np.asarray(a)[sets], data)


def _vectors(starts: MixtureParameters | np.ndarray, here: Space, spec: ModelSpec) -> np.ndarray:
    """Unconstrained vectors (n_sets, dimension) of mixtures."""
    if not isinstance(starts, MixtureParameters):
        return np.asarray(starts, float)
    each = [MixtureParameters(*parts) for parts in zip(*map(np.asarray, starts), strict=True)]
    return np.stack([here.vector(site_values(one, spec)) for one in each])
