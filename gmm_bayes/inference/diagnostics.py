"""Do the chains agree? Label-free first: a property of the run, so it lives with the run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from gmm_bayes._vocabulary import CHAIN, COMPONENT, DRAW, MEANS, SCALES, WEIGHTS
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.result import GMMFit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["THRESHOLDS", "Diagnosis", "diagnose", "labels_switched"]

# Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and
# localization: R-hat below 1.01 and an ESS of 100 per chain. Betancourt (2016), Diagnosing
# suboptimal cotangent disintegrations: an E-BFMI below 0.3 is suspicious. The others are ours: a
# chain is in another mode when its mean log-likelihood lies three sds of the best chain below that
# chain's; NUTS hardly ever returns the point it started from; and a component a ten-thousandth as
# wide as its column has collapsed.
THRESHOLDS: Final = {
    "rhat": 1.01,
    "ess_per_chain": 100,
    "e_bfmi": 0.3,
    "worse_chain_sd": 3.0,
    "repeated_share": 0.1,
    "collapsed_scale": 1e-4,
    "min_draws": 8,
}

# Stretches of a chain that are compared when looking for switched labels.
_STRETCHES = 10


@dataclass(frozen=True)
class Diagnosis:
    """Whether a run may be believed, and why not.

    Attributes
    ----------
    ok : bool
        True when nothing was found.
    problems, advice, notes : tuple of str
        What is wrong, what to do about it, and what is worth knowing without being wrong.
    rhat, ess_bulk, ess_tail : float
        The worst over all parameters and label-free quantities.
    table : pandas.DataFrame
        The worst R-hat and ESS of each quantity; label-free quantities first.
    n_divergences, n_max_tree_depth : int
        Draws after warm-up that diverged, or whose trajectory was cut at the maximum depth.
    e_bfmi, repeated_share, log_likelihood : ndarray, shape (num_chains,)
        Energy's Bayesian fraction of missing information, the share of draws equal to the one
        before, and the mean log-likelihood (nats), per chain.
    worse_chains : tuple of int
        Chains that sit in a worse mode.
    n_occupied : float
        Median over draws of the number of components that hold at least one row.
    switched : bool
        Whether components changed places between or within chains.
    collapsed : tuple of int
        Components that have shrunk onto a point, a line or a plane.
    """

    ok: bool
    problems: tuple[str, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    rhat: float
    ess_bulk: float
    ess_tail: float
    table: "pd.DataFrame"
    n_divergences: int
    n_max_tree_depth: int
    e_bfmi: np.ndarray
    repeated_share: np.ndarray
    log_likelihood: np.ndarray
    worse_chains: tuple[int, ...]
    n_occupied: float
    switched: bool
    collapsed: tuple[int, ...]

    def __repr__(self) -> str:
        lines = [
            f"Diagnosis: {'ok' if self.ok else 'NOT ok'}",
            f"  R-hat {self.rhat:.3f}, bulk ESS {self.ess_bulk:.0f}, tail ESS {self.ess_tail:.0f}, "
            f"{self.n_divergences} divergences, E-BFMI {self.e_bfmi.min():.2f}",
        ]
        for title, entries in (
            ("problem", self.problems),
            ("advice", self.advice),
            ("note", self.notes),
        ):
            lines += [f"  {title}: {entry}" for entry in entries]
        return "\n".join(lines)


def diagnose(fit: GMMFit) -> Diagnosis:
    """Judge whether the chains of a fit agree and explored what they should.

    Parameters
    ----------
    fit : GMMFit

    Raises
    ------
    TypeError
        If `fit` is not a GMMFit.

    Returns
    -------
    Diagnosis
        `.ok`, `.problems`, `.advice` in words, and the numbers behind them; per-chain arrays have
        shape (num_chains,), log-likelihoods are in nats.

    Notes
    -----
    R-hat and ESS are rank-normalised [1]_. The label-free quantities (log-likelihood, log
    posterior, and the mean and variances of the whole mixture) decide whether the chains agree; raw
    parameters that disagree while those agree mean switched labels.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Buerkner (2021). Rank-
       normalization, folding, and localization. Bayesian Analysis 16.
    """
    if not isinstance(fit, GMMFit):
        raise TypeError(f"fit must be a GMMFit, got {type(fit).__name__}; gmm_bayes.fit makes one")
    stats = fit.sample_stats
    table = _table(fit)
    free = table[table["label_free"].astype(bool)]
    switched = labels_switched(fit)
    judged = free if switched else table
    log_likelihood = stats["log_likelihood"]
    numbers = {
        "rhat": float(judged["rhat"].max(skipna=False)),
        "ess_bulk": float(judged["ess_bulk"].min(skipna=False)),
        "ess_tail": float(judged["ess_tail"].min(skipna=False)),
        "table": table,
        "n_divergences": int(stats["diverging"].sum()),
        "n_max_tree_depth": int((stats["n_steps"] >= 2.0**fit.sampler.max_tree_depth - 1).sum()),
        "e_bfmi": _e_bfmi(stats["energy"].values),
        "repeated_share": _repeated_share(fit.posterior[MEANS]),
        "log_likelihood": log_likelihood.mean(DRAW).values,
        "worse_chains": _worse_chains(log_likelihood.values),
        "n_occupied": _n_occupied(fit),
        "switched": switched,
        "collapsed": _collapsed(fit),
    }
    found = list(_findings(fit, numbers))
    return Diagnosis(
        ok=not found,
        problems=tuple(problem for problem, _ in found),
        advice=tuple(dict.fromkeys(advice for _, advice in found)),
        notes=tuple(_notes(fit, numbers)),
        **numbers,
    )


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


def _findings(fit: GMMFit, n: dict) -> Iterator[tuple[str, str]]:
    """(problem, advice) for everything that is wrong."""
    chains, draws = fit.posterior.sizes[CHAIN], fit.posterior.sizes[DRAW]
    enough_ess = THRESHOLDS["ess_per_chain"] * chains
    longer = "run more draws (num_warmup, num_samples)"
    if draws < THRESHOLDS["min_draws"]:
        yield f"{draws} draws a chain are too few to judge", longer.capitalize() + "."
        return
    if not np.isfinite(n["rhat"]):
        yield (
            "R-hat cannot be computed: draws are not finite, or no chain moved",
            "Check the priors against the units of the data, and raise num_warmup.",
        )
    if n["worse_chains"]:
        means = ", ".join(f"{value:.1f}" for value in n["log_likelihood"])
        yield (
            f"chains {list(n['worse_chains'])} sit in a worse mode "
            f"(mean log-likelihood by chain: {means})",
            "Start from a better solution (n_init, init) or take fewer components.",
        )
    if n["switched"]:
        yield (
            "components changed places between draws (label switching)",
            "Use label-free answers (log_predictive_density) or a prior that tells the "
            "components apart; averages per component mean nothing.",
        )
    if n["rhat"] > THRESHOLDS["rhat"]:
        yield (
            f"R-hat is {n['rhat']:.3f} (should be below {THRESHOLDS['rhat']})",
            longer.capitalize() + "; if that does not help, the chains sit in different modes.",
        )
    for kind in ("ess_bulk", "ess_tail"):
        if not n[kind] >= enough_ess:
            yield (
                f"{kind.removeprefix('ess_')} ESS is {n[kind]:.0f} (should be above {enough_ess})",
                longer.capitalize() + ".",
            )
    if n["n_divergences"]:
        yield (
            f"{n['n_divergences']} of {chains * draws} draws diverged",
            "Raise target_accept_prob, or take fewer components or a tighter prior.",
        )
    if n["n_max_tree_depth"]:
        yield (
            f"{n['n_max_tree_depth']} of {chains * draws} trajectories were cut at the maximum "
            "tree depth",
            "Raise num_warmup or max_tree_depth.",
        )
    if (n["e_bfmi"] < THRESHOLDS["e_bfmi"]).any():
        yield (
            f"E-BFMI is {np.nanmin(n['e_bfmi']):.2f} (should be above {THRESHOLDS['e_bfmi']})",
            longer.capitalize() + ".",
        )
    if n["repeated_share"].max() > THRESHOLDS["repeated_share"]:
        yield (
            f"{n['repeated_share'].max():.0%} of a chain's draws repeat the one before",
            "Raise target_accept_prob and num_warmup.",
        )
    if n["collapsed"]:
        yield (
            f"components {list(n['collapsed'])} have shrunk onto a point, a line or a plane",
            "Look for repeated rows and for columns that depend on each other, or take fewer "
            "components.",
        )


def _notes(fit: GMMFit, n: dict) -> Iterator[str]:
    if fit.posterior.sizes[CHAIN] == 1:
        yield "one chain cannot show a mode that it missed: run several (num_chains)"
    empty = fit.n_components - n["n_occupied"]
    if empty >= 1:
        yield (
            f"{n['n_occupied']:.0f} of {fit.n_components} components are occupied; the "
            "parameters of an empty one are the prior's"
        )


def _table(fit: GMMFit) -> "pd.DataFrame":
    """Worst R-hat and ESS of each quantity."""
    import pandas as pd

    rows = {}
    sites = fit.posterior.drop_vars("covariances")
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


def _e_bfmi(energy: np.ndarray) -> np.ndarray:
    """Per chain (Betancourt 2016, equation 4.1); ArviZ's call for it differs between its lines."""
    if energy.shape[1] < 2:
        return np.full(len(energy), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)


def _repeated_share(means: xr.DataArray) -> np.ndarray:
    values = means.transpose(CHAIN, DRAW, ...).values
    if values.shape[1] < 2:
        return np.zeros(len(values))
    same = (np.diff(values, axis=1) == 0).all(axis=(2, 3))
    return same.mean(axis=1)


def _worse_chains(log_likelihood: np.ndarray) -> tuple[int, ...]:
    means = log_likelihood.mean(axis=1)
    best = int(means.argmax())
    # Below a tenth of a nat two chains say the same whatever their spread.
    allowed = THRESHOLDS["worse_chain_sd"] * log_likelihood[best].std() + 0.1
    return tuple(int(c) for c in np.flatnonzero(means < means[best] - allowed))


def _n_occupied(fit: GMMFit) -> float:
    """Given a draw's weights, Dirichlet(a + counts) has mean (a_k + n_k) / (sum a + N)."""
    concentration = fit.priors.weight_concentration
    counts = fit.posterior[WEIGHTS].values * (fit.n_obs + concentration.sum()) - concentration
    return float(np.median((counts >= 1).sum(axis=-1)))


def _collapsed(fit: GMMFit) -> tuple[int, ...]:
    """Components that are tiny in some direction, beside the columns' spread, where a chain ended.

    Not only along the columns: two correlated features collapse onto a line first.
    """
    sizes = fit.posterior.sizes
    tril = fit.parameters().scale_tril / fit.X.std("obs").values[:, None]
    ended = tril.reshape(sizes[CHAIN], sizes[DRAW], *tril.shape[1:])[:, sizes[DRAW] // 2 :]
    smallest = np.linalg.svd(np.nan_to_num(ended), compute_uv=False)[..., -1]
    tiny = (np.median(smallest, axis=1) < THRESHOLDS["collapsed_scale"]).any(axis=0)
    return tuple(int(k) for k in np.flatnonzero(tiny))
