"""The numbers behind a verdict: R-hat and ESS, energy, repeats, modes, switched and collapsed."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from gmm_bayes._vocabulary import CHAIN, COMPONENT, COVARIANCES, DRAW, MEANS, SCALES, WEIGHTS
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.result import GMMFit

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "agreement_table",
    "collapsed_components",
    "e_bfmi",
    "labels_switched",
    "n_occupied",
    "repeated_share",
    "worse_chains",
]

# Stretches of a chain that are compared when looking for switched labels.
_STRETCHES = 10


def labels_switched(fit: GMMFit) -> bool:
    """Whether components changed places between chains, or between stretches of a chain.

    The mean position of every component over a stretch of draws, in units of the columns' spread
    and weighted by how many rows it holds, is matched to the first stretch of the first chain. A
    best match that is not the identity, and clearly better, means a switch. Shape of what is
    compared: (stretches, n_components, n_features).
    """
    if fit.n_components == 1:
        return False
    spread = fit.X.std("obs").values
    means = fit.posterior[MEANS].values / spread
    weights = fit.posterior[WEIGHTS].values
    if not (np.isfinite(means).all() and np.isfinite(weights).all()):
        return False
    pieces = min(_STRETCHES, means.shape[1])
    stretches = [
        (m.mean(0), w.mean(0))
        for chain in range(means.shape[0])
        for m, w in zip(
            np.array_split(means[chain], pieces),
            np.array_split(weights[chain], pieces),
            strict=True,
        )
    ]
    first_means, first_weights = stretches[0]
    for stretch_means, stretch_weights in stretches[1:]:
        distance = ((stretch_means[:, None] - first_means[None]) ** 2).sum(-1)
        cost = np.minimum(stretch_weights[:, None], first_weights[None]) * distance
        rows, columns = linear_sum_assignment(cost)
        stay, move = np.trace(cost), cost[rows, columns].sum()
        if stay > 2 * move + 1e-3:
            return True
    return False


def agreement_table(fit: GMMFit) -> "pd.DataFrame":
    """Worst R-hat and ESS of each quantity, those that do not depend on labels first."""
    import pandas as pd

    rows = {}
    sites = fit.posterior.drop_vars(COVARIANCES)
    for dataset, label_free in ((_label_free(fit), True), (sites, False)):
        moving = _moving_entries(dataset)
        if not moving:
            continue
        measures = {
            "rhat": arviz_bridge.rhat(_at_least_two_chains(moving)),
            "ess_bulk": arviz_bridge.ess(moving, "bulk"),
            "ess_tail": arviz_bridge.ess(moving, "tail"),
        }
        for name in moving.data_vars:
            row = {
                measure: float(
                    values[name].max(skipna=False)
                    if measure == "rhat"
                    else values[name].min(skipna=False)
                )
                for measure, values in measures.items()
            }
            rows[str(name)] = {"label_free": label_free, **row}
    columns = ["label_free", "rhat", "ess_bulk", "ess_tail"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _label_free(fit: GMMFit) -> xr.Dataset:
    """Quantities that do not change when components change places."""
    stats, posterior = fit.sample_stats, fit.posterior
    weights, means = posterior[WEIGHTS], posterior[MEANS]
    mean = (weights * means).sum(COMPONENT)
    second = (weights * ((means - mean) ** 2 + posterior[SCALES] ** 2)).sum(COMPONENT)
    return xr.Dataset(
        {
            "log_likelihood": stats["log_likelihood"],
            "lp": stats["lp"],
            "mixture_mean": mean,
            "mixture_sd": np.sqrt(second),
        }
    )


def _moving_entries(dataset: xr.Dataset) -> xr.Dataset:
    """Drop entries that are constant by construction, such as the zeros of a Cholesky factor."""
    flat = {}
    for name, variable in dataset.data_vars.items():
        values = variable.transpose(CHAIN, DRAW, ...).values
        values = values.reshape(*values.shape[:2], -1)
        # A NaN is not constant by construction.
        moving = np.ptp(values.reshape(-1, values.shape[-1]), axis=0) != 0
        if moving.any():
            flat[name] = ((CHAIN, DRAW, f"{name}_entry"), values[..., moving])
    return xr.Dataset(flat)


def _at_least_two_chains(dataset: xr.Dataset) -> xr.Dataset:
    """A single chain as its two halves, because ArviZ compares no chain with itself."""
    n_draws = dataset.sizes[DRAW]
    if dataset.sizes[CHAIN] > 1 or n_draws < 2:
        return dataset
    half = n_draws // 2
    first, second = dataset.isel({DRAW: slice(half)}), dataset.isel({DRAW: slice(-half, None)})
    return xr.concat([first, second], CHAIN)


def e_bfmi(energy: np.ndarray) -> np.ndarray:
    """Per chain (Betancourt 2016, equation 4.1); ArviZ's call for it differs between its lines."""
    if energy.shape[1] < 2:
        return np.full(len(energy), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)


def repeated_share(means: xr.DataArray) -> np.ndarray:
    """Share of each chain's draws that are equal to the one before."""
    values = means.transpose(CHAIN, DRAW, ...).values
    if values.shape[1] < 2:
        return np.zeros(len(values))
    same = (np.diff(values, axis=1) == 0).all(axis=(2, 3))
    return same.mean(axis=1)


def worse_chains(log_likelihood: np.ndarray, allowed_sd: float) -> tuple[int, ...]:
    """Chains whose mean lies that many sds of the best chain below the best chain's."""
    means = log_likelihood.mean(axis=1)
    best = int(means.argmax())
    # Below a tenth of a nat two chains say the same whatever their spread.
    allowed = allowed_sd * log_likelihood[best].std() + 0.1
    return tuple(int(c) for c in np.flatnonzero(means < means[best] - allowed))


def n_occupied(fit: GMMFit) -> float:
    """Given a draw's weights, Dirichlet(a + counts) has mean (a_k + n_k) / (sum a + N)."""
    concentration = fit.priors.weight_concentration
    counts = fit.posterior[WEIGHTS].values * (fit.n_obs + concentration.sum()) - concentration
    return float(np.median((counts >= 1).sum(axis=-1)))


def collapsed_components(fit: GMMFit, smallest_scale: float) -> tuple[int, ...]:
    """Components that are tiny in some direction, beside the columns' spread, where a chain ended.

    Not only along the columns: two correlated features collapse onto a line first.
    """
    sizes = fit.posterior.sizes
    tril = fit.parameters().scale_tril / fit.X.std("obs").values[:, None]
    ended = tril.reshape(sizes[CHAIN], sizes[DRAW], *tril.shape[1:])[:, sizes[DRAW] // 2 :]
    smallest = np.linalg.svd(np.nan_to_num(ended), compute_uv=False)[..., -1]
    tiny = (np.median(smallest, axis=1) < smallest_scale).any(axis=0)
    return tuple(int(k) for k in np.flatnonzero(tiny))
