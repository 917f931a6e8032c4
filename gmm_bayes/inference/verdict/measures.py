"""The numbers behind a verdict: R-hat and ESS, energy, repeats, modes, switched and collapsed."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from scipy.stats import median_abs_deviation, norm
from scipy.stats import t as student_t

from gmm_bayes._vocabulary import CHAIN, COVARIANCES, DRAW
from gmm_bayes.core.bhattacharyya import bhattacharyya
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.verdict.agreement import Agreement, agreement, draws_within_chains
from gmm_bayes.inference.verdict.label_free import label_free_quantities, log_density_at_some_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FEWEST_LOO_DRAWS",
    "ChainElpd",
    "agreement_table",
    "chain_elpd",
    "chains_apart",
    "collapsed_components",
    "cut_trajectories",
    "e_bfmi",
    "errors_apart",
    "labels_switched",
    "mcse_of_chains",
    "no_agreement",
    "repeated_share",
    "switched_share",
    "worse_by_elpd",
    "worse_chains",
]

# Draws, of all chains together, that are matched when looking for switched labels.
_MATCHED_DRAWS = 400
# Share of them that may prefer another numbering: a stray draw is not a switch.
_STRAY_SHARE = 0.01
# A fifth of them make the tail that PSIS smooths, which takes five.
FEWEST_LOO_DRAWS = 25
# Rows that are left out, times chains: a third of a second's work.
_MOST_LEFT_OUT = 1024
# Chains of which most are enough to say how their means differ.
_MANY_CHAINS = 8
# Effective draws of a chain that say nothing of its mean: the log-likelihood has a long tail.
_FEW_EFFECTIVE = 10
_COLUMNS = ["label_free", "rhat", "ess_bulk", "ess_tail"]


def labels_switched(fit: GMMFit) -> bool:
    """Whether components changed places between draws, of one chain or of several.

    Aligned components have kept their places, unless they cannot be told apart: then no order of
    theirs is better than another, and an average per component means as little as after a switch.
    """
    if fit.alignment is not None:
        return bool(fit.alignment["indistinct"])
    return bool(switched_share(fit) > _STRAY_SHARE)


def switched_share(fit: GMMFit) -> float:
    """Share of draws whose components match those of the best draw better in another order.

    Every draw of a thinned set, shapes (n_components, n_features, ...), is compared with the draw
    of highest log density: the distance of two components is Bhattacharyya's, times the mean of
    their weights, so that components that differ only in their covariances count, and which of two
    empty ones is which does not; nor is an empty one ever a good match for one with rows. A draw
    has switched when its best assignment is clearly better than its own numbering.
    """
    if fit.n_components == 1:
        return 0.0
    parameters = fit.parameters()
    lp = fit.sample_stats["lp"].values.ravel()
    if not all(np.isfinite(array).all() for array in (lp, *parameters)):
        return 0.0
    picked = np.unique(np.linspace(0, len(lp) - 1, _MATCHED_DRAWS).astype(int))
    spread = fit.X.std("obs").values
    weights = parameters.weights
    means, tril = parameters.means / spread, parameters.scale_tril / spread[:, None]
    best = int(lp.argmax())
    k, d = means.shape[1:]
    distance = bhattacharyya(
        means[picked].reshape(-1, d), tril[picked].reshape(-1, d, d), means[best], tril[best]
    ).reshape(len(picked), k, k)
    costs = (weights[picked][:, :, None] + weights[best]) / 2 * distance
    least = np.array([cost[linear_sum_assignment(cost)].sum() for cost in costs])
    return float(np.mean(np.trace(costs, axis1=1, axis2=2) > 2 * least + 1e-3))


def agreement_table(fit: GMMFit) -> "pd.DataFrame":
    """Worst R-hat and ESS of each quantity, those that do not depend on labels first.

    R-hat is nested where there are superchains.
    """
    import pandas as pd

    sites = fit.posterior.drop_vars(COVARIANCES)
    named: dict[tuple[str, bool], np.ndarray] = {}
    for dataset, label_free in ((label_free_quantities(fit), True), (sites, False)):
        for name, variable in dataset.data_vars.items():
            entries = _moving_entries(variable)
            if len(entries):
                named[str(name), label_free] = entries
    if not named:
        return no_agreement()
    together = np.concatenate(list(named.values()))
    found = agreement(together)
    rhat = _rhat(together, found, fit.sampler.num_superchains)
    ends = np.cumsum([len(entries) for entries in named.values()])[:-1]
    columns = [np.split(one, ends) for one in (rhat, found.ess_bulk, found.ess_tail)]
    rows = {
        name: (label_free, r.max(), bulk.min(), tail.min())
        for (name, label_free), r, bulk, tail in zip(named, *columns, strict=True)
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=_COLUMNS)


def _rhat(values: np.ndarray, found: Agreement, num_superchains: int | None) -> np.ndarray:
    """R-hat of quantities (n, num_chains, num_samples), of a single chain that of its halves."""
    if num_superchains:
        return arviz_bridge.nested_rhat(values, num_superchains)
    half = values.shape[2] // 2
    if values.shape[1] > 1 or half < 1:
        return found.rhat
    return agreement(np.concatenate([values[..., :half], values[..., -half:]], 1), tails=False).rhat


def chains_apart(fit: GMMFit, table: "pd.DataFrame", threshold: float) -> bool:
    """Whether chains keep to modes of their own: they disagree, and each agrees with itself.

    Judged by what does not depend on labels: where chains disagree most, R-hat of the halves of a
    chain is at most a quarter as far above one, for half of the chains at least.
    """
    free = table["rhat"][table["label_free"].astype(bool)].drop("lp", errors="ignore")
    if fit.posterior.sizes[CHAIN] == 1 or fit.sampler.num_superchains or not free.max() > threshold:
        return False
    values = _moving_entries(label_free_quantities(fit)[free.idxmax()])
    worst = int(np.nanargmax(agreement(values, tails=False).rhat))
    half = values.shape[2] // 2
    halves = np.stack([values[worst, :, :half], values[worst, :, -half:]], axis=1)
    within = agreement(halves, tails=False).rhat
    return bool(np.median(within) - 1 < (free.max() - 1) / 4)


def no_agreement() -> "pd.DataFrame":
    """The table of draws that are not chains."""
    import pandas as pd

    return pd.DataFrame(columns=_COLUMNS)


def _moving_entries(variable: xr.DataArray) -> np.ndarray:
    """Entries (n, num_chains, num_samples) but those that are constant by construction.

    Such as the zeros of a Cholesky factor.
    """
    values = variable.transpose(..., CHAIN, DRAW).values
    values = values.reshape(-1, *values.shape[-2:])
    # A NaN is not constant by construction.
    return values[np.ptp(values, axis=(1, 2)) != 0]


def cut_trajectories(fit: GMMFit) -> int:
    """Trajectories that ended because their tree was as deep as it may be; not all have trees."""
    longest = fit.sampler.longest_trajectory
    return 0 if longest is None else int((fit.sample_stats["n_steps"] >= float(longest)).sum())


def e_bfmi(energy: np.ndarray, groups: int | None = None) -> np.ndarray:
    """Per chain (Betancourt 2016, equation 4.1); ArviZ divides by n - 1, and knows no superchains.

    Per superchain where there are `groups` of them: one short chain says little of a variance.
    """
    groups = groups or len(energy)
    if energy.shape[1] < 2:
        return np.full(groups, np.nan)
    together = energy.reshape(groups, -1, energy.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.diff(together) ** 2).mean(axis=(1, 2)) / together.var(axis=(1, 2))


def repeated_share(means: xr.DataArray, groups: int | None = None) -> np.ndarray:
    """Share of each chain's, or superchain's, draws that are equal to the one before."""
    values = means.transpose(CHAIN, DRAW, ...).values
    groups = groups or len(values)
    if values.shape[1] < 2:
        return np.zeros(groups)
    same = (np.diff(values, axis=1) == 0).all(axis=(2, 3))
    return same.reshape(groups, -1).mean(axis=1)


def worse_chains(
    log_likelihood: np.ndarray, allowed_sd: float, allowed_mcse: float, groups: int | None = None
) -> tuple[int, ...]:
    """Chains whose mean lies that many sds of the best chain, or superchain, below its mean.

    And as many Monte Carlo errors of the difference: a mean of few effective draws says little.
    """
    means = log_likelihood.mean(axis=1)
    together = log_likelihood.reshape(groups or len(means), -1)
    best = together[together.mean(axis=1).argmax()]
    # Below a tenth of a nat two chains say the same whatever their spread.
    allowed = allowed_sd * best.std() + 0.1
    allowed += allowed_mcse * np.sqrt(2) * mcse_of_chains(log_likelihood)
    if groups:
        # Of n chains one may rightly be where there is but an n-th of the posterior.
        allowed += np.log(len(means))
    return tuple(int(c) for c in np.flatnonzero(means < best.mean() - allowed))


def mcse_of_chains(values: np.ndarray) -> float:
    """Monte Carlo standard error of the mean of one of some chains (num_chains, num_samples).

    By the autocorrelation within chains. Chains hardly longer than their memory do not show it: of
    fewer than ten effective draws it is infinite, and of many chains no less than what the means of
    most of them differ by.
    """
    means = values.mean(axis=1)
    few = values.shape[1] < _FEW_EFFECTIVE
    effective = 0.0 if few else draws_within_chains(values)
    if effective < _FEW_EFFECTIVE:
        return np.inf
    within = float((values - means[:, None]).std() / np.sqrt(effective))
    if len(means) < _MANY_CHAINS:
        return within
    return max(within, float(median_abs_deviation(means, scale="normal")))


def errors_apart(allowed_mcse: float, num_chains: int) -> float:
    """Errors of the difference that the best and the worst of many chains are allowed to be apart.

    So many that it is exceeded as rarely by any pair of them as `allowed_mcse` by a normal number:
    Bonferroni's bound, and a t distribution, for the errors are known from ten effective draws a
    chain and more. Four become five of 2 to 8 chains, and six of 256.
    """
    pairs = max(1, num_chains * (num_chains - 1) // 2)
    return float(student_t.isf(norm.sf(allowed_mcse) / pairs, _FEW_EFFECTIVE * num_chains))


class ChainElpd(NamedTuple):
    """Leave-one-out log densities of some rows under each chain alone, in nats.

    Attributes
    ----------
    by_row : ndarray, shape (num_chains, rows)
        Empty where draws are too few or not finite.
    mcse : float
        Monte Carlo standard error of the mean over rows, of one chain.
    """

    by_row: np.ndarray
    mcse: float = 0.0


def chain_elpd(fit: GMMFit) -> ChainElpd:
    """By PSIS, of at most 256 rows, equally spaced along the first principal component."""
    sizes = fit.posterior.sizes
    n_chains, n_draws = sizes[CHAIN], sizes[DRAW]
    nothing = ChainElpd(np.empty((n_chains, 0)))
    if n_draws < FEWEST_LOO_DRAWS:
        return nothing
    log_density = log_density_at_some_rows(fit, max(32, _MOST_LEFT_OUT // n_chains))
    if not np.isfinite(log_density).all():
        return nothing
    lines = log_density.reshape(n_chains, n_draws, -1).swapaxes(1, 2)
    smoothed, _ = arviz_bridge.smooth_log_weights(-lines.reshape(-1, n_draws))
    smoothed = smoothed.reshape(lines.shape)
    by_row = logsumexp(smoothed + lines, axis=2)
    # What each draw adds to a ratio of two averages, to first order.
    adds = np.exp(smoothed + lines - by_row[..., None]) - np.exp(smoothed)
    by_draw = by_row.mean(axis=1)[:, None] + n_draws * adds.mean(axis=1)
    return ChainElpd(by_row, mcse_of_chains(by_draw))


def worse_by_elpd(
    elpd: ChainElpd, n_obs: int, allowed_nats: float, allowed_se: float, allowed_mcse: float
) -> tuple[int, ...]:
    """Chains that predict left-out rows clearly worse than the chain that does it best.

    Clearly: by so many nats over all `n_obs` rows, by so many standard errors of the difference,
    which rows have, and by so many Monte Carlo errors of it, which draws have.
    """
    by_row = elpd.by_row
    if not by_row.size:
        return ()
    behind = by_row[by_row.sum(axis=1).argmax()] - by_row
    total = behind.mean(axis=1) * n_obs
    error = behind.std(axis=1) / np.sqrt(by_row.shape[1]) * n_obs
    noise = np.sqrt(2) * elpd.mcse * n_obs
    clear = (total > allowed_nats) & (total > allowed_se * error) & (total > allowed_mcse * noise)
    return tuple(np.flatnonzero(clear).tolist())


def collapsed_components(fit: GMMFit, smallest_scale: float) -> tuple[int, ...]:
    """Components that are tiny in some direction, beside the columns' spread, where a chain ended.

    Not only along the columns: two correlated features collapse onto a line first.
    """
    sizes = fit.posterior.sizes
    tril = fit.parameters().scale_tril / fit.X.std("obs").values[:, None]
    ended = tril.reshape(sizes[CHAIN], sizes[DRAW], *tril.shape[1:])[:, sizes[DRAW] // 2 :]
    ended = np.nan_to_num(ended)
    # Most are far from it, which the bound says in a tenth of the time.
    doubtful = (np.median(_at_least(ended), axis=1) < smallest_scale).any(axis=0)
    smallest = np.linalg.svd(ended[:, :, doubtful], compute_uv=False)[..., -1]
    tiny = (np.median(smallest, axis=1) < smallest_scale).any(axis=0)
    return tuple(int(k) for k in np.flatnonzero(doubtful)[tiny])


def _at_least(tril: np.ndarray) -> np.ndarray:
    """A bound from below of the smallest singular value of triangular matrices (..., D, D).

    The determinant times a power of the Frobenius norm (Yu and Gu 1997, A note on a lower bound for
    the smallest singular value, Linear Algebra and its Applications 253).
    """
    d = tril.shape[-1]
    determinant = abs(np.diagonal(tril, axis1=-2, axis2=-1)).prod(axis=-1)
    squares = np.square(tril).sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bound = determinant * ((d - 1) / squares) ** ((d - 1) / 2) if d > 1 else determinant
    # Of a matrix of zeros, or one that overflows, it says nothing.
    return np.nan_to_num(bound, nan=0.0, posinf=0.0)
