"""fit_many(): check every data set, find starts, sample all of them together."""

import hashlib
import time
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gmm_bayes._validation import (
    WIDE_FROM_PRIOR,
    check_choice,
    check_columns,
    check_data,
    check_fit_size,
    check_integer,
    check_n_components,
    check_seed,
    warn_data,
)
from gmm_bayes._vocabulary import INIT_METHODS, CovarianceType, InitMethod
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.errors import ConvergenceWarning
from gmm_bayes.inference.arguments import check_model
from gmm_bayes.inference.batch.draws import ManyDraws
from gmm_bayes.inference.batch.result import ManyFits, index_of
from gmm_bayes.inference.batch.sampling import sample_many, stack
from gmm_bayes.inference.batch.store import DataSet
from gmm_bayes.inference.batch.weighted import weigh_many
from gmm_bayes.inference.em.starts import check_n_init, em_starts, match_to_prior
from gmm_bayes.inference.potential import Data, ModelSpec, log_prior, site_values, space
from gmm_bayes.inference.rescue import rescued, save_arrays
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.run import attributes
from gmm_bayes.inference.sampling.laplace import Laplace
from gmm_bayes.inference.sampling.nuts import NUTS
from gmm_bayes.inference.sampling.problem import Draws
from gmm_bayes.inference.sampling.registry import check_sampler
from gmm_bayes.machine.compilation import forget_programs, persistent_cache
from gmm_bayes.machine.devices import double_precision, find_device
from gmm_bayes.machine.progress import wanted
from gmm_bayes.model.priors import PriorArrays, Priors

__all__ = ["fit_many"]


def fit_many(
    datasets: Mapping[Hashable, Any] | Sequence[Any],
    n_components: int,
    *,
    covariance_type: CovarianceType = "full",
    priors: Priors | None = None,
    sampler: NUTS | Laplace | None = None,
    init: InitMethod = "auto",
    n_init: int | None = None,
    seed: Any = 0,
    device: str = "auto",
    progress: bool | None = None,
    max_gradients: int | None = None,
) -> ManyFits:
    """Sample the posteriors of many small data sets of the same columns, together.

    All of them are filled up to the number of rows of the largest and go through one compiled
    program, block by block: for thousands of genes, pixels or customers that is far quicker than a
    loop over `fit`, and the posteriors are the same.

    Parameters
    ----------
    datasets : dict of name to table, or sequence of tables
        Each of shape (n_obs, n_features), as `fit` takes it; n_obs may differ. For a table with a
        column of groups: `{name: rows[columns] for name, rows in table.groupby("gene")}`.
    n_components : int
        Number of components of every mixture.
    covariance_type : {"full", "tied", "diag", "spherical"}
    priors : Priors, optional
        For all sets. None takes `default_priors` of each; what is left to the data is filled from
        each.
    sampler : NUTS or Laplace, optional
        None takes `NUTS()`. Its `chain_method` plays no part: chains of a block run together.
    init : {"auto", "kmeans", "k-means++", "random", "random_from_data"}
        Where EM begins: "auto" takes starts of many kinds, as `fit` does, but fewer.
    n_init : int, optional
        Number of EM starts for each set. None takes 8 for each component, from 16 to 48, or 10 of
        a kind that is named.
    seed : int in [0, 2**32) or JAX key
        A set's draws depend on the seed and its own rows, and but for rounding not on the sets
        beside it or on its place.
    device : {"auto", "cpu", "gpu"}
    progress : bool, optional
        Draw a progress bar of the sets that are finished. None draws one on a terminal or in a
        notebook, not in CI.
    max_gradients : int, optional
        Gradients that the chains of one set may take where its trajectories are long, before it is
        stopped with the draws that it has. None takes 256 for each draw, warm-up included; the sets
        that need more are hardly ever believed in the end.

    Returns
    -------
    ManyFits
        `fits[name]` is the `GMMFit` of one set, `fits.table()` a line for each.

    Raises
    ------
    TypeError, ValueError
        If a data set or an option is not usable; the message names the set, and nothing long has
        been done by then.
    DeviceError
        If the device is not there.
    InferenceError
        If no finite starting point of a set is found.

    Warns
    -----
    ConvergenceWarning
        Once, if the chains of some sets should not be believed.
    DataWarning
        Once, if some data are too few for what is asked.

    Notes
    -----
    Chains of small sets, whose posteriors are seldom normal, do well in the coordinates of the
    curvature at the mode more often than `fit` can know beforehand. Here it is tried where the
    posterior is not far from normal, and sets of whose chains `table` says that they are not ok are
    sampled again as `fit` would. `table` counts the gradients of both.

    A block is as slow as the longest trajectory in it. So chains of sets that are far from normal,
    or whose trajectories turn out long, run by themselves on a CPU, and nobody waits for them.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> X = gb.datasets.load_old_faithful()
    >>> halves = {"early": X[:136], "late": X[136:]}
    >>> fits = gb.fit_many(halves, 2, sampler=gb.NUTS(num_samples=300), seed=1)
    >>> fits["late"].posterior["means"].mean(("chain", "draw")).round(0).values
    array([[ 2., 54.],
           [ 4., 80.]])
    """
    begin = time.perf_counter()
    check_choice(init, "init", INIT_METHODS)
    check_n_init(n_init)
    spec, sampler = _check_options(n_components, covariance_type, priors, sampler)
    seed = check_seed(seed)
    if max_gradients is not None:
        max_gradients = check_integer(max_gradients, "max_gradients", 1)
    tables = _tables(datasets, spec)
    chosen_device = find_device(device)
    seeds = {name: _seeds(seed, table.values) for name, table in tables.items()}
    sets = [_data_set(name, t, spec, priors) for name, t in tables.items()]
    empty = Draws({}, {}, {}, {})
    described = attributes(spec, sampler, empty, seed, chosen_device)
    judged: list[ManyFits] = []

    def trusted(draws: ManyDraws) -> np.ndarray:
        judged.append(ManyFits(sets, draws, spec, described))
        with rescued("the verdict", ".npz", partial(_save, draws)):
            return judged[0].table()["ok"].to_numpy()

    forget_programs()
    with persistent_cache(), double_precision(), jax.default_device(chosen_device):
        em_seeds = [int(seeds[one.name][0].generate_state(1)[0]) for one in sets]
        data, starts = _starts(sets, spec, init, n_init, em_seeds)
        prepared = time.perf_counter()
        own = [seeds[one.name][1] for one in sets]
        how: dict[str, Any] = {"device": chosen_device, "progress": wanted(progress)}
        if isinstance(sampler, Laplace):
            draws = weigh_many(data, starts, spec, sampler, own, **how)
        else:
            how.update(trusted=trusted, budget=max_gradients)
            draws = sample_many(*data, starts, spec, sampler, own, **how)
    draws.seconds["initialise"] += prepared - begin
    # What was judged is what is returned, unless some sets were sampled once more.
    seen = judged[0].table()["n_gradients"].to_numpy() if judged else None
    redone = seen is None or (seen != draws.facts["n_gradients"]).any()
    fits = ManyFits(sets, draws, spec, described) if redone else judged[0]
    with rescued("the verdict", ".npz", partial(_save, draws)):
        fits.table()
    _warn(fits)
    return fits


def _starts(
    sets: list[DataSet],
    spec: ModelSpec,
    init: InitMethod,
    n_init: int | None,
    seeds: list[int],
) -> tuple[Data, np.ndarray]:
    """Rows and priors in standard units, with a leading axis of sets, and where searches begin."""
    room = max(len(one.table.values) for one in sets)
    standard = [PriorArrays(*one.units.apply_to_priors(one.prior)) for one in sets]
    values = [one.units.apply(one.table.values) for one in sets]
    rows = stack([block_rows(X, room=room) for X in values])
    solutions = em_starts(values, rows, spec, init=init, n_init=n_init, seeds=seeds)
    matched = [
        match_to_prior(solution, prior, len(X))
        for solution, prior, X in zip(solutions, standard, values, strict=True)
    ]
    here = space(spec, values[0].shape[1])
    starts = np.stack([here.vector(site_values(one, spec)) for one in matched])
    return Data(rows, stack([log_prior(prior, spec) for prior in standard])), starts


def _save(draws: ManyDraws, path: Path) -> str:
    """Write all draws down, where they cannot be judged."""
    arrays = {
        "z": draws.z,
        **{f"stats.{name}": values for name, values in draws.stats.items()},
        **{f"facts.{name}": values for name, values in draws.facts.items()},
    }
    return save_arrays(arrays, "z of shape (set, chain, draw, dimension), unconstrained", path)


def _check_options(
    n_components: Any, covariance_type: Any, priors: Any, sampler: Any
) -> tuple[ModelSpec, Any]:
    """Refuse what no set could be fitted with."""
    return check_model(n_components, covariance_type, priors), check_sampler(sampler, many=True)


def _tables(datasets: Any, spec: ModelSpec) -> dict[Hashable, Any]:
    """Check every data set; the message of an error names the set."""
    if isinstance(datasets, Mapping):
        named = dict(datasets)
    elif isinstance(datasets, Sequence) and not isinstance(datasets, str | bytes):
        named = dict(enumerate(datasets))
    else:
        raise TypeError(
            "datasets must be a dict of name to table or a list of tables, got "
            f"{type(datasets).__name__}; for one table use fit"
        )
    if not named:
        raise ValueError("datasets must hold at least one table, got none")
    index_of(list(named))  # The table will need one: what is wrong with it comes before the work.
    tables: dict[Hashable, Any] = {}
    cautions: list[str] = []
    names: tuple[str, ...] = ()
    for name, X in named.items():
        try:
            table = check_data(X, min_rows=2)
            names = names or table.feature_names
            ordered = check_columns(table, names)
            if table.named and set(table.feature_names) == set(names):
                table = replace(table, values=ordered, feature_names=names)
            k, d = check_n_components(spec.n_components, len(table.values)), len(names)
            structure = COVARIANCE_STRUCTURES[spec.covariance_type]
            wide = WIDE_FROM_PRIOR if structure.has_correlations(d) else None
            n_parameters, flattens = structure.n_parameters(k, d), structure.can_flatten(d)
            found = check_fit_size(table, k, n_parameters, wide=wide, flattens=flattens)
        except (TypeError, ValueError) as error:
            raise type(error)(f"data set {name!r}: {error}") from error
        cautions += [f"data set {name!r}: {caution}" for caution in found[:1]]
        tables[name] = table
    if cautions:
        warn_data(f"{len(cautions)} of {len(tables)} data sets need a look; {cautions[0]}")
    return tables


def _seeds(seed: np.ndarray, X: np.ndarray) -> list[np.random.SeedSequence]:
    """Seeds of a set's EM starts and chains: of the user's seed and its rows.

    Not of its place, so that it may stand anywhere; and not of the seed alone, or the errors of
    all sets' averages would be alike.
    """
    digest = hashlib.sha256(np.ascontiguousarray(X).tobytes()).digest()
    own = np.frombuffer(digest[:16], np.uint32)
    return np.random.SeedSequence([*map(int, seed), *map(int, own)]).spawn(2)


def _data_set(name: Hashable, table: Any, spec: ModelSpec, priors: Priors | None) -> DataSet:
    k = spec.n_components
    own = (priors or Priors()).with_centers(table, k)
    units = Standardization.of(table.values, COVARIANCE_STRUCTURES[spec.covariance_type])
    return DataSet(name, table, own.arrays(k, table.values.shape[1]), units)


def _warn(fits: ManyFits) -> None:
    """Warn, once, if some draws should not be believed."""
    table = fits.table()
    bad = table[~table["ok"]]
    if not len(bad):
        return
    # The names themselves: an index of tuples makes other tuples of numbers in them.
    first = fits.names[int(np.argmin(table["ok"].to_numpy()))]
    chains = fits.sampler.judged_by == "chains"
    cut = int((table["n_draws"] < fits.sampler.num_samples).sum())
    found = f"do not believe the {'chains' if chains else 'draws'} of "
    why = "were stopped by max_gradients" if chains else "have no normal approximation"
    short = f" {cut} of them {why}." if cut else ""
    advice = (
        "Run more draws (num_warmup, num_samples), or take fewer components."
        if chains
        else "Sample those with NUTS()."
    )
    warnings.warn(
        f"{found}{len(bad)} of {len(fits)} data sets yet, such as {first!r}: fits.table() lists "
        f"them, diagnose(fits[name]) says why.{short} {advice}",
        ConvergenceWarning,
        stacklevel=3,
    )
