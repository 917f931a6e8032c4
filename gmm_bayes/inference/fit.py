"""fit(): validate, initialise, sample, label, judge."""

import logging
import os
import time
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gmm_bayes._row_files import RowFile
from gmm_bayes._validation import (
    WIDE_FROM_PRIOR,
    Table,
    check_choice,
    check_data,
    check_fit_size,
    check_flag,
    check_n_components,
    check_seed,
    warn_data,
)
from gmm_bayes._vocabulary import PRECISIONS, CovarianceType, InitMethod, Precision
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import ConvergenceWarning, LabelSwitchingWarning
from gmm_bayes.inference.arguments import (
    Arguments,
    check_model,
    data_hash,
    known_keywords,
    to_stored,
)
from gmm_bayes.inference.em.starts import check_init, check_n_init, check_start
from gmm_bayes.inference.potential import space
from gmm_bayes.inference.rescue import rescued, save_unjudged
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.rows.placement import Placement
from gmm_bayes.inference.rows.survey import Survey, survey
from gmm_bayes.inference.run import device_name, plan_memory_of, run
from gmm_bayes.inference.sampling.checkpoint.directory import (
    check_options,
    claim_empty,
    refuse_lack_of_room,
)
from gmm_bayes.inference.sampling.checkpoint.disk import DiskRecorder
from gmm_bayes.inference.sampling.checkpoint.recorder import MemoryRecorder, Recorder
from gmm_bayes.inference.sampling.registry import check_sampler
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.inference.verdict.diagnosis import record_verdict
from gmm_bayes.model.priors import Priors

__all__ = ["fit", "judge"]

logger = logging.getLogger(__name__)

_FEW_WARMUP = 100


@known_keywords
def fit(
    X: Any,
    n_components: int,
    *,
    covariance_type: CovarianceType = "full",
    priors: Priors | None = None,
    sampler: Sampler | None = None,
    init: InitMethod | MixtureParameters = "auto",
    n_init: int | None = None,
    survey: bool = True,
    seed: Any = 0,
    device: str = "auto",
    mesh: int | Mesh | None = None,
    precision: Precision = "float64",
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 30.0,
) -> GMMFit:
    """Sample the posterior of a Gaussian mixture.

    Parameters
    ----------
    X : array, pandas, polars or xarray object, or RowFile, shape (n_obs, n_features)
        Data. Never written to; column names and row labels are kept. Rows of a `RowFile` stay
        there: the result keeps a sample of them.
    n_components : int
        Number of components.
    covariance_type : {"full", "tied", "diag", "spherical"}
        How components share covariance parameters, named as in scikit-learn.
    priors : Priors, optional
        None takes `default_priors(X, n_components)`; with it the answer does not depend on units.
        What it leaves to the data is filled from `X`, the same for every `seed`.
    sampler : NUTS, ChEES or Laplace, optional
        None takes `NUTS()`.
    init : {"auto", "kmeans", "k-means++", "random", "random_from_data"} or MixtureParameters
        Where EM begins, as in `fit_em`. Its maxima are followed to modes of the posterior, and
        every chain starts in the one of most mass, see `modes`. Parameters, in the units of the
        data, are taken as the place to start near, and no other is looked for.
    n_init : int, optional
        Number of EM starts; None takes as many as `fit_em` does.
    survey : bool
        Follow the maxima of the likelihood to the modes of the posterior, see `modes`, and let
        chains begin in each that may carry a thousandth. False begins all near the best solution
        of EM; the verdict then says that nobody looked for others.
    seed : int in [0, 2**32) or JAX key
        The same seed gives the same draws on one device and version.
    device : {"auto", "cpu", "gpu"} or with an index, as "gpu:1"
        Where to sample.
    mesh : int or jax.sharding.Mesh, optional
        Spread the work over several devices: a number of devices that share the rows, or a mesh
        with an axis "rows" that shares the rows, an axis "chains" that shares the chains, or both.
        Each gradient sends one sum of K (D + 1) (D + 2) / 2 + 1 numbers between the devices that
        share rows. Where JAX runs in several processes, all of them call `fit` alike.
    precision : {"float64", "float32"}
        Of the pass over the rows. Single precision is up to twice as fast where there are many rows
        of up to ten features, and on a GPU without fast doubles; rows are centred block by block,
        so that the log density keeps its digits. All else is computed in double precision.
    progress : bool, optional
        Draw a progress bar. None draws one on a terminal or in a notebook, not in CI.
    checkpoint : path, optional
        A new or empty directory in which the run is kept while it goes on, so that `resume` can go
        on with it after it was killed or interrupted. The data are stored there too. For `NUTS`.
    checkpoint_seconds : float
        About how often, in seconds.

    Returns
    -------
    GMMFit
        Draws with shapes (chain, draw, ...) in the units of the data, in float64 whatever JAX's
        global setting.

    Raises
    ------
    TypeError, ValueError
        If the data or an option are not usable; nothing long has been done by then.
    DeviceError
        If the device is not there, or not as many as the mesh needs.
    InsufficientMemoryError
        If the memory is too small, by its count before the run.
    InferenceError
        If no finite starting point is found.
    CheckpointError
        If the checkpoint's directory holds a run or something else, or cannot be written to.
    KeyboardInterrupt
        On Ctrl-C, after the state of the chains is in the checkpoint, if there is one.
    MissingDependencyError
        If the sampler needs a package that is not installed.

    Warns
    -----
    ConvergenceWarning
        Once, if the chains should not be believed; see `diagnose`.
    LabelSwitchingWarning
        If they may be, but components changed places: `align_labels` puts that right.
    DataWarning
        If the data are too few for what is asked.
    CheckpointWarning
        If the checkpoint could not be written; the run goes on in memory.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> X = gb.datasets.load_old_faithful()
    >>> fit = gb.fit(X, 2, sampler=gb.NUTS(num_warmup=300, num_samples=300), seed=1)
    >>> fit.posterior["weights"].mean(("chain", "draw")).round(1).values
    array([0.4, 0.6])
    """
    n_init = check_n_init(n_init)
    spec = check_model(n_components, covariance_type, priors)
    sampler = check_sampler(sampler)
    sampler.check_installed()
    check_init(init)
    survey = check_flag(survey, "survey")
    seed = check_seed(seed)
    check_choice(precision, "precision", PRECISIONS)
    folder = _check_checkpoint(checkpoint, checkpoint_seconds, sampler)
    where = Placement.of(device, mesh)
    table, seen = _read(X, seed, where)
    if isinstance(init, MixtureParameters):
        init = check_start(init, spec.n_components, table.values.shape[1])
    arguments = Arguments(
        table,
        spec,
        sampler,
        init,
        n_init,
        seed,
        device,
        where.shape,
        precision,
        priors,
        seen,
        survey,
    )
    cautions = _check_size(arguments)
    plan = plan_memory_of(arguments, where)
    first = jax.process_index() == 0
    with claim_empty(folder) if folder is not None and first else nullcontext():
        begin = time.perf_counter()
        # The model is the data's: whoever draws from it anew, with another seed, has the same.
        priors = (priors or Priors()).with_centers(table, spec.n_components)
        prior = priors.arrays(spec.n_components, table.values.shape[1])
        for caution in cautions:
            warn_data(caution, stacklevel=4)
        recorder = _recorder(folder, checkpoint_seconds, arguments, priors, where)
        fitted = run(arguments, prior, recorder, where, plan, progress, begin)
    return judge(fitted, stacklevel=4)


def _check_checkpoint(checkpoint: Any, seconds: Any, sampler: Sampler) -> Path | None:
    if checkpoint is None:
        return None
    folder = check_options(checkpoint, seconds)
    if not sampler.can_resume:
        raise ValueError(
            f"checkpoint must be None with {sampler.kind}, which cannot go on from one; "
            "take sampler=NUTS()"
        )
    return folder


def _recorder(
    folder: Path | None, seconds: float, arguments: Arguments, priors: Priors, where: Placement
) -> Recorder:
    """What the run is kept in; on disk, what it was given is written first."""
    if folder is None:
        return MemoryRecorder()
    # Of several processes the first keeps the run; the others only go along.
    writes = jax.process_index() == 0
    if writes:
        refuse_lack_of_room(folder, _bytes(arguments))
    recorder = DiskRecorder(folder, {}, seconds, writes=writes)
    recorder.create(
        to_stored(arguments, priors),
        data_hash(arguments.table, arguments.seen),
        arguments.config(),
        device_name(where.device),
    )
    return recorder


def _bytes(arguments: Arguments) -> int:
    """About the size of a checkpoint, with a fifth more to be safe."""
    values, sampler = arguments.table.values, arguments.sampler
    numbers_per_draw = 2 * space(arguments.spec, values.shape[1]).dimension + 6
    draws = sampler.num_chains * sampler.num_samples
    return int(1.2 * 8 * (draws * numbers_per_draw + values.size)) + 2**20


def _read(X: Any, seed: np.ndarray, where: Placement) -> tuple[Table, Survey | None]:
    """The rows; or a sample of those in a file, and what a look at all of them says."""
    if not isinstance(X, RowFile):
        return check_data(X, min_rows=2), None
    seen = survey(X, seed, shared=where.is_shared)
    return seen.sample, seen


def _check_size(arguments: Arguments) -> list[str]:
    """Refuse what cannot be fitted to these data; return what they cannot teach, in words."""
    spec, sampler, table = arguments.spec, arguments.sampler, arguments.table
    k, n_features = spec.n_components, table.values.shape[1]
    check_n_components(k, arguments.n_obs)
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    n_parameters = structure.n_parameters(k, n_features)
    checked = table if arguments.seen is None else arguments.seen.checked
    wide = WIDE_FROM_PRIOR if structure.has_correlations(n_features) else None
    flattens = structure.can_flatten(n_features)
    cautions = check_fit_size(checked, k, n_parameters, wide=wide, flattens=flattens)
    if sampler.num_warmup is not None and sampler.num_warmup < _FEW_WARMUP:
        cautions.append(
            f"num_warmup={sampler.num_warmup} is short: below {_FEW_WARMUP} warm-up "
            "draws the step size and metric are rarely adapted"
        )
    return cautions


def judge(fitted: GMMFit, stacklevel: int = 3) -> GMMFit:
    """Write the verdict into the record and warn the caller's caller if it is not a good one."""
    with rescued("the verdict", ".nc", partial(save_unjudged, fitted)):
        diagnosis = record_verdict(fitted)
    if not diagnosis.ok:
        warnings.warn(
            "do not believe these chains yet: "
            + "; ".join(diagnosis.problems)
            + ". "
            + " ".join(diagnosis.advice),
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
    elif diagnosis.switched:
        warnings.warn(
            " ".join(
                s[0].upper() + s[1:] + "." * (s[-1] != ".")
                for s in (diagnosis.notes[0], *diagnosis.advice)
            ),
            LabelSwitchingWarning,
            stacklevel=stacklevel,
        )
    return fitted
