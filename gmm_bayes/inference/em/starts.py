"""Where chains begin: an EM solution, its components matched to the prior, jittered per chain."""

import logging
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import linear_sum_assignment

from gmm_bayes._validation import check_choice, check_finite, check_integer
from gmm_bayes._vocabulary import AUTO, INIT_METHODS, InitMethod
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import RowBlocks, block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.guesses import Rows, guesses, named_kinds, portfolio
from gmm_bayes.inference.em.optima import NAMED_STARTS, SHORT, Optima, find_optima, leaders
from gmm_bayes.inference.em.steps import (
    ROWS_PER_BLOCK,
    VARIANCE_FLOOR,
    EMSettings,
    Solutions,
    maximise,
    on_floor,
    ranking,
)
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.machine.compilation import compiled
from gmm_bayes.model.centres import few_threads
from gmm_bayes.model.priors import PriorArrays

__all__ = [
    "check_init",
    "check_n_init",
    "check_start",
    "em_start",
    "em_starts",
    "integer_seed",
    "jitter",
    "match_to_prior",
    "nearest_centres",
    "some_rows",
]

logger = logging.getLogger(__name__)

# Data sets whose EM runs in one program: all wait for the slowest.
_SETS_TOGETHER = 64
# Of each of those: starts for each component, the fewest and the most, and those that are followed
# to their ends.
_STARTS_EACH, _STARTS_IN_ALL, _FOLLOWED = 8, (16, 48), 8
# Starts are tried on so many rows, drawn at random: the best of them is followed on all rows by the
# search for the mode, or by the chains themselves.
_MANY_ROWS = 20_000


def some_rows(n_obs: int, seed: int) -> slice | np.ndarray:
    """Positions of rows that are enough to compare starts on: all of them, or a random 20,000."""
    if n_obs <= _MANY_ROWS:
        return slice(None)
    return np.random.default_rng(seed).choice(n_obs, _MANY_ROWS, replace=False)


def integer_seed(seed: np.ndarray) -> int:
    """The seed of EM, whoever asks for it: the same data and seed have the same maxima."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def em_start(
    X: np.ndarray, spec: ModelSpec, *, init: InitMethod, n_init: int | None, seed: int
) -> Optima:
    """Maxima of the likelihood of rows, as `fit_em` finds them.

    Parameters
    ----------
    X : ndarray, shape (n_obs, n_features)
        Rows in standard units.
    spec : ModelSpec
    init : {"auto", "kmeans", "k-means++", "random", "random_from_data"}
    n_init : int, optional
    seed : int

    Returns
    -------
    Optima
        A solution with a component on the variance floor comes after all others.
    """
    rows = jax.device_put(block_rows(X, rows_per_block=ROWS_PER_BLOCK))
    with few_threads(X):
        found = find_optima(X, rows, spec, EMSettings(), init=init, n_init=n_init, seed=seed)
    if on_floor(found.solutions, VARIANCE_FLOOR)[0]:
        logger.info("every EM solution has a component on the variance floor")
    return found


def em_starts(
    X: Sequence[np.ndarray],
    rows: RowBlocks,
    spec: ModelSpec,
    *,
    init: InitMethod,
    n_init: int | None,
    seeds: Sequence[int],
) -> list[MixtureParameters]:
    """Best regular solution of EM over several starts, for each of many data sets at once.

    Of starts of many kinds ("auto") all are run briefly, and the best that differ to their ends;
    what they led to is not regrouped, which would take longer than all the rest of many small fits.

    Parameters
    ----------
    X : sequence of ndarray, shape (n_obs, n_features)
        Rows of each set in standard units.
    rows : RowBlocks
        The same, with a leading axis of sets and filled to equal lengths.
    spec, init, n_init
        As for `em_start`. Of starts of many kinds None takes 8 for each component, from 16 to 48.
    seeds : sequence of int
    """
    k, d = spec.n_components, X[0].shape[1]
    if init == AUTO:
        usual = int(np.clip(_STARTS_EACH * k, *_STARTS_IN_ALL)) if k > 1 else 1
        kinds = portfolio(n_init or usual, d)
    else:
        kinds = named_kinds(init, n_init or NAMED_STARTS)
    moments = np.stack([guesses(Rows.of(x), k, kinds, s) for x, s in zip(X, seeds, strict=True)])
    settings, together = EMSettings(), _FOLLOWED if init == AUTO else len(kinds)
    tolerance = np.array([settings.tol * len(x) for x in X])
    found: list[MixtureParameters] = []
    for first in range(0, len(X), _SETS_TOGETHER):
        # The last ones are taken with some of those before, so that one program serves.
        begin = max(0, min(first, len(X) - _SETS_TOGETHER))
        some = slice(begin, begin + _SETS_TOGETHER)
        block = jax.tree.map(lambda a, s=some: a[s], (rows, tolerance))
        run = partial(_run_many, block=block, size=together, spec=spec)
        chosen = moments[some]
        if len(kinds) > together:
            short = run(chosen, limit=SHORT)
            best = [leaders(_of_set(short, i), x, together) for i, x in enumerate(X[some])]
            chosen = np.stack([short.moments[i, places] for i, places in enumerate(best)])
        solutions = run(chosen, limit=settings.max_iter)
        found += [_best(_of_set(solutions, i)) for i in range(first - begin, len(chosen))]
    return found


def _of_set(solutions: Solutions, i: int) -> Solutions:
    return jax.tree.map(lambda a: a[i], solutions)


def _best(found: Solutions) -> MixtureParameters:
    best = ranking(found, EMSettings())[0]
    if on_floor(found, VARIANCE_FLOOR)[best]:
        logger.info("every EM solution has a component on the variance floor")
    return MixtureParameters(*(a[best] for a in found.mixture))


def _run_many(
    moments: np.ndarray,
    *,
    block: tuple[RowBlocks, np.ndarray],
    limit: int,
    size: int,
    spec: ModelSpec,
) -> Solutions:
    """EM from moments (sets, starts, ...), `size` starts of every set at a time."""
    n_starts = moments.shape[1]
    # As many as whole programs have room for: some twice.
    places = np.arange(-(-n_starts // size) * size) % n_starts
    parts = [
        jax.tree.map(np.asarray, _maximise_many(moments[:, some], *block, limit, spec=spec))
        for some in places.reshape(-1, size)
    ]
    whole = jax.tree.map(lambda *a: np.concatenate(a, axis=1), *parts)
    return jax.tree.map(lambda a: a[:, :n_starts], whole)


# A single set does not go this way: it takes as long, but from some 3,000 rows on the 14th digit of
# a mixture is rounded otherwise, and draws would not be what they were, bit for bit.
@partial(compiled, static_argnames="spec")
def _maximise_many(
    moments: jax.Array, rows: RowBlocks, tolerance: jax.Array, limit: jax.Array, *, spec: ModelSpec
) -> Solutions:
    fixed = {"floor": VARIANCE_FLOOR, "limit": limit, "max_iter": EMSettings().max_iter}
    one = partial(maximise.__wrapped__, spec=spec, **fixed)
    return jax.vmap(lambda m, r, t: one(m, r, t))(moments, rows, tolerance)


def match_to_prior(start: MixtureParameters, prior: PriorArrays, n_obs: float) -> MixtureParameters:
    """Number the components as is most probable under the prior, given their means.

    EM numbers components as it likes; the prior centres say which is which. Of so many rows, a
    component's mean is known up to its covariance divided by its own number of rows: the mean of a
    wide one may lie beyond another's centre by chance, and says little.
    """
    counts = np.maximum(np.asarray(start.weights) * n_obs, np.finfo(float).eps)
    error = np.asarray(start.covariances) / counts[:, None, None]
    order = nearest_centres(np.asarray(start.means), prior, error)
    return MixtureParameters(*(np.asarray(a)[order] for a in start))


def nearest_centres(
    means: np.ndarray, prior: PriorArrays, error: np.ndarray | float = 0.0
) -> np.ndarray:
    """Which of the means is for each of the prior's centres: a permutation, shape (K,).

    Parameters
    ----------
    means : ndarray, shape (K, D)
    prior : PriorArrays
    error : ndarray, shape (K, D, D), optional
        Covariance of the error of each mean. Its distances are then in units of that and of the
        prior's covariance together: minus twice the log density of the mean that was found.
    """
    tril = np.asarray(prior.mean_scale_tril)
    whiten = solve_triangular(tril, np.eye(len(tril)), lower=True)
    white = (means[:, None, :] - np.asarray(prior.mean_loc)) @ whiten.T
    covariance = np.eye(len(tril)) + whiten @ (error * np.ones_like(tril)) @ whiten.T
    cost = np.sum(white * np.linalg.solve(covariance, white.swapaxes(1, 2)).swapaxes(1, 2), axis=2)
    component, number = linear_sum_assignment(cost)
    return component[np.argsort(number)]


def jitter(
    start: MixtureParameters, spec: ModelSpec, n_obs: int, rng: np.random.Generator
) -> MixtureParameters:
    """Move a start by about twice the posterior sd of each parameter.

    Overdispersed starts are what makes R-hat worth reading; two sds of the parameter's own
    uncertainty keep a chain in the mode that EM found, at every size of the data. It is the
    sampling distribution of estimates from a quarter of the rows: normal means, Wishart
    covariances.
    """
    structure = COVARIANCE_STRUCTURES[spec.covariance_type]
    n_components, n_features = start.means.shape
    quarter = np.maximum(start.weights * n_obs / 4, n_features + 1.0)
    tril = np.asarray(start.scale_tril)
    noise = rng.standard_normal(start.means.shape)
    means = start.means + np.einsum("kde,ke->kd", tril, noise) / np.sqrt(quarter)[:, None]
    weights = start.weights * np.exp(rng.standard_normal(n_components) / np.sqrt(quarter))
    # Shared covariances are projected back onto their structure, which also averages the noise.
    factor = np.stack([_wishart_factor(df, n_features, rng) for df in quarter])
    moved = tril @ factor
    dense = moved @ np.swapaxes(moved, -1, -2)
    scales, correlation = structure.sites(dense)
    return MixtureParameters(
        weights / weights.sum(),
        means,
        structure.scale_tril(scales, correlation, n_components, n_features),
    )


def _wishart_factor(df: float, n_features: int, rng: np.random.Generator) -> np.ndarray:
    """Cholesky factor of Wishart(df, I / df) by Bartlett's decomposition."""
    factor = np.tril(rng.standard_normal((n_features, n_features)), -1)
    factor[np.diag_indices(n_features)] = np.sqrt(rng.chisquare(df - np.arange(n_features)))
    return factor / np.sqrt(df)


def check_init(init: object) -> None:
    """Raise unless `init` names a kind of start or is a mixture to start from."""
    if not isinstance(init, MixtureParameters):
        check_choice(init, "init", INIT_METHODS)


def check_n_init(n_init: object) -> int | None:
    """Return a number of starts; None leaves it to the search."""
    return None if n_init is None else check_integer(n_init, "n_init", 1)


def check_start(start: MixtureParameters, n_components: int, n_features: int) -> MixtureParameters:
    """Return a start of the right shapes, its weights positive and its factors those of Cholesky.

    Raises
    ------
    TypeError, ValueError
        If it is not one.
    """
    k, d = n_components, n_features
    shapes = {
        "means": ("n_components, n_features", (k, d)),
        "weights": ("n_components,", (k,)),
        "scale_tril": ("n_components, n_features, n_features", (k, d, d)),
    }
    arrays = {name: check_finite(getattr(start, name), f"init.{name}") for name in shapes}
    for name, (words, shape) in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"init.{name} must have shape ({words}) = {shape}, got {arrays[name].shape}"
            )
    weights, tril = arrays["weights"], arrays["scale_tril"]
    if not (weights > 0).all() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(f"init.weights must be positive and sum to 1, got {weights}")
    if (np.diagonal(tril, axis1=1, axis2=2) <= 0).any() or np.triu(tril, 1).any():
        raise ValueError(
            "init.scale_tril must be lower triangular with a positive diagonal; "
            "MixtureParameters.from_covariances makes it"
        )
    return MixtureParameters(**arrays)
