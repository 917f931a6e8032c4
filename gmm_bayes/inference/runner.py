"""fit(): validate, initialise, sample, label, judge."""

import dataclasses
import json
import logging
import time
import warnings
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

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
from gmm_bayes._vocabulary import CovarianceType, InitMethod
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import ConvergenceWarning, InferenceError
from gmm_bayes.inference import storage
from gmm_bayes.inference.devices import double_precision, find_device
from gmm_bayes.inference.diagnostics import diagnose
from gmm_bayes.inference.initialization import (
    check_init,
    check_start,
    em_start,
    jitter,
    match_to_prior,
)
from gmm_bayes.inference.labelling import label_draws
from gmm_bayes.inference.potential import Data, ModelSpec, potential, site_values, unconstrain
from gmm_bayes.inference.progress import wanted
from gmm_bayes.inference.result import GMMFit
from gmm_bayes.inference.samplers import NUTS, Draws
from gmm_bayes.inference.standardization import Standardization
from gmm_bayes.model.priors import PriorArrays, Priors, default_priors

__all__ = ["fit"]

logger = logging.getLogger(__name__)

_START_ATTEMPTS = 5
_FEW_WARMUP = 100


def fit(
    X: Any,
    n_components: int,
    *,
    covariance_type: CovarianceType = "full",
    priors: Priors | None = None,
    sampler: NUTS | None = None,
    init: InitMethod | MixtureParameters = "kmeans",
    n_init: int = 10,
    seed: Any = 0,
    device: str = "auto",
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
    sampler : NUTS, optional
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
    progress : bool, optional
        Draw a progress bar. None draws one on a terminal or in a notebook, not in CI.

    Returns
    -------
    GMMFit
        Draws with shapes (chain, draw, ...) in the units of the data, computed in float64 whatever
        JAX's global setting.

    Raises
    ------
    TypeError, ValueError
        If the data or an option are not usable; nothing long has been done by then.
    DeviceError
        If the device is not there.
    InferenceError
        If no finite starting point is found.

    Warns
    -----
    ConvergenceWarning
        Once, if the chains should not be believed; see `diagnose`.
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
    chosen_device = find_device(device)
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
    with double_precision(), jax.default_device(chosen_device):
        Z = units.apply(table.values)
        data = Data(
            jax.device_put(block_rows(Z)),
            PriorArrays(*map(jax.device_put, units.apply_to_priors(prior))),
        )
        solution = (
            units.apply_to_parameters(init)
            if isinstance(init, MixtureParameters)
            else em_start(Z, spec, init=init, n_init=n_init, seed=_integer(em_seed))
        )
        solution = match_to_prior(solution, data.prior)
        rngs = [np.random.default_rng(s) for s in chain_seeds]
        starts = _finite_starts(solution, len(Z), data, spec, rngs)
        keys = np.stack([rng.integers(0, 2**32, 2, dtype=np.uint32) for rng in rngs])
        initialised = time.perf_counter()
        draws = sampler.run(starts, keys, data, spec, progress=wanted(progress))
        tree = label_draws(draws, table, prior, units, structure)
    tree.attrs = _attributes(spec, sampler, draws, words, chosen_device, initialised - begin)
    return _judge(GMMFit(tree))


def _check(
    X: Any,
    n_components: Any,
    covariance_type: Any,
    sampler: Any,
    init: Any,
    n_init: Any,
    seed: Any,
) -> tuple[Table, ModelSpec, NUTS, InitMethod | MixtureParameters, np.ndarray, list[str]]:
    """Refuse what cannot be fitted, before anything long begins."""
    check_n_components(n_components)
    check_choice(covariance_type, "covariance_type", tuple(COVARIANCE_STRUCTURES))
    sampler = NUTS() if sampler is None else sampler
    if not isinstance(sampler, NUTS):
        raise TypeError(f"sampler must be a gmm_bayes.NUTS(...), got {sampler!r}")
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
    if sampler.num_warmup < _FEW_WARMUP:
        cautions.append(
            f"num_warmup={sampler.num_warmup} is short: below {_FEW_WARMUP} warm-up "
            "draws the step size and metric are rarely adapted"
        )
    return table, spec, sampler, init, words, cautions


def _integer(seed: np.random.SeedSequence) -> int:
    return int(seed.generate_state(1)[0])


def _finite_starts(
    solution: MixtureParameters,
    n_obs: int,
    data: Data,
    spec: ModelSpec,
    rngs: list[np.random.Generator],
) -> np.ndarray:
    """One unconstrained start per chain with a finite density and gradient there."""
    for _ in range(_START_ATTEMPTS):
        points = [site_values(jitter(solution, spec, n_obs, rng), spec) for rng in rngs]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *points)
        starts, values, gradients = _prepare(stacked, data, spec=spec)
        if np.isfinite(values).all() and np.isfinite(gradients).all():
            return np.asarray(starts)
    raise InferenceError(
        f"the log density is not finite at {_START_ATTEMPTS} sets of starting points near the EM "
        "solution: check the priors against the units of the data, or give init=MixtureParameters"
    )


@partial(jax.jit, static_argnames="spec")
def _prepare(sites: dict[str, Any], data: Data, spec: ModelSpec) -> tuple[Any, Any, Any]:
    """Unconstrained vectors of one start per chain, with the potential and its gradient there."""

    def one(sites: dict[str, Any]) -> tuple[Any, Any, Any]:
        z = unconstrain(sites, data, spec)
        return z, *jax.value_and_grad(potential)(z, data, spec)

    return jax.vmap(one)(sites)


def _attributes(
    spec: ModelSpec,
    sampler: NUTS,
    draws: Draws,
    words: np.ndarray,
    device: jax.Device,
    initialise_seconds: float,
) -> dict[str, Any]:
    """What the run was, as strings and integers."""
    seconds = {
        "initialise": initialise_seconds,
        "compile": draws.compile_seconds,
        "sample": draws.sample_seconds,
    }
    packages = ("gmm_bayes", "jax", "jaxlib", "numpyro", "numpy", "scikit-learn")
    return {
        "format": storage.FORMAT,
        "format_version": storage.FORMAT_VERSION,
        **spec._asdict(),
        "sampler": json.dumps(dataclasses.asdict(sampler)),
        "chain_method": draws.chain_method,
        "seed": json.dumps([int(word) for word in words]),
        "device": " ".join(dict.fromkeys((device.platform, device.device_kind))),
        "timings": json.dumps(seconds),
        "versions": json.dumps({name: version(name) for name in packages}),
        "problems": json.dumps([]),
    }


def _judge(fitted: GMMFit) -> GMMFit:
    """Write the verdict into the record and warn, once, if it is not a good one."""
    diagnosis = diagnose(fitted)
    fitted.datatree.attrs["problems"] = json.dumps(diagnosis.problems)
    if not diagnosis.ok:
        warnings.warn(
            "do not believe these chains yet: "
            + "; ".join(diagnosis.problems)
            + ". "
            + " ".join(diagnosis.advice),
            ConvergenceWarning,
            stacklevel=3,
        )
    return fitted
