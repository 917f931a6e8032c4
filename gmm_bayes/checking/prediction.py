"""How well new rows are predicted: row by row, by cross-validation, PSIS-LOO and WAIC."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from gmm_bayes._tables import Table
from gmm_bayes._vocabulary import AUTO, CHAIN, DRAW, MEANS, SCALES, WEIGHTS
from gmm_bayes.core import mixture
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.em.fit_em import search
from gmm_bayes.inference.em.steps import MAXIMA
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.posterior.streaming import each_draw, map_rows

__all__ = ["LeaveOneOut", "folds", "leave_one_out", "predict_by_em"]


class LeaveOneOut(NamedTuple):
    """Expected log predictive density of each row given the others, in nats.

    Attributes
    ----------
    loo : ndarray, shape (n_obs,)
    waic : ndarray, shape (n_obs,)
    pareto_k : ndarray, shape (n_obs,)
        Above 0.7 the `loo` of that row cannot be relied on.
    """

    loo: np.ndarray
    waic: np.ndarray
    pareto_k: np.ndarray


def leave_one_out(fit: GMMFit) -> LeaveOneOut:
    """PSIS-LOO and WAIC of every training row, a block of rows at a time.

    Notes
    -----
    PSIS-LOO weights every draw by one over the density of the row, smoothed [1]_; WAIC is the log
    of the mean density less the variance of the log density over draws [2]_. Never more than 128
    MiB of draws x rows are held.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, J. Gabry (2017). Practical Bayesian model evaluation using
       leave-one-out cross-validation and WAIC. Statistics and Computing 27.
    .. [2] S. Watanabe (2010). Asymptotic equivalence of Bayes cross validation and widely
       applicable information criterion. JMLR 11.
    """
    r_eff = _relative_efficiency(fit)

    def block(X: Any, draws: mixture.MixtureParameters) -> LeaveOneOut:
        log_density = np.asarray(_each(X, draws)).T
        smoothed, k = arviz_bridge.smooth_log_weights(-log_density, r_eff)
        log_mean = logsumexp(log_density, axis=1) - np.log(log_density.shape[1])
        return LeaveOneOut(
            logsumexp(smoothed + log_density, axis=1),
            log_mean - log_density.var(axis=1, ddof=1),
            k,
        )

    n_draws = fit.posterior.sizes[CHAIN] * fit.posterior.sizes[DRAW]
    return map_rows(block, fit, fit.X.values, numbers_per_row=n_draws)


def _relative_efficiency(fit: GMMFit) -> float:
    """Effective draws per draw, averaged over parameters as ArviZ does; 1 for a single chain."""
    sizes = fit.posterior.sizes
    if sizes[CHAIN] == 1:
        return 1.0
    ess = arviz_bridge.ess(fit.posterior[[WEIGHTS, MEANS, SCALES]], "mean")
    values = np.concatenate([np.ravel(ess[name].values) for name in ess])
    return float(values[np.isfinite(values)].mean() / (sizes[CHAIN] * sizes[DRAW]))


def folds(n_obs: int, n_folds: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random parts of the rows, sorted, whose sizes differ by one at most."""
    return [np.sort(part) for part in np.array_split(rng.permutation(n_obs), n_folds)]


def predict_by_em(
    table: Table, left_out: np.ndarray, spec: ModelSpec, n_init: int | None, seed: int
) -> np.ndarray:
    """Log density of the rows that were left out, under the mixture of largest likelihood.

    Units, starts and centres are found anew in the rows that were not.
    """
    kept = np.setdiff1d(np.arange(len(table.values)), left_out)
    some = Table(table.values[kept], table.feature_names, table.index[kept], table.named)
    found = search(
        some,
        None,
        spec,
        MAXIMA,
        init=AUTO,
        n_init=n_init,
        seed=seed,
        room=len(table.values),
    )
    return found.score_samples(table.values[left_out])


_each = each_draw(mixture.log_density)
