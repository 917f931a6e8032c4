"""compare_n_components(): fit every candidate, and say what each criterion can tell apart."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from gmm_bayes._tables import Table
from gmm_bayes._validation import (
    check_choice,
    check_data,
    check_fit_size,
    check_integer,
    check_n_components,
    check_seed,
    warn_data,
)
from gmm_bayes._vocabulary import AUTO, CovarianceType
from gmm_bayes.checking.candidates import (
    CRITERIA,
    Candidate,
    Comparison,
    Scores,
    comparison,
    describe,
)
from gmm_bayes.checking.evidence import log_evidence
from gmm_bayes.checking.nested import risen, still_falling
from gmm_bayes.checking.prediction import folds, leave_one_out, predict_by_em
from gmm_bayes.checking.tasks import Task, check_executor, run_tasks
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.errors import ConvergenceWarning, DataWarning
from gmm_bayes.inference.em.cautions import wide_caution
from gmm_bayes.inference.em.fit_em import search
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.em.starts import check_n_init, integer_seed
from gmm_bayes.inference.em.steps import MAXIMA
from gmm_bayes.inference.fit import fit
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.sampling.registry import check_sampler
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.machine.progress import wanted
from gmm_bayes.model.priors import Priors
from gmm_bayes.posterior.density import log_predictive_density

__all__ = ["compare_n_components"]

_FROM_POSTERIOR = {"loo", "waic", "evidence"}


def compare_n_components(
    X: Any,
    candidates: Iterable[int] = range(1, 10),
    *,
    covariance_types: Sequence[CovarianceType] = ("full",),
    criteria: Sequence[str] = ("bic", "icl", "cv", "loo"),
    engine: Literal["em", "nuts"] = "em",
    n_init: int | None = None,
    n_folds: int = 10,
    priors: Priors | Callable[[int], Priors] | None = None,
    sampler: Sampler | None = None,
    seed: Any = 0,
    executor: Any = None,
    progress: bool | None = None,
) -> Comparison:
    """Compare mixtures with different numbers of components and covariance structures.

    Parameters
    ----------
    X : array, pandas, polars or xarray object, shape (n_obs, n_features)
    candidates : iterable of int
        Numbers of components.
    covariance_types : sequence of {"full", "tied", "diag", "spherical"}
    criteria : sequence of {"aic", "bic", "icl", "cv", "loo", "waic", "evidence"}
        `aic`, `bic` and `icl` are of the maximum-likelihood fit, smaller is better. `cv` is the log
        predictive density of rows that were left out, summed over folds; `loo` and `waic` estimate
        it from the posterior, and `evidence` is the log marginal likelihood; larger is better.
        The last three sample the posterior of every candidate.
    engine : {"em", "nuts"}
        What predicts the rows that `cv` leaves out: the maximum-likelihood fit of the others, or
        their posterior.
    n_init : int
        Starts of EM.
    n_folds : int
        Parts that `cv` leaves out in turn, the same for every candidate.
    priors : Priors or callable, optional
        Of the posterior fits: for all candidates, or a function of the number of components. None
        takes `default_priors`; what is left to the data is found anew in each candidate's and each
        fold's rows.
    sampler : NUTS, ChEES or Laplace, optional
        Of the posterior fits. None takes `NUTS()`.
    seed : int in [0, 2**32) or JAX key
    executor : None, str or Dask client
        Where the fits run: here, on the workers of a joblib backend of that name, or on a cluster.
    progress : bool, optional
        Draw a progress bar over the sweep. None draws one on a terminal or in a notebook.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        If the data, a candidate or an option are not usable; nothing has been fitted by then.

    Warns
    -----
    DataWarning
        If the likelihood of a candidate has no useful maximum; it is out of `aic`, `bic`, `icl`.
        If it stays below that of one component fewer, after a search from splits of that one.
    ConvergenceWarning
        Once, if chains of some candidates should not be believed.

    Notes
    -----
    BIC: Schwarz (1978); ICL: Biernacki, Celeux and Govaert (2000); LOO and the standard error of a
    difference: Vehtari, Gelman and Gabry (2017); cross-validated likelihood: Smyth (2000), Model
    selection for probabilistic clustering using cross-validated likelihood; bridge sampling: Meng
    and Wong (1996). The evidence is conditional on the centres of the prior, which by default are
    found in the same rows: it favours many components, the more the tighter the prior of the means.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> X = gb.datasets.load_old_faithful()
    >>> found = gb.compare_n_components(X, range(1, 4), criteria=("bic", "cv"), n_folds=5)
    >>> found.best["bic"]
    Candidate(n_components=2, covariance_type='full')
    """
    table, wished = _check(X, candidates, covariance_types, criteria, n_folds)
    check_choice(engine, "engine", ("em", "nuts"))
    n_init = check_n_init(n_init)
    check_sampler(sampler, call="")
    believed = {c: priors(c.n_components) if callable(priors) else priors for c in wished}
    for belief in believed.values():
        if not isinstance(belief, Priors | None):
            raise TypeError(
                "priors must be a gmm_bayes.Priors or a function that returns one, got "
                f"{type(belief).__name__}"
            )
    seed = check_seed(seed)
    check_executor(executor)

    parts: list[np.ndarray] = []
    if "cv" in criteria:
        parts = folds(len(table.values), n_folds, np.random.default_rng([*seed, len(table.values)]))
    jobs: dict[tuple[Any, ...], Task] = {}
    for candidate in wished:
        number, em_seed = _seed(seed, candidate), integer_seed(seed)
        bayes = partial(
            fit, priors=believed[candidate], sampler=sampler, n_init=n_init, progress=False
        )
        em = partial(predict_by_em, spec=_spec(candidate), n_init=n_init, seed=em_seed)
        nuts = partial(_predict_by_posterior, candidate=candidate, bayes=bayes, seed=number)
        jobs[candidate, "em"] = partial(_best_fit, table, candidate, n_init, em_seed)
        for i, part in enumerate(parts):
            jobs[candidate, "cv", i] = partial(em if engine == "em" else nuts, table, part)
        if _FROM_POSTERIOR & set(criteria):
            job = partial(_posterior, X, candidate, bayes, number, tuple(criteria))
            jobs[candidate, "posterior"] = job
    answers = run_tasks([*jobs.values()], executor, shown=wanted(progress), unit="fit")
    results = dict(zip(jobs, answers, strict=True))
    nested = risen(table, {candidate: results[candidate, "em"] for candidate in wished})
    results.update({(candidate, "em"): found for candidate, found in nested.items()})
    compared = _compare(table, wished, tuple(criteria), parts, results)
    _warn(compared)
    return compared


def _check(
    X: Any,
    candidates: Iterable[int],
    covariance_types: Sequence[CovarianceType],
    criteria: Sequence[str],
    n_folds: Any,
) -> tuple[Table, list[Candidate]]:
    """Refuse what cannot be compared, before anything is fitted."""
    if isinstance(covariance_types, str) or isinstance(criteria, str):
        raise TypeError("covariance_types and criteria must be sequences of names, not one string")
    table = check_data(X, min_rows=2)
    n_obs = len(table.values)
    wanted_sizes = list(candidates) if isinstance(candidates, Iterable) else [candidates]
    if not wanted_sizes or not covariance_types or not criteria:
        raise ValueError("candidates, covariance_types and criteria must not be empty")
    for name in covariance_types:
        check_choice(name, "covariance_types", tuple(COVARIANCE_STRUCTURES))
    for criterion in criteria:
        check_choice(criterion, "criteria", tuple(CRITERIA))
    fewest = n_obs
    if "cv" in criteria:
        if check_integer(n_folds, "n_folds", 2) > n_obs:
            raise ValueError(f"n_folds must be at most the number of rows, {n_obs}, got {n_folds}")
        fewest = n_obs - -(-n_obs // n_folds)
    sizes = sorted({check_n_components(size, fewest) for size in wanted_sizes})
    structures = [COVARIANCE_STRUCTURES[name] for name in covariance_types]
    wide = wide_caution(structures, table.values.shape[1])
    flattens = any(one.can_flatten(table.values.shape[1]) for one in structures)
    for caution in check_fit_size(table, sizes[-1], 0, wide=wide, flattens=flattens):
        warn_data(caution)
    return table, [Candidate(size, name) for name in covariance_types for size in sizes]


def _spec(candidate: Candidate) -> ModelSpec:
    return ModelSpec(candidate.n_components, candidate.covariance_type)


def _seed(seed: np.ndarray, candidate: Candidate) -> int:
    place = tuple(COVARIANCE_STRUCTURES).index(candidate.covariance_type)
    return int(np.random.SeedSequence([*seed, place, candidate.n_components]).generate_state(1)[0])


def _best_fit(table: Table, candidate: Candidate, n_init: int | None, seed: int) -> EMFit:
    return search(table, None, _spec(candidate), MAXIMA, init=AUTO, n_init=n_init, seed=seed)


def _predict_by_posterior(
    table: Table, left_out: np.ndarray, candidate: Candidate, bayes: Any, seed: int
) -> np.ndarray:
    """Log predictive density of the rows that were left out; priors are made from the others."""
    kept = np.delete(table.values, left_out, axis=0)
    found = _sampled(kept, candidate, bayes, seed)
    return np.asarray(log_predictive_density(found, table.values[left_out]))


def _posterior(
    X: Any, candidate: Candidate, bayes: Any, seed: int, criteria: tuple[str, ...]
) -> tuple[GMMFit, dict[str, Any]]:
    found = _sampled(X, candidate, bayes, seed)
    scores: dict[str, Any] = {}
    if {"loo", "waic"} & set(criteria):
        scores["pointwise"] = leave_one_out(found)
    if "evidence" in criteria:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores["evidence"] = log_evidence(found)
    return found, scores


def _sampled(X: Any, candidate: Candidate, bayes: Any, seed: int) -> GMMFit:
    """The posterior of a candidate; whether to believe it is said once for the whole sweep."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataWarning)
        return bayes(
            X, candidate.n_components, covariance_type=candidate.covariance_type, seed=seed
        )


def _compare(
    table: Table,
    wished: list[Candidate],
    criteria: tuple[str, ...],
    parts: list[np.ndarray],
    results: dict[tuple[Any, ...], Any],
) -> Comparison:
    """Put the answers together."""
    fits = {candidate: results[candidate, "em"] for candidate in wished}
    posteriors = {c: results[c, "posterior"] for c in wished if (c, "posterior") in results}
    scores = {}
    for criterion in criteria:
        if criterion == "cv":
            rows = np.empty((len(wished), len(table.values)))
            for line, candidate in zip(rows, wished, strict=True):
                for i, part in enumerate(parts):
                    line[part] = results[candidate, "cv", i]
            scores[criterion] = Scores(rows.sum(axis=1), rows)
        elif criterion == "evidence":
            found = [posteriors[c][1]["evidence"] for c in wished]
            values, errors = (
                [getattr(f, name) for f in found] for name in ("log_evidence", "error")
            )
            scores[criterion] = Scores(np.array(values), errors=np.array(errors))
        elif criterion in _FROM_POSTERIOR:
            rows = np.array([getattr(posteriors[c][1]["pointwise"], criterion) for c in wished])
            scores[criterion] = Scores(rows.sum(axis=1), rows)
        else:
            values = [np.nan if f.singular else getattr(f, criterion) for f in fits.values()]
            scores[criterion] = Scores(np.array(values))
    pareto_k = {c: p[1]["pointwise"].pareto_k for c, p in posteriors.items() if "pointwise" in p[1]}
    return comparison(fits, {c: p[0] for c, p in posteriors.items()}, pareto_k, scores)


def _warn(found: Comparison) -> None:
    """Say once for all candidates what should not be believed."""
    singular = [c for c in found.fits if found.fits[c].singular]
    if singular:
        reasons = sorted({found.fits[c].why_singular for c in singular})
        warn_data(
            f"with {', '.join(map(describe, singular))} every start of EM ended in a fit that "
            f"{' or '.join(reasons)}: aic, bic and icl leave it out"
        )
    falling = still_falling(found.fits)
    if falling:
        warn_data(
            f"with {', '.join(map(describe, falling))} the likelihood is lower than with one "
            "component fewer, which no maximum is: a better one was not found, and aic, bic, icl "
            "and cv are too poor there; raise n_init"
        )
    doubted = [describe(c) for c, posterior in found.posteriors.items() if posterior.problems]
    if doubted:
        warnings.warn(
            f"the chains with {', '.join(doubted)} components should not be believed yet; see "
            "diagnose(comparison.posteriors[...]) and its advice",
            ConvergenceWarning,
            stacklevel=3,
        )
