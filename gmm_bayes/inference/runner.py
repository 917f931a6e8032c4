"""fit(): validate, initialise, sample, label, judge."""

import dataclasses
import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.spatial import cKDTree

from gmm_bayes._validation import (
    Table,
    check_choice,
    check_data,
    check_fit_size,
    check_integer,
    check_n_components,
    check_seed,
    warn_data,
)
from gmm_bayes._vocabulary import PRECISIONS, SAMPLER_STATE, CovarianceType, InitMethod, Precision
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import RowBlocks, block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import ConvergenceWarning, LabelSwitchingWarning
from gmm_bayes.inference import storage
from gmm_bayes.inference.arguments import Arguments, data_hash, to_stored
from gmm_bayes.inference.checkpoint import DiskRecorder
from gmm_bayes.inference.checkpoint_directory import (
    check_options,
    claim_empty,
    refuse_lack_of_room,
)
from gmm_bayes.inference.chees import ChEES
from gmm_bayes.inference.compilation import forget_programs, persistent_cache
from gmm_bayes.inference.devices import double_precision, find_device
from gmm_bayes.inference.diagnostics import record_verdict
from gmm_bayes.inference.draws import Draws, Problem
from gmm_bayes.inference.initialization import (
    check_init,
    check_start,
    em_start,
    match_to_prior,
    some_rows,
)
from gmm_bayes.inference.labelling import label_draws
from gmm_bayes.inference.potential import Data, ModelSpec, log_prior, space
from gmm_bayes.inference.progress import wanted
from gmm_bayes.inference.recording import MemoryRecorder, Recorder
from gmm_bayes.inference.result import GMMFit
from gmm_bayes.inference.sampler_state import state_group
from gmm_bayes.inference.samplers import NUTS, Sampler
from gmm_bayes.inference.standardization import Standardization
from gmm_bayes.model.priors import PriorArrays, Priors, default_priors

__all__ = ["attributes", "device_name", "fit", "integer_seed", "judge", "run_arguments"]

logger = logging.getLogger(__name__)

_FEW_WARMUP = 100
# A GPU wants large products, and has the memory for them.
_GPU_ROWS_PER_BLOCK = 2**15


def fit(
    X: Any,
    n_components: int,
    *,
    covariance_type: CovarianceType = "full",
    priors: Priors | None = None,
    sampler: Sampler | None = None,
    init: InitMethod | MixtureParameters = "kmeans",
    n_init: int = 10,
    seed: Any = 0,
    device: str = "auto",
    precision: Precision = "float64",
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 30.0,
) -> GMMFit:
    """Sample the posterior of a Gaussian mixture.

    Parameters
    ----------
    X : array, pandas, polars or xarray object, shape (n_obs, n_features)
        Data. Never written to; column names and row labels are kept.
    n_components : int
        Number of components.
    covariance_type : {"full", "tied", "diag", "spherical"}
        How components share covariance parameters, named as in scikit-learn.
    priors : Priors, optional
        None takes `default_priors(X, n_components)`, its k-means seeded from `seed`; with it the
        answer does not depend on units. A `mean_loc` of None is filled with the k-means centroids
        of `X`.
    sampler : NUTS, ChEES or Laplace, optional
        None takes `NUTS()`.
    init : {"kmeans", "k-means++", "random", "random_from_data"} or MixtureParameters
        Where EM begins; every chain starts near the best EM solution. Parameters, in the units of
        the data, are taken as that solution.
    n_init : int
        Number of EM starts.
    seed : int in [0, 2**32) or JAX key
        The same seed gives the same draws on one device and version.
    device : {"auto", "cpu", "gpu"}
        Where to sample.
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
        If the device is not there.
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
    table, spec, sampler, init, words, cautions = _check(
        X, n_components, covariance_type, sampler, init, n_init, seed
    )
    check_choice(precision, "precision", PRECISIONS)
    if priors is not None and not isinstance(priors, Priors):
        raise TypeError(f"priors must be a gmm_bayes.Priors, got {type(priors).__name__}")
    folder = _check_checkpoint(checkpoint, checkpoint_seconds, sampler)
    chosen = find_device(device)
    arguments = Arguments(table, spec, sampler, init, n_init, words, device, precision, priors)
    with nullcontext() if folder is None else claim_empty(folder):
        begin = time.perf_counter()
        prior_seed = integer_seed(_seeds(arguments)[0])
        if priors is None:
            priors = default_priors(table.values, spec.n_components, seed=prior_seed)
        priors = priors.with_centers(table.values, spec.n_components, seed=prior_seed)
        prior = priors.arrays(spec.n_components, table.values.shape[1])
        for caution in cautions:
            warn_data(caution)
        recorder: Recorder = MemoryRecorder()
        if folder is not None:
            refuse_lack_of_room(folder, _bytes(arguments))
            recorder = DiskRecorder(folder, {}, checkpoint_seconds)
            recorder.create(
                to_stored(arguments, priors),
                data_hash(table),
                arguments.config(),
                device_name(chosen),
            )
        fitted = run_arguments(arguments, prior, recorder, chosen, progress, begin)
    return judge(fitted)


def run_arguments(
    arguments: Arguments,
    prior: PriorArrays,
    recorder: Recorder,
    device: jax.Device,
    progress: bool | None,
    begin: float,
) -> GMMFit:
    """Sample from where the recorder says, and label the draws. There is no verdict yet."""
    table, spec, sampler = arguments.table, arguments.spec, arguments.sampler
    _, em_seed, *chain_seeds = _seeds(arguments)
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    units = Standardization.of(table.values, structure)
    forget_programs()
    with persistent_cache(), double_precision(), jax.default_device(device):
        standard = PriorArrays(*units.apply_to_priors(prior))
        some = units.apply(table.values[some_rows(len(table.values), integer_seed(em_seed))])

        def search() -> MixtureParameters:
            if isinstance(arguments.init, MixtureParameters):
                solution = units.apply_to_parameters(arguments.init)
            else:
                init, n_init = arguments.init, arguments.n_init
                seed = integer_seed(em_seed)
                solution = em_start(some, spec, init=init, n_init=n_init, seed=seed)
            return match_to_prior(solution, standard)

        @cache
        def find_start() -> MixtureParameters:
            return recorder.start(search)

        rows = _blocks(table.values, units, arguments.precision, device, find_start)
        data = jax.device_put(Data(rows, log_prior(standard, spec)))
        del rows
        rngs = [np.random.default_rng(seed) for seed in chain_seeds]
        problem = Problem(data, spec, len(table.values), find_start, rngs, recorder)
        prepared = time.perf_counter()
        draws = sampler.run(problem, progress=wanted(progress))
        draws.seconds["initialise"] += prepared - begin
        tree = label_draws(draws, table, prior, units, structure)
        if draws.state:
            tree[SAMPLER_STATE] = state_group(draws.state, find_start(), prior, arguments.precision)
    tree.attrs = attributes(spec, sampler, draws, arguments.words, device)
    return GMMFit(tree)


def _seeds(arguments: Arguments) -> list[np.random.SeedSequence]:
    """Of the priors, of EM, and of each chain."""
    return np.random.SeedSequence(arguments.words).spawn(2 + arguments.sampler.num_chains)


def _check_checkpoint(checkpoint: Any, seconds: Any, sampler: Sampler) -> Path | None:
    if checkpoint is None:
        return None
    folder = check_options(checkpoint, seconds)
    if not getattr(sampler, "can_resume", False):
        raise ValueError(
            f"checkpoint must be None with {type(sampler).__name__}, whose draws are made at once; "
            "take sampler=NUTS()"
        )
    return folder


def _bytes(arguments: Arguments) -> int:
    """About the size of a checkpoint, with a fifth more to be safe."""
    values, sampler = arguments.table.values, arguments.sampler
    numbers_per_draw = 2 * space(arguments.spec, values.shape[1]).dimension + 6
    draws = sampler.num_chains * sampler.num_samples
    return int(1.2 * 8 * (draws * numbers_per_draw + values.size)) + 2**20


def _blocks(
    X: np.ndarray,
    units: Standardization,
    precision: Precision,
    device: jax.Device,
    find_start: Callable[[], MixtureParameters],
) -> RowBlocks:
    """The rows in standard units, as the kernel wants them on a device."""
    size = None if device.platform == "cpu" else _GPU_ROWS_PER_BLOCK
    groups = None
    if precision == "float32":
        # Rows near each other share a block, so that its centre is near all of them.
        groups = cKDTree(find_start().means).query(units.apply(X))[1]
    return block_rows(
        X, precision=precision, groups=groups, rows_per_block=size, transform=units.apply
    )


def _check(
    X: Any,
    n_components: Any,
    covariance_type: Any,
    sampler: Any,
    init: Any,
    n_init: Any,
    seed: Any,
) -> tuple[Table, ModelSpec, Sampler, InitMethod | MixtureParameters, np.ndarray, list[str]]:
    """Refuse what cannot be fitted, before anything long begins."""
    check_n_components(n_components)
    check_choice(covariance_type, "covariance_type", tuple(COVARIANCE_STRUCTURES))
    sampler = NUTS() if sampler is None else sampler
    if not isinstance(sampler, Sampler):
        raise TypeError(
            f"sampler must be a gmm_bayes.NUTS(...), ChEES(...) or Laplace(...), got {sampler!r}"
        )
    if isinstance(sampler, ChEES):
        sampler.check_installed()
    check_init(init)
    check_integer(n_init, "n_init", 1)
    words = check_seed(seed)
    table = check_data(X, min_rows=2)
    spec = ModelSpec(check_n_components(n_components, len(table.values)), covariance_type)
    n_features = table.values.shape[1]
    if isinstance(init, MixtureParameters):
        init = check_start(init, spec.n_components, n_features)
    n_parameters = COVARIANCE_STRUCTURES[covariance_type].n_parameters(
        spec.n_components, n_features
    )
    cautions = check_fit_size(table, spec.n_components, n_parameters)
    num_warmup = getattr(sampler, "num_warmup", None)
    if num_warmup is not None and num_warmup < _FEW_WARMUP:
        cautions.append(
            f"num_warmup={num_warmup} is short: below {_FEW_WARMUP} warm-up "
            "draws the step size and metric are rarely adapted"
        )
    return table, spec, sampler, init, words, cautions


def integer_seed(seed: np.random.SeedSequence) -> int:
    """A seed as one integer."""
    return int(seed.generate_state(1)[0])


def attributes(
    spec: ModelSpec,
    sampler: Sampler,
    draws: Draws,
    words: np.ndarray,
    device: jax.Device,
) -> dict[str, Any]:
    """What the run was, as strings and integers."""
    packages = ("gmm_bayes", "jax", "jaxlib", "numpyro", "numpy", "scikit-learn")
    return {
        "format": storage.FORMAT,
        "format_version": storage.FORMAT_VERSION,
        **spec._asdict(),
        "sampler": json.dumps({"kind": type(sampler).__name__, **dataclasses.asdict(sampler)}),
        "run": json.dumps(draws.facts),
        "seed": json.dumps([int(word) for word in words]),
        "device": device_name(device),
        "timings": json.dumps(draws.seconds),
        "versions": json.dumps({name: version(name) for name in packages}),
        "problems": json.dumps([]),
    }


def device_name(device: jax.Device) -> str:
    """The kind of a device, in words."""
    return " ".join(dict.fromkeys((device.platform, device.device_kind)))


def judge(fitted: GMMFit) -> GMMFit:
    """Write the verdict into the record and warn the caller's caller if it is not a good one."""
    diagnosis = record_verdict(fitted)
    if not diagnosis.ok:
        warnings.warn(
            "do not believe these chains yet: "
            + "; ".join(diagnosis.problems)
            + ". "
            + " ".join(diagnosis.advice),
            ConvergenceWarning,
            stacklevel=3,
        )
    elif diagnosis.switched:
        warnings.warn(
            " ".join(
                s[0].upper() + s[1:] + "." * (s[-1] != ".")
                for s in (diagnosis.notes[0], *diagnosis.advice)
            ),
            LabelSwitchingWarning,
            stacklevel=3,
        )
    return fitted
