"""fit_em(): maximum likelihood, from checked data to the best regular solution of many starts."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pandas as pd

from gmm_bayes._validation import (
    Table,
    check_choice,
    check_data,
    check_fit_size,
    check_flag,
    check_integer,
    check_n_components,
    check_nonnegative,
    check_row_weights,
    check_seed,
    warn_data,
)
from gmm_bayes._vocabulary import CovarianceType, InitMethod
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import RowBlocks, block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import InferenceError
from gmm_bayes.inference.em.cautions import small_weights, wide_caution
from gmm_bayes.inference.em.degenerate import REASONS, Judge, singular_advice
from gmm_bayes.inference.em.optima import Optima, find_optima, follow_all
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.em.starts import (
    check_init,
    check_n_init,
    check_start,
    integer_seed,
    some_rows,
)
from gmm_bayes.inference.em.steps import (
    LEAST_FLOOR,
    ROWS_PER_BLOCK,
    EMSettings,
    Solutions,
    e_step,
    is_singular,
    why_singular,
)
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.machine.compilation import forget_programs, persistent_cache
from gmm_bayes.machine.devices import double_precision, find_device
from gmm_bayes.model.centres import few_threads

__all__ = ["fit_em", "search"]

# The program holds the log-likelihood after each iteration of each start.
_MOST_ITERATIONS = 100_000


def fit_em(
    X: Any,
    n_components: int,
    *,
    covariance_type: CovarianceType = "full",
    n_init: int | None = None,
    init: InitMethod | MixtureParameters = "auto",
    tol: float = 1e-6,
    reg_covar: float = LEAST_FLOOR,
    max_iter: int = 500,
    sample_weight: Any = None,
    hard: bool = False,
    seed: Any = 0,
    device: str = "auto",
) -> EMFit:
    """Fit a Gaussian mixture by maximum likelihood: expectation-maximisation from many starts.

    Parameters
    ----------
    X : array, pandas, polars or xarray object, shape (n_obs, n_features)
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}
        How components share covariance parameters, named as in scikit-learn.
    n_init : int, optional
        Number of starts. None takes 10 of a kind that is named; with "auto" 32 for each
        component and at most 192, fewer where rows are many, to which regroupings are added. Above
        20,000 rows starts are compared on a random 20,000, and the best goes on with all.
    init : {"auto", "kmeans", "k-means++", "random", "random_from_data"} or MixtureParameters
        Where EM begins. "auto" takes many kinds of start: k-means, random rows and hierarchical
        cuts, in the columns' units, in sphered coordinates and in random projections, run for a few
        iterations and the best that differ followed [3]_; then components of the best are merged
        and split [4]_ until rounds of that have found nothing better: six rounds, fewer where rows
        are many. Of starts of a kind that is named, every other one begins at rows of the data,
        because k-means misleads on elongated groups; "random" is left as it is. Parameters, in the
        units of the data, are the only start.
    tol : float
        A start has converged when the mean log density of a row changes by no more, in nats.
    reg_covar : float
        Added to every variance, relative to the variance of its column. The default keeps no more
        than rounding away; more biases components that are narrow beside the whole column, as
        those of groups that are far apart.
    max_iter : int
        Of each start, at most 100,000.
    sample_weight : array, shape (n_obs,), optional
        How often each row counts. A row with weight two is the same as two such rows, so criteria
        take the sum for the number of rows. Whether a component rests on too few is judged by the
        rows that there are.
    hard : bool
        Classification EM: each row belongs wholly to its most probable component, which is the
        assignment of k-means where weights are equal and covariances equal and spherical [2]_.
    seed : int in [0, 2**32) or JAX key
    device : {"auto", "cpu", "gpu"} or with an index, as "gpu:1"

    Returns
    -------
    EMFit
        The solution of highest likelihood among those in which every component has some extent, is
        wider than the recording of the rows, and is not one that chance makes of a few rows [5]_;
        another one only if there is none, and then with a warning.

    Raises
    ------
    TypeError, ValueError
        If the data or an option are not usable.
    InferenceError
        If no start has a finite likelihood.

    Warns
    -----
    DataWarning
        If every solution has such a component, the data have traps, or weights sum to
        far below the number of rows.

    References
    ----------
    .. [1] A. P. Dempster, N. M. Laird, D. B. Rubin (1977). Maximum likelihood from incomplete data
       via the EM algorithm. JRSS B 39.
    .. [2] G. Celeux, G. Govaert (1992). A classification EM algorithm for clustering and two
       stochastic versions. Computational Statistics and Data Analysis 14.
    .. [3] C. Biernacki, G. Celeux, G. Govaert (2003). Choosing starting values for the EM algorithm
       for getting the highest likelihood in multivariate Gaussian mixture models. Computational
       Statistics and Data Analysis 41.
    .. [4] N. Ueda, R. Nakano, Z. Ghahramani, G. E. Hinton (2000). SMEM algorithm for mixture
       models. Neural Computation 12.
    .. [5] G. McLachlan, D. Peel (2000). Finite Mixture Models, section 3.10: spurious local
       maximizers. Wiley.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> best = gb.fit_em(gb.datasets.load_old_faithful(), 2)
    >>> round(best.log_likelihood, 2), best.converged
    (-1130.26, True)
    """
    check_n_components(n_components)
    check_choice(covariance_type, "covariance_type", tuple(COVARIANCE_STRUCTURES))
    check_init(init)
    n_init, max_iter = check_n_init(n_init), _check_iterations(max_iter)
    hard = check_flag(hard, "hard")
    settings = EMSettings(
        check_nonnegative(tol, "tol"), check_nonnegative(reg_covar, "reg_covar"), max_iter, hard
    )
    seed = integer_seed(check_seed(seed))
    chosen_device = find_device(device)
    table = check_data(X, min_rows=2)
    row_weights = check_row_weights(sample_weight, len(table.values))
    # A row that does not count must not set the units either.
    counted = slice(None) if row_weights is None else row_weights > 0
    used = dataclasses.replace(table, values=table.values[counted], index=table.index[counted])
    spec = ModelSpec(check_n_components(n_components, len(used.values)), covariance_type)
    if isinstance(init, MixtureParameters):
        init = check_start(init, spec.n_components, used.values.shape[1])
    structure, n_features = COVARIANCE_STRUCTURES[covariance_type], used.values.shape[1]
    wide, flattens = wide_caution([structure], n_features), structure.can_flatten(n_features)
    for caution in check_fit_size(used, spec.n_components, 0, wide=wide, flattens=flattens):
        warn_data(caution)
    if row_weights is not None and (said := small_weights(row_weights)):
        warn_data(said)
    # In units of their mean, because very small counts would drown in what is added to them.
    unit = 1.0 if row_weights is None else float(row_weights[counted].mean())
    counts = None if row_weights is None else row_weights[counted] / unit
    with jax.default_device(chosen_device):
        found = search(used, counts, spec, settings, init=init, n_init=n_init, seed=seed)
    if found.singular:
        said = singular_advice(found.why_singular)
        warn_data(f"the best fit with {n_components} components {said}")
    return dataclasses.replace(
        found,
        log_likelihood=unit * found.log_likelihood,
        trace=unit * found.trace,
        table=table,
        row_weights=row_weights,
    )


def search(
    table: Table,
    row_weights: np.ndarray | None,
    spec: ModelSpec,
    settings: EMSettings,
    *,
    init: InitMethod | MixtureParameters,
    n_init: int | None,
    seed: int,
    room: int = 0,
) -> EMFit:
    """Run EM on checked data; with `room` for so many rows, smaller tables share its programs.

    Raises
    ------
    InferenceError
        If no start has a finite likelihood.
    """
    X = table.values
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    units = Standardization.of(X, structure, row_weights)
    forget_programs()
    with persistent_cache(), double_precision(), few_threads(X):
        rows = _blocks(X, units, row_weights, room)
        some = slice(None) if isinstance(init, MixtureParameters) else some_rows(len(X), seed)
        counts = None if row_weights is None else row_weights[some]
        few = rows if isinstance(some, slice) else _blocks(X[some], units, counts)
        judge = Judge.of(units.apply(X[some]), structure, settings.reg_covar)
        settings = settings._replace(judge=judge)
        if isinstance(init, MixtureParameters):
            moments = _moments_at(units.apply_to_parameters(init), rows, settings)
            found = follow_all(moments, ["given"], rows, spec, settings)
        else:
            how: dict[str, Any] = {
                "init": init,
                "n_init": n_init,
                "seed": seed,
                "row_weights": counts,
            }
            found = find_optima(units.apply(X[some]), few, spec, settings, **how)
        starts, n_starts = _table_of_starts(found, few, units, settings), found.n_starts
        if few is not rows:
            winner = jax.tree.map(lambda a: a[0], found.solutions.mixture)
            moments = _moments_at(winner, rows, settings)
            found = follow_all(moments, found.led[0][:1], rows, spec, settings)
        best: Solutions = jax.tree.map(lambda a: a[0], found.solutions)
        total = float(best.log_likelihood)
        if settings.hard and np.isfinite(total):
            total = float(e_step(jax.device_put(best.mixture), rows)[0])
    if not np.isfinite(total):
        raise InferenceError(
            "no start of EM has a finite likelihood, because a covariance has no inverse; take a "
            f"larger reg_covar than {settings.reg_covar:g}"
        )
    shift = units.log_volume * float(np.asarray(rows.weights).sum())
    return EMFit(
        units.restore_parameters(_in_order(best.mixture, init)),
        spec.covariance_type,
        total - shift,
        best.trace[: best.n_iter] - shift,
        bool(best.converged),
        REASONS[why_singular(found.solutions, settings)[0]],
        starts,
        n_starts,
        table,
        row_weights,
    )


def _check_iterations(max_iter: Any) -> int:
    """Return a number of iterations whose trace, a number for each of each start, is no burden."""
    if check_integer(max_iter, "max_iter", 1) > _MOST_ITERATIONS:
        raise ValueError(
            f"max_iter must be at most {_MOST_ITERATIONS:,}, got {max_iter}; EM that has not "
            "converged by then will not: raise tol"
        )
    return int(max_iter)


def _blocks(
    X: np.ndarray, units: Standardization, row_weights: np.ndarray | None, room: int = 0
) -> RowBlocks:
    """Rows on the device in standard units, in blocks for a program that has all cores."""
    return jax.device_put(
        block_rows(
            X,
            rows_per_block=ROWS_PER_BLOCK,
            row_weights=row_weights,
            room=room,
            transform=units.apply,
        )
    )


def _moments_at(mixture: Any, rows: RowBlocks, settings: EMSettings) -> Any:
    """Moments, shape (1, K, D + 1, D + 1), of one start at a mixture in standard units."""
    return e_step(jax.device_put(mixture), rows, hard=settings.hard)[1][None]


def _table_of_starts(
    found: Optima, rows: RowBlocks, units: Standardization, settings: EMSettings
) -> pd.DataFrame:
    per_row = found.solutions.log_likelihood / np.asarray(rows.weights).sum()
    return pd.DataFrame(
        {
            "init": np.array([kinds[0] for kinds in found.led], dtype=object),
            "n_starts": [len(kinds) for kinds in found.led],
            "log_likelihood_per_row": per_row - units.log_volume,
            "n_iter": found.solutions.n_iter,
            "converged": found.solutions.converged,
            "singular": is_singular(found.solutions, settings),
        }
    )


def _in_order(mixture: MixtureParameters, init: Any) -> MixtureParameters:
    """Components by their means, so that their numbers do not depend on the start that won."""
    if isinstance(init, MixtureParameters):
        return mixture
    order = np.lexsort(np.round(np.asarray(mixture.means), 8).T[::-1])
    return MixtureParameters(*(a[order] for a in mixture))
