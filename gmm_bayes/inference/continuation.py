"""resume() and extend(): a run that goes on, from its checkpoint or from its result."""

import dataclasses
import inspect
import json
import os
import time
from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr

from gmm_bayes._row_files import RowFile
from gmm_bayes._validation import Table, check_data, check_integer, nearest
from gmm_bayes._vocabulary import (
    CHAIN,
    DRAW,
    OBS,
    POSTERIOR,
    SAMPLE_STATS,
    SAMPLER_STATE,
    SURVEY,
    TEMPERING,
)
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import CheckpointError
from gmm_bayes.inference.arguments import (
    Arguments,
    data_hash,
    from_stored,
    plain,
    stored_rows,
)
from gmm_bayes.inference.fit import fit, judge
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.rescue import rescued, save_unjudged
from gmm_bayes.inference.result import netcdf
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.rows.placement import Placement
from gmm_bayes.inference.rows.survey import Survey, survey
from gmm_bayes.inference.run import device_name, plan_memory_of, run
from gmm_bayes.inference.sampling.checkpoint.directory import (
    check_options,
    refuse_differences,
    reopen,
)
from gmm_bayes.inference.sampling.checkpoint.disk import DiskRecorder
from gmm_bayes.inference.sampling.checkpoint.recorder import MemoryRecorder
from gmm_bayes.inference.sampling.plan import Plan
from gmm_bayes.inference.sampling.state import STATE_PREFIX, state_arrays

__all__ = ["extend", "resume"]

# Arguments of `fit` that change no draw.
_FREE = ("X", "progress", "checkpoint", "checkpoint_seconds")


def resume(
    checkpoint: str | os.PathLike[str],
    X: Any = None,
    *,
    progress: bool | None = None,
    checkpoint_seconds: float = 30.0,
    **arguments: Any,
) -> GMMFit:
    """Go on with a run that was killed or interrupted, where its checkpoint says that it was.

    The draws are those of a run that was not interrupted, bit for bit, on the same kind of device
    and processor. Data and arguments are in the checkpoint: nothing else is needed. A run that was
    finished gives its result again.

    Parameters
    ----------
    checkpoint : path
        The directory that was given to `fit`.
    X : array, frame or RowFile, shape (n_obs, n_features), optional
        If given, it must be the data of the run: for instance a file that has moved.
    progress, checkpoint_seconds
        As for `fit`.
    **arguments
        Arguments of `fit`. Those given must be the run's.

    Returns
    -------
    GMMFit
        As `fit` returns it; `fit.run["resumed"]` counts how often the run was gone on with.

    Raises
    ------
    FileNotFoundError
        If there is no run in the directory.
    CheckpointError
        If the data, an argument, a version or the device differ from the run's, in words which; if
        a file is damaged; if another process is at work there.
    KeyboardInterrupt
        On Ctrl-C, after the state of the chains is in the checkpoint.
    """
    begin = time.perf_counter()
    folder = check_options(checkpoint, checkpoint_seconds)
    given = _as_config(arguments)
    in_file = X is None or isinstance(X, RowFile)
    data = None if in_file else data_hash(check_data(X, min_rows=2))
    # Of several processes the first keeps the run; the others read what it was.
    writes = jax.process_index() == 0
    with reopen(folder, keeps_others_out=writes) as manifest:
        recorder = DiskRecorder(folder, manifest, checkpoint_seconds, writes=writes)
        refuse_differences(folder, manifest["config"], given)
        if data is not None:
            _refuse_other_data(recorder, data)
        stored, priors = _stored(recorder)
        where = Placement.of_shape(stored.device, stored.mesh)
        if in_file:
            stored = _with_rows(stored, recorder, X, where)
        recorder.check(device_name(where.device))
        prior = priors.arrays(stored.spec.n_components, stored.table.values.shape[1])
        plan = plan_memory_of(stored, where)
        fitted = run(stored, prior, recorder, where, plan, progress, begin)
    return judge(fitted)


def _as_config(arguments: dict[str, Any]) -> dict[str, Any]:
    known = [name for name in inspect.signature(fit).parameters if name not in _FREE]
    for name in arguments:
        if name not in known:
            raise TypeError(f"fit has no argument {name!r}; {nearest(name, known)}")
    config = {name: plain(name, value) for name, value in arguments.items() if name != "mesh"}
    if "mesh" in arguments:
        where = Placement.of(arguments.get("device", "auto"), arguments["mesh"])
        config["mesh"] = where.shape
    return config


def _stored(recorder: DiskRecorder) -> tuple[Arguments, Any]:
    try:
        return from_stored(recorder.manifest["config"], recorder.inputs())
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{recorder.directory} is damaged: its arguments are not what a run wrote ({error})"
        ) from None


def _refuse_other_data(recorder: DiskRecorder, data: str | None) -> None:
    if data != recorder.manifest["data"]:
        raise CheckpointError(
            f"the run in {recorder.directory} has other data than X: rows, names of columns "
            "or labels of rows differ"
        )


def _with_rows(
    stored: Arguments, recorder: DiskRecorder, X: RowFile | None, where: Placement
) -> Arguments:
    """The arguments with the file of their rows, if it was one, after looking whether it is."""
    source = stored_rows(recorder.inputs())
    if source is None:
        if X is not None:
            _refuse_other_data(recorder, None)
        return stored
    try:
        rows = RowFile(**source) if X is None else X
    except FileNotFoundError:
        raise CheckpointError(
            f"the rows of the run in {recorder.directory} were in {source['path']}, where there is "
            "no file now; give them as X=gmm_bayes.RowFile(...)"
        ) from None
    seen = survey(rows, stored.seed, shared=where.is_shared)
    _refuse_other_data(recorder, data_hash(seen.sample, seen))
    return dataclasses.replace(stored, table=seen.sample, seen=seen)


def extend(fit: GMMFit, num_samples: int, *, progress: bool | None = None) -> GMMFit:
    """Make more draws with the chains of a finished fit, without a new warm-up.

    Parameters
    ----------
    fit : GMMFit
        Of `NUTS`, from `fit`, `resume`, `extend` or `load`.
    num_samples : int
        More draws, per chain.
    progress : bool, optional
        As for `fit`.

    Returns
    -------
    GMMFit
        All draws, shapes (chain, draw, ...): those of one fit with so many draws, bit for bit on
        the same device and versions. Groups that were added on request are left out, as they are
        about the draws there were; `with_groups` makes them again.

    Raises
    ------
    ValueError
        If the chains cannot go on: the fit was aligned or stacked, is a marginal, was not made by
        chains, or is from a version that did not keep their state.
    DeviceError
        If the device of the fit is not there.
    FileNotFoundError
        If the rows stayed in a file that is not there now.

    Warns
    -----
    ConvergenceWarning, LabelSwitchingWarning
        As `fit` does.

    Notes
    -----
    What it needs is in the group `sampler_state` of the tree and in its file: the coordinates, at
    most a matrix with as many rows as there are parameters, and the state of each chain, which
    holds three such matrices only if the chains adapted a dense metric.
    """
    begin = time.perf_counter()
    check_fit(fit)
    more = check_integer(num_samples, "num_samples", 1)
    _refuse_without_state(fit)
    arrays = state_arrays(fit.datatree[SAMPLER_STATE].to_dataset())
    before = fit.posterior.sizes[DRAW]
    sampler = dataclasses.replace(fit.sampler, num_samples=before + more)  # type: ignore[type-var]
    plan = Plan.from_arrays(arrays)
    state = {
        name.removeprefix(STATE_PREFIX): values
        for name, values in arrays.items()
        if name.startswith(STATE_PREFIX)
    }
    start = MixtureParameters(*(arrays[f"start.{name}"] for name in MixtureParameters._fields))
    done = int(fit.run["num_warmup"]) + before
    fixed = {
        "group_size": int(arrays["group_size"]),
        "rows_per_block": int(fit.run["rows_per_block"]),
    }
    recorder = MemoryRecorder(plan, fixed, state, done, before, start)
    where = Placement.of_shape(fit.device.partition(" ")[0], fit.run.get("mesh"))
    arguments = Arguments(
        Table(fit.X.values, fit.feature_names, fit.X[OBS].values, True),
        ModelSpec(fit.n_components, fit.covariance_type),
        sampler,
        start,
        1,
        np.array(fit.seed, np.uint32),
        where.device.platform,
        where.shape,
        fit.datatree[SAMPLER_STATE].attrs["precision"],
        fit.priors,
        _seen_again(fit, where),
    )
    prior = fit.priors.arrays(fit.n_components, fit.n_features)
    prior = prior._replace(mean_scale_tril=arrays["mean_scale_tril"])
    memory = plan_memory_of(arguments, where)
    new = run(arguments, prior, recorder, where, memory, progress, begin)
    with rescued("joining the draws", ".nc", partial(save_unjudged, new)):
        joined = _joined(fit, new)
    return judge(joined)


def _seen_again(fit: GMMFit, where: Placement) -> Survey | None:
    """What is in the file of the rows, if they stayed in one."""
    source = fit.run.get("rows")
    if source is None:
        return None
    rows = RowFile(source["path"], source["columns"])
    seen = survey(rows, np.array(fit.seed, np.uint32), shared=where.is_shared)
    if seen.digest != source["digest"]:
        raise ValueError(f"fit must be of the rows in {rows.path}, but these have changed since")
    return seen


def _refuse_without_state(fit: GMMFit) -> None:
    if fit.stacking is not None:
        raise ValueError(
            "fit must hold the draws of its chains, got one whose chains were stacked; extend the "
            "fit that stack_chains was given"
        )
    if fit.alignment is not None:
        raise ValueError(
            "fit must hold the draws as they were sampled, got one whose components were aligned; "
            "extend the fit that align_labels was given, and align the result"
        )
    if SAMPLER_STATE not in fit.datatree.children:
        raise ValueError(
            "fit must hold the state of its chains, which fits by NUTS alone keep, and not their "
            "marginals, nor fits whose chains were weighted by the mass of their modes, nor older "
            "versions; fit again with more draws"
        )


def _joined(old: GMMFit, new: GMMFit) -> GMMFit:
    """The draws of both, one after the other; all else is the newer's."""
    groups = netcdf.groups(new.datatree)
    for name in (POSTERIOR, SAMPLE_STATS):
        first = old.datatree[name].to_dataset()
        joined = xr.concat([first, groups[name]], DRAW, data_vars="minimal", join="override")
        n_draws = joined.sizes[DRAW]
        groups[name] = joined.assign_coords({DRAW: np.arange(n_draws), CHAIN: first[CHAIN]})
    n_gradients = old.run["n_gradients"] + new.run["n_gradients"]
    known = {name: old.run[name] for name in (SURVEY,) if name in old.run}
    if TEMPERING in old.run:
        lengths = [fit.posterior.sizes[DRAW] for fit in (old, new)]
        evidence = _pooled([fit.run[TEMPERING] for fit in (old, new)], lengths)
        known[TEMPERING] = {**new.run[TEMPERING], **evidence}
    run = {**new.run, **known, "n_gradients": n_gradients}
    timings = {
        name: old.timings.get(name, 0.0) + new.timings.get(name, 0.0)
        for name in {**old.timings, **new.timings}
    }
    attrs = {**new.datatree.attrs, "run": json.dumps(run), "timings": json.dumps(timings)}
    return GMMFit(netcdf.build(groups, attrs))


def _pooled(told: list[dict[str, Any]], lengths: list[int]) -> dict[str, float | None]:
    """The log evidence of draws one after the other: by their numbers, None if none is known."""
    values, errors = (
        np.array([one[name] for one in told], float)
        for name in ("log_evidence", "log_evidence_error")
    )
    share = np.where(np.isnan(values), 0.0, lengths)
    if not share.any():
        return {"log_evidence": None, "log_evidence_error": None}
    share = share / share.sum()
    value, error = np.nansum(share * values), np.sqrt(np.nansum((share * errors) ** 2))
    known = not np.isnan(errors[share > 0]).any()
    return {"log_evidence": float(value), "log_evidence_error": float(error) if known else None}
