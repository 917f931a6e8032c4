"""fit(): validate, initialise, sample, label, judge."""

import dataclasses
import json
import logging
import time
import warnings
from functools import cache
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

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
from gmm_bayes._vocabulary import PRECISIONS, CovarianceType, InitMethod, Precision
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import ConvergenceWarning, LabelSwitchingWarning
from gmm_bayes.inference import storage
from gmm_bayes.inference.compilation import forget_programs, persistent_cache
from gmm_bayes.inference.devices import double_precision
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
from gmm_bayes.inference.placement import Placement, agree
from gmm_bayes.inference.potential import Data, ModelSpec, log_prior, space
from gmm_bayes.inference.progress import wanted
from gmm_bayes.inference.result import GMMFit
from gmm_bayes.inference.samplers import NUTS, Laplace
from gmm_bayes.inference.standardization import Standardization
from gmm_bayes.model.priors import PriorArrays, Priors, default_priors

__all__ = ["fit"]

logger = logging.getLogger(__name__)

_FEW_WARMUP = 100


def fit(
    X: Any,
    n_components: int,
    *,
    covariance_type: CovarianceType = "full",
    priors: Priors | None = None,
    sampler: NUTS | Laplace | None = None,
    init: InitMethod | MixtureParameters = "kmeans",
    n_init: int = 10,
    seed: Any = 0,
    device: str = "auto",
    mesh: int | Mesh | None = None,
    precision: Precision = "float64",
    progress: bool | None = None,
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
    sampler : NUTS or Laplace, optional
        None takes `NUTS()`.
    init : {"kmeans", "k-means++", "random", "random_from_data"} or MixtureParameters
        Where EM begins; every chain starts near the best EM solution. Parameters, in the units of
        the data, are taken as that solution.
    n_init : int
        Number of EM starts.
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

    Warns
    -----
    ConvergenceWarning
        Once, if the chains should not be believed; see `diagnose`.
    LabelSwitchingWarning
        If they may be, but components changed places: `align_labels` puts that right.
    DataWarning
        If the data are too few for what is asked.

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
    where = Placement.of(device, mesh)
    n_obs, n_features = table.values.shape
    plan = where.plan(sampler, n_obs, space(spec, n_features), precision)
    prior_seed, em_seed, *chain_seeds = np.random.SeedSequence(words).spawn(2 + sampler.num_chains)
    begin = time.perf_counter()
    if priors is None:
        priors = default_priors(table.values, spec.n_components, seed=_integer(prior_seed))
    elif not isinstance(priors, Priors):
        raise TypeError(f"priors must be a gmm_bayes.Priors, got {type(priors).__name__}")
    priors = priors.with_centers(table.values, spec.n_components, seed=_integer(prior_seed))
    prior = priors.arrays(spec.n_components, table.values.shape[1])
    for caution in cautions:
        warn_data(caution)

    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    units = Standardization.of(table.values, structure)
    forget_programs()
    with persistent_cache(), double_precision(), jax.default_device(where.device):
        prior = PriorArrays(*agree(prior, where.mesh))
        standard = PriorArrays(*units.apply_to_priors(prior))
        some = units.apply(table.values[some_rows(len(table.values), _integer(em_seed))])

        @cache
        def find_start() -> MixtureParameters:
            if isinstance(init, MixtureParameters):
                solution = units.apply_to_parameters(init)
            else:
                solution = em_start(some, spec, init=init, n_init=n_init, seed=_integer(em_seed))
            return MixtureParameters(*agree(match_to_prior(solution, standard), where.mesh))

        rows = where.blocks(table.values, units, precision, plan.rows_per_block, find_start)
        data = Data(rows, where.everywhere(log_prior(standard, spec)))
        rngs = [np.random.default_rng(seed) for seed in chain_seeds]
        problem = Problem(data, spec, n_obs, find_start, rngs, plan.grouping)
        prepared = time.perf_counter()
        draws = sampler.run(problem, progress=wanted(progress) and jax.process_index() == 0)
        draws.seconds["initialise"] += prepared - begin
        tree = label_draws(draws, table, prior, units, structure)
    draws.facts.update(where.facts, precision=precision, **plan.facts)
    tree.attrs = _attributes(spec, sampler, draws, words, where.device)
    return _judge(GMMFit(tree))


def _check(
    X: Any,
    n_components: Any,
    covariance_type: Any,
    sampler: Any,
    init: Any,
    n_init: Any,
    seed: Any,
) -> tuple[Table, ModelSpec, NUTS | Laplace, InitMethod | MixtureParameters, np.ndarray, list[str]]:
    """Refuse what cannot be fitted, before anything long begins."""
    check_n_components(n_components)
    check_choice(covariance_type, "covariance_type", tuple(COVARIANCE_STRUCTURES))
    sampler = NUTS() if sampler is None else sampler
    if not isinstance(sampler, NUTS | Laplace):
        raise TypeError(
            f"sampler must be a gmm_bayes.NUTS(...) or gmm_bayes.Laplace(...), got {sampler!r}"
        )
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


def _integer(seed: np.random.SeedSequence) -> int:
    return int(seed.generate_state(1)[0])


def _attributes(
    spec: ModelSpec,
    sampler: NUTS | Laplace,
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
        "device": " ".join(dict.fromkeys((device.platform, device.device_kind))),
        "timings": json.dumps(draws.seconds),
        "versions": json.dumps({name: version(name) for name in packages}),
        "problems": json.dumps([]),
    }


def _judge(fitted: GMMFit) -> GMMFit:
    """Write the verdict into the record and warn, once, if it is not a good one."""
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
