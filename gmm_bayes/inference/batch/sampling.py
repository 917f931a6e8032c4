"""Many posteriors of one shape, sampled together: one compiled program over blocks of data sets.

What `NUTS` does for one data set is done here for thousands that share their padded number
of rows, D, K and covariance structure. The chains of a block of sets advance in step, so a block is
as slow as its longest trajectory: sets of a kind share a block, blocks run in threads, and sets
whose trajectories are long are sampled apart (`apart`).
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gmm_bayes.core.likelihood import RowBlocks
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.core.unconstrained import LogPrior, Space
from gmm_bayes.inference.batch.apart import Work, sample_apart
from gmm_bayes.inference.batch.draws import Made, ManyDraws
from gmm_bayes.inference.batch.programs import SetPrograms
from gmm_bayes.inference.batch.starts import plan_many, plan_plainly
from gmm_bayes.inference.potential import Data, ModelSpec, site_values, space
from gmm_bayes.inference.sampling.checkpoint.recorder import MemoryGroup
from gmm_bayes.inference.sampling.coordinates import AffineMap
from gmm_bayes.inference.sampling.drivers.nuts import Adaptation, Settings, Warmup, run_group
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.inference.sampling.starts import LARGEST_DEPARTURE, chain_keys
from gmm_bayes.machine.devices import cpu_cores
from gmm_bayes.machine.progress import SetProgress
from gmm_bayes.machine.threads import run_in_threads

__all__ = ["SETS_PER_BLOCK", "sample_many", "stack"]

# Data sets in a block: more sets make better use of vector instructions, but wait for the longest
# trajectory among them and leave the cache. A guess, not tuned.
SETS_PER_BLOCK = 32
# A call that makes few draws pays for all it could make.
_SECONDS_PER_CALL = 5.0
# Departure from normal up to which the coordinates of the curvature are tried where it will be seen
# whether the chains did well in them. Measured on 30 to 60 rows in two groups 6 apart: 1 to 5, and
# ten times less time; on rows in one group 1 to 28, where no chains do well.
_WORTH_A_TRY = 4.0
# Where all is well in those coordinates, trajectories have 3 to 15 steps. In a block they are cut
# at 2**7 - 1, and a try ends with its warm-up if they are this long on average by then.
_BLOCK_DEPTH, _TOO_LONG = 7, 31
# Gradients that a set may take, unless the caller says: so many for each draw. Chains that need
# more have trajectories that are cut at 1023 steps, and are not believed in the end.
_GRADIENTS_PER_DRAW = 256


class _Job(NamedTuple):
    """A block of sets that run together: their numbers, how many of those count, and draws.

    Without draws, they only warm up.
    """

    sets: np.ndarray
    n_real: int
    warmup: Warmup
    num_samples: int


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
    budget: int | None = None,
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
    budget : int, optional
        Gradients that the chains of a set may take where it is sampled apart. None takes 256 for
        each draw, warm-up included.

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
    size = min(sets_per_block or SETS_PER_BLOCK, n_sets)
    most = LARGEST_DEPARTURE if trusted is None else _WORTH_A_TRY
    plans = plan_many(data, z, spec, rngs, sampler.preconditioning, size, device, most)
    initialised = time.perf_counter()
    made = Made(n_sets, sampler, here.dimension)
    facts = {
        **plans.facts,
        "n_gradients": made.n_gradients,
        "num_warmup": made.num_warmup,
        "n_draws": made.n_draws,
    }
    seconds = {"initialise": initialised - begin, "compile": 0.0, "sample": 0.0}
    draws = ManyDraws(here, made.z, made.stats, facts, seconds)
    keys = np.zeros((n_sets, sampler.num_chains, 2), np.uint32)

    def replan(sets: np.ndarray) -> None:
        plan_plainly(plans, sets, data, z, spec, rngs, size)

    def new_keys(sets: np.ndarray) -> None:
        for i in sets:
            keys[i] = chain_keys(rngs[i])

    per_chain = [sampler.warmup(bool(a)).num_draws + sampler.num_samples for a in facts["adapted"]]
    total = sampler.num_chains * sum(per_chain)
    with SetProgress(n_sets, total, shown=progress) as bar:
        work = Work(data, spec, sampler, _adaptation(sampler), plans, keys, made, device, bar)
        run = _Run(work, size, replan, new_keys, seconds, budget)
        run.sample()
        if trusted is not None and sampler.preconditioning == "auto":
            run.again(trusted(draws))
    seconds["sample"] = time.perf_counter() - initialised - seconds["compile"]
    return draws


class _Run:
    """Every set where it belongs: in a block while it keeps step, else apart."""

    def __init__(
        self,
        work: Work,
        size: int,
        replan: Callable[[np.ndarray], None],
        new_keys: Callable[[np.ndarray], None],
        seconds: dict[str, float],
        budget: int | None,
    ) -> None:
        sampler, facts = work.sampler, work.plans.facts
        self._work, self._size, self._seconds = work, size, seconds
        self._replan, self._new_keys = replan, new_keys
        n_draws = sampler.warmup(False).num_draws + sampler.num_samples
        usual = _GRADIENTS_PER_DRAW * sampler.num_chains * n_draws
        self._budget = usual if budget is None else budget
        # A chain alone leaves most of an accelerator idle: there all sets go in blocks.
        self._apart = work.device.platform == "cpu"
        depth = work.adaptation.max_tree_depth
        self._depth = min(depth, _BLOCK_DEPTH) if self._apart else depth
        departs = facts["departure_from_normal"] >= LARGEST_DEPARTURE
        self._tried = facts["adapted"] & departs & (sampler.preconditioning == "auto")
        self._states: dict[int, dict[str, np.ndarray]] = {}
        self._lengths = np.zeros(len(departs))
        self._programs: Any = None

    def sample(self) -> None:
        """Sample all sets; those that were tried and kept step may still not be believed."""
        adapted = self._work.plans.facts["adapted"].copy()
        in_blocks = adapted if self._apart else np.ones_like(adapted)
        warms_up = self._work.sampler.warmup(True).num_draws > 0
        pilot = self._tried & warms_up
        self._new_keys(np.arange(len(adapted)))
        self._compile(int(in_blocks.sum()))
        whole, pilots = np.flatnonzero(in_blocks & ~pilot), np.flatnonzero(pilot)
        self._run([*self._cut(whole), *self._cut(pilots, warm_only=True)])
        slow = pilots[self._lengths[pilots] > _TOO_LONG]
        self._tried[slow] = False
        going = np.setdiff1d(pilots, slow)
        self._run(self._cut(going[np.argsort(self._lengths[going], kind="stable")]))
        self._replan(slow)
        # In their own coordinates still: what they need are longer trajectories.
        cut = whole[self._were_cut(whole) & ~self._tried[whole]]
        alone = np.concatenate([slow, cut])
        self._new_keys(alone)
        self._alone(np.concatenate([alone, np.flatnonzero(~in_blocks)]))

    def again(self, trusted: np.ndarray) -> None:
        """Sample those again, as if they had not been tried, that are not believed."""
        tried = np.flatnonzero(self._tried)
        bad = tried[~trusted[tried] | self._were_cut(tried)]
        self._work.bar.finish(len(tried) - len(bad))
        self._replan(bad)
        self._new_keys(bad)
        self._alone(bad)

    def _alone(self, sets: np.ndarray) -> None:
        if self._apart:
            self._seconds["compile"] += sample_apart(self._work, sets, self._budget)
        else:
            self._run(self._cut(sets))

    def _were_cut(self, sets: np.ndarray) -> np.ndarray:
        """Whether trajectories of a set ended where blocks cut them, and would have gone on."""
        if self._depth == self._work.adaptation.max_tree_depth:
            return np.zeros(len(sets), bool)
        steps = self._work.made.stats["n_steps"][sets]
        return (steps >= 2**self._depth - 1).any(axis=(1, 2))

    def _compile(self, n_sets: int) -> None:
        if not n_sets:
            return
        begin = time.perf_counter()
        work, size = self._work, min(self._size, n_sets)
        dimension, self._size = work.made.z.shape[-1], size
        identity = np.broadcast_to(np.eye(dimension), (size, dimension, dimension))
        blank = AffineMap(np.zeros((size, dimension)), identity)
        some = Settings(Warmup(0, False, 0.5), blank, _block(work.data, np.zeros(size, int)))
        adaptation = work.adaptation._replace(max_tree_depth=self._depth)
        programs = SetPrograms(adaptation, work.spec, work.sampler.num_chains, some)
        # In a thread, as the blocks are: an interrupt reaches this one.
        run_in_threads([lambda stop: programs.compile()], 1, work.device)
        self._programs = programs
        self._seconds["compile"] += time.perf_counter() - begin

    def _cut(self, sets: np.ndarray, *, warm_only: bool = False) -> list[_Job]:
        """Cut some sets into blocks: those that need the long warm-up first, like with like."""
        sampler, facts, jobs = self._work.sampler, self._work.plans.facts, []
        for adapted in (False, True):
            chosen = sets[facts["adapted"][sets] == adapted]
            # Those that go on come sorted by the lengths of their trajectories.
            if not any(int(i) in self._states for i in chosen):
                order = np.argsort(facts["departure_from_normal"][chosen], kind="stable")
                chosen = chosen[order]
            for first in range(0, len(chosen), self._size):
                some = chosen[first : first + self._size]
                # A block that is not full is filled with copies of its last set.
                filled = np.concatenate([some, np.repeat(some[-1:], self._size - len(some))])
                n_draws = 0 if warm_only else sampler.num_samples
                jobs.append(_Job(filled, len(some), sampler.warmup(adapted), n_draws))
        return jobs

    def _run(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        calls: list[Callable[..., None]] = [partial(self._run_block, job) for job in jobs]
        on_cpu = self._work.device.platform == "cpu"
        run_in_threads(calls, min(len(calls), cpu_cores()) if on_cpu else 1, self._work.device)

    def _run_block(self, job: _Job, stop: Any) -> None:
        """Run the chains of one block, and write down their draws, or where they are."""
        work, num_chains = self._work, self._work.sampler.num_chains
        plans, sets = work.plans, job.sets
        affine = AffineMap(plans.affine.loc[sets], plans.affine.factor[sets])
        of_block = self._programs.with_settings(
            Settings(job.warmup, affine, _block(work.data, sets))
        )
        # A group of `run_group` is all chains of all sets of the block.
        starts, own = (a[sets].reshape(-1, a.shape[-1]) for a in (plans.starts, work.keys))
        record = self._record(job)
        fields = run_group(
            of_block, job.num_samples, starts, own, record, work.bar, stop, _SECONDS_PER_CALL
        )
        shape = (len(sets), num_chains)
        fields = {name: a.reshape(*shape, *a.shape[1:]) for name, a in fields.items()}
        state = record.final_state() if not job.num_samples else {}
        for place, i in enumerate(map(int, sets[: job.n_real])):
            one = {name: a[place] for name, a in fields.items()}
            if state:
                lanes = slice(place * num_chains, (place + 1) * num_chains)
                self._states[i] = {k: a[lanes] if a.ndim else a for k, a in state.items()}
                steps = one["warmup_steps"]
                self._lengths[i] = steps[:, steps.shape[1] // 2 :].mean(axis=1).max()
                work.made.n_gradients[i] += steps.sum()
                continue
            n_gradients = int(one["warmup_steps"].sum() + one["n_steps"].sum())
            num_warmup = job.warmup.num_draws
            work.made.write(one, i, num_warmup, n_gradients, plans, work.data, work.spec)
            work.bar.finish(int(not self._tried[i] and not self._were_cut(np.array([i]))[0]))

    def _record(self, job: _Job) -> MemoryGroup:
        """An empty record, or that of chains that go on after their warm-up."""
        if not job.num_samples or int(job.sets[0]) not in self._states:
            return MemoryGroup()
        states = [self._states[int(i)] for i in job.sets]
        joined = {
            name: np.concatenate([state[name] for state in states]) if first.ndim else first
            for name, first in states[0].items()
        }
        return MemoryGroup(joined, job.warmup.num_draws)


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
