"""From checked arguments to labelled draws: one run, new or going on."""

import json
import time
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from gmm_bayes._vocabulary import SAMPLER_STATE, SURVEY, TEMPERING
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.arguments import Arguments
from gmm_bayes.inference.modes.chains import draw_from_modes, seen_by
from gmm_bayes.inference.modes.search import Search
from gmm_bayes.inference.modes.survey import mixtures_of
from gmm_bayes.inference.potential import Data, ModelSpec, log_prior, space
from gmm_bayes.inference.rescue import rescued, save_raw
from gmm_bayes.inference.result import netcdf
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.result.tree import label_draws
from gmm_bayes.inference.rows.placement import Placement, agree
from gmm_bayes.inference.sampling.checkpoint.recorder import Recorder
from gmm_bayes.inference.sampling.problem import Draws, Problem
from gmm_bayes.inference.sampling.registry import stored_sampler
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.inference.sampling.state import state_group
from gmm_bayes.inference.verdict.pieces import judge_piece
from gmm_bayes.machine.compilation import forget_programs, persistent_cache
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.machine.memory import MemoryPlan
from gmm_bayes.machine.progress import wanted
from gmm_bayes.machine.versions import versions
from gmm_bayes.model.priors import PriorArrays

__all__ = ["attributes", "device_name", "plan_memory_of", "run", "seeds"]


def plan_memory_of(arguments: Arguments, where: Placement) -> MemoryPlan:
    """Choose how a run is cut so that it fits where it is to run.

    Raises
    ------
    ValueError
        If the sampler cannot run there.
    InsufficientMemoryError
        If it cannot fit.
    """
    here, sampler = space(arguments.spec, arguments.table.values.shape[1]), arguments.sampler
    sampler.check_mesh(where.mesh)
    groupings = sampler.groupings(where.device, where.mesh)
    return where.plan(sampler.size(arguments.n_obs, here), groupings, arguments.precision)


def run(
    arguments: Arguments,
    prior: PriorArrays,
    recorder: Recorder,
    where: Placement,
    plan: MemoryPlan,
    progress: bool | None,
    begin: float,
) -> GMMFit:
    """Sample from where the recorder says, and label the draws. There is no verdict yet."""
    table, spec, units = arguments.table, arguments.spec, arguments.units
    forget_programs()
    with persistent_cache(), double_precision(), jax.default_device(where.device):
        prior = PriorArrays(*agree(prior, where.mesh))
        standard = PriorArrays(*units.apply_to_priors(prior))
        length = recorder.fixed("rows_per_block", plan.rows_per_block)
        search = Search(arguments, standard, length, where.mesh)

        @cache
        def find_start() -> MixtureParameters:
            return recorder.start(search.start)

        if arguments.rows is None:
            rows = where.blocks(table.values, units, arguments.precision, length, find_start)
        else:
            rows = where.file_blocks(arguments.rows, units, arguments.precision, length, find_start)
        data = Data(rows, where.everywhere(log_prior(standard, spec)))
        del rows
        rngs = [np.random.default_rng(seed) for seed in seeds(arguments)]
        n_obs = arguments.n_obs
        looked_for, others = search.looked_for, search.others
        problem = Problem(
            data, spec, n_obs, find_start, rngs, recorder, plan.grouping, looked_for, others
        )
        _rehearse(arguments, prior, where)
        prepared = time.perf_counter()
        shown = wanted(progress) and jax.process_index() == 0
        draws = _drawn(problem, arguments, standard, search.X, progress=shown)
        draws.seconds["initialise"] += prepared - begin
        how = {"precision": arguments.precision, **plan.facts, "rows_per_block": length}
        draws.facts.update({**where.facts, **how})
        if arguments.rows is not None:
            assert arguments.seen is not None
            where_from = {"digest": arguments.seen.digest, "n_obs": n_obs}
            draws.facts["rows"] = {**arguments.rows.source, **where_from}
        with rescued("labelling", ".npz", partial(save_raw, draws, units)):
            fitted = _labelled(draws, arguments, prior, where)
            if draws.state:
                fitted.datatree[SAMPLER_STATE] = state_group(
                    draws.state, find_start(), prior, arguments.precision
                )
    return fitted


def _drawn(
    problem: Problem, arguments: Arguments, prior: PriorArrays, X: np.ndarray, *, progress: bool
) -> Draws:
    """Draw from the mode where chains begin, and from the others of the posterior."""
    sampler, units = arguments.sampler, arguments.units
    draws = sampler.run(problem, progress=progress)
    # Not every sampler has a plan that tells of the search.
    draws = draws._replace(facts={**problem.looked_for, **draws.facts})
    replicas = draws.facts.get(TEMPERING, {})
    if replicas.get("log_evidence") is not None:
        replicas["log_evidence"] -= arguments.n_obs * units.log_volume
    save = partial(save_raw, draws, units)
    modes = mixtures_of(draws.facts.get(SURVEY, {}), units)
    if modes and sampler.crosses_modes:
        with rescued("looking where chains have been", ".npz", save):
            seen = seen_by(problem, draws, modes, X)
        return draws._replace(facts={**draws.facts, SURVEY: seen})
    # Chains that go on have been to the others.
    if len(modes) < 2 or sampler.judged_by != "chains" or problem.recorder.n_draws_before:
        return draws
    # An interrupt is as one in the first run: a checkpoint has the draws, if there is one.
    with rescued("drawing from other modes", ".npz", save, Exception):
        return draw_from_modes(
            sampler,
            problem,
            draws,
            modes,
            X,
            prior,
            seeds(arguments),
            judge_piece,
            progress=progress,
        )


def _labelled(draws: Draws, arguments: Arguments, prior: PriorArrays, where: Placement) -> GMMFit:
    spec, table = arguments.spec, arguments.table
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    tree = label_draws(draws, table, prior, arguments.units, structure, arguments.n_obs)
    tree.attrs = attributes(spec, arguments.sampler, draws, arguments.seed, where.device)
    return GMMFit(tree)


def _rehearse(arguments: Arguments, prior: PriorArrays, where: Placement) -> None:
    """Label a draw that nobody made: what cannot be labelled is to be known before the sampling."""
    here = space(arguments.spec, arguments.table.values.shape[1])
    stats = {name: np.zeros((1, 1)) for name in ("potential", "log_likelihood", "n_occupied")}
    draws = Draws(here.sites(np.zeros((1, 1, here.dimension))), stats, {}, {})
    _labelled(draws, arguments, prior, where)


def seeds(arguments: Arguments) -> list[np.random.SeedSequence]:
    """Of each chain."""
    return np.random.SeedSequence(arguments.seed).spawn(arguments.sampler.num_chains)


def attributes(
    spec: ModelSpec,
    sampler: Sampler,
    draws: Draws,
    seed: np.ndarray,
    device: jax.Device,
) -> dict[str, Any]:
    """What the run was, as strings and integers."""
    packages = ("gmm_bayes", "jax", "jaxlib", "numpyro", "numpy", "scikit-learn")
    return {
        "format": netcdf.FORMAT,
        "format_version": netcdf.FORMAT_VERSION,
        **spec._asdict(),
        "sampler": json.dumps(stored_sampler(sampler)),
        "run": json.dumps(draws.facts),
        "seed": json.dumps([int(word) for word in seed]),
        "device": device_name(device),
        "timings": json.dumps(draws.seconds),
        "versions": json.dumps(versions(packages)),
        "problems": json.dumps([]),
    }


def device_name(device: jax.Device) -> str:
    """The kind of a device, in words."""
    return " ".join(dict.fromkeys((device.platform, device.device_kind)))
