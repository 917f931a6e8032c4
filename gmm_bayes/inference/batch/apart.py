"""Chains by themselves: data sets whose trajectories are long wait for nobody, and nobody for them.

A vectorised program goes on until the longest trajectory among its chains has ended, and pays for
all of them. Measured on 50 rows of four columns in groups that overlap, processor time for each
step of a chain: 24 us alone, 52 us in twos, 20 to 33 us in blocks of 4 to 128.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from gmm_bayes.inference.batch.draws import Made
from gmm_bayes.inference.batch.starts import Plans
from gmm_bayes.inference.potential import Data, ModelSpec
from gmm_bayes.inference.sampling.checkpoint.recorder import MemoryGroup
from gmm_bayes.inference.sampling.coordinates import AffineMap
from gmm_bayes.inference.sampling.drivers.nuts import (
    Adaptation,
    Programs,
    Settings,
    Warmup,
    run_group,
)
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.machine.devices import cpu_cores
from gmm_bayes.machine.progress import SetProgress
from gmm_bayes.machine.threads import run_in_threads

__all__ = ["Work", "sample_apart"]

_STEPS = ("warmup_steps", "n_steps")


class Work(NamedTuple):
    """What is sampled, and what the draws are written into.

    Attributes
    ----------
    data : Data
        With a leading axis of n_sets.
    spec : ModelSpec
    sampler : NUTS
    adaptation : Adaptation
    plans : Plans
    keys : ndarray, shape (n_sets, num_chains, 2)
    made : Made
    device : jax.Device
    bar : SetProgress
    """

    data: Data
    spec: ModelSpec
    sampler: NUTS
    adaptation: Adaptation
    plans: Plans
    keys: np.ndarray
    made: Made
    device: jax.Device
    bar: SetProgress


def sample_apart(work: Work, sets: np.ndarray, budget: int | None) -> float:
    """Sample some sets, each chain in a program of its own, and write down their draws.

    Parameters
    ----------
    work : Work
    sets : ndarray of int
    budget : int, optional
        Gradients that the chains of one set may take; a set that needs more is stopped, and has as
        many draws of each chain as all of them made within an equal share. So it does not depend
        on the clock.

    Returns
    -------
    float
        Seconds that the compiler took.
    """
    if not len(sets):
        return 0.0
    begin = time.perf_counter()
    num_chains, spec = work.sampler.num_chains, work.spec
    # One program for all of them: what differs are its arguments.
    compiled = Programs(work.adaptation, spec, 1, _settings(work, int(sets[0])))
    # In a thread, as the chains are: an interrupt reaches this one.
    run_in_threads([lambda stop: compiled.compile()], 1, work.device)
    seconds = time.perf_counter() - begin
    share = None if budget is None else budget // num_chains
    # What is farthest from normal first: at the end all cores have something to do.
    departure = work.plans.facts["departure_from_normal"][sets]
    first = np.argsort(-np.nan_to_num(departure, nan=np.inf), kind="stable")
    sites: dict[int, list[Any]] = {int(i): [None] * num_chains for i in sets[first]}
    lock = threading.Lock()

    def run(i: int, chain: int, stop: Any) -> None:
        one = Programs(work.adaptation, spec, 1, _settings(work, i))
        one.blank = compiled.blank
        sites[i][chain] = _run_chain(one, work, i, chain, share, stop)
        with lock:
            done = all(fields is not None for fields in sites[i])
        if done:
            _write(work, i, sites.pop(i))

    jobs: list[Callable[..., Any]] = [partial(run, i, c) for i in sites for c in range(num_chains)]
    run_in_threads(jobs, min(cpu_cores(), len(jobs)), work.device)
    return seconds


class _Spent(Exception):
    """A chain has taken its share of the gradients."""


class _Account(MemoryGroup):
    """One chain in memory, until its gradients are spent."""

    def __init__(self, share: int | None) -> None:
        super().__init__()
        self._left = np.inf if share is None else share

    def add(self, made: dict[str, np.ndarray]) -> None:
        """As `GroupRecord` says."""
        super().add(made)
        self._left -= sum(int(made[name].sum()) for name in _STEPS if name in made)
        if self._left < 0:
            raise _Spent


def _settings(work: Work, i: int) -> Settings:
    """The arguments of the program for one set."""
    plans = work.plans
    affine = AffineMap(plans.affine.loc[i], plans.affine.factor[i])
    own = jax.tree.map(lambda a: np.asarray(a)[i], work.data)
    return Settings(_warmup(work, i), affine, own)


def _warmup(work: Work, i: int) -> Warmup:
    return work.sampler.warmup(bool(work.plans.facts["adapted"][i]))


def _run_chain(
    programs: Programs, work: Work, i: int, chain: int, share: int | None, stop: Any
) -> dict[str, np.ndarray]:
    """The draws of one chain, as far as its share of the gradients goes: arrays (1, draw, ...)."""
    starts, keys = work.plans.starts[i, [chain]], work.keys[i, [chain]]
    record = _Account(share)
    samples = work.sampler.num_samples
    try:
        return run_group(programs, samples, starts, keys, record, work.bar, stop)
    except _Spent:
        fields = record.draws()
    # How many draws a call makes depends on the clock: those beyond the share do not count.
    made = np.concatenate([fields[name] for name in _STEPS if name in fields], axis=1)
    assert share is not None
    within = int(np.sum(np.cumsum(made) <= share))
    n_warmup = fields.pop("warmup_steps", made[:, :0]).shape[1]
    kept = {name: values[:, : max(within - n_warmup, 0)] for name, values in fields.items()}
    return {"warmup_steps": made[:, : min(within, n_warmup)], **kept}


def _write(work: Work, i: int, chains: list[dict[str, np.ndarray]]) -> None:
    """Write down the draws that all chains of a set have made."""
    n_draws = min(one["eta"].shape[1] if "eta" in one else 0 for one in chains)
    n_gradients = sum(int(one[name].sum()) for one in chains for name in _STEPS if name in one)
    fields = {
        name: np.concatenate([one[name][:, :n_draws] for one in chains])
        for name in chains[0]
        if n_draws and name != "warmup_steps"
    }
    num_warmup = _warmup(work, i).num_draws
    work.made.write(fields, i, num_warmup, n_gradients, work.plans, work.data, work.spec)
    work.bar.finish(1)
