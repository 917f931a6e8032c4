"""Rows that do not belong: of too low a density, in too small a component, or between two."""

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gmm_bayes._validation import check_finite, check_probability
from gmm_bayes._vocabulary import OBS
from gmm_bayes.core.likelihood import log_sum_exp
from gmm_bayes.core.mixture import MixtureParameters, scores
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.posterior.density import log_predictive_density
from gmm_bayes.posterior.streaming import map_rows, refuse_switched, row_coords, rows_of

__all__ = ["Reject", "anomaly_scores", "flag_anomalies", "rejected"]

# A row is of a small component when that is more probable than not.
_PROBABLE = 0.5


@dataclass(frozen=True)
class Reject:
    """Rules by which a row gets no label; a row is rejected when one of them says so.

    Parameters
    ----------
    contamination : float, optional
        Rows whose log predictive density, dims (obs,), is below that of this share of the training
        rows.
    threshold : float, optional
        Rows whose log predictive density is below this, in nats; not together with
        `contamination`.
    min_responsibility : float, optional
        Rows whose most probable component is less probable than this.
    min_weight : float, optional
        Rows that more probably than not came from a component of smaller weight than this: a tiny
        cluster of their own.

    Raises
    ------
    ValueError
        If there is no rule, both `contamination` and `threshold` are given, or a number is out of
        range.
    """

    contamination: float | None = None
    threshold: float | None = None
    min_responsibility: float | None = None
    min_weight: float | None = None

    def __post_init__(self) -> None:
        for name in ("contamination", "min_responsibility", "min_weight"):
            if getattr(self, name) is not None:
                check_probability(getattr(self, name), name)
        if self.threshold is not None:
            _check_number(self.threshold)
        if self.contamination is not None and self.threshold is not None:
            raise ValueError("give contamination or threshold, not both: each sets the threshold")
        if all(getattr(self, rule.name) is None for rule in fields(self)):
            raise ValueError(
                "Reject needs at least one rule: contamination, threshold, min_responsibility or "
                "min_weight"
            )


def anomaly_scores(fit: GMMFit, X: Any = None) -> xr.DataArray:
    """Minus the log posterior predictive density of each row: the larger, the stranger.

    Parameters
    ----------
    fit : GMMFit
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows, in the units and columns of the fit. None takes the training rows.

    Returns
    -------
    xarray.DataArray
        Dims (obs,), in nats. A change of units adds one constant to all scores.

    Raises
    ------
    TypeError, ValueError
        If `X` does not have the columns of the fit.

    See Also
    --------
    conformal_p_values : Scores as p-values with a false-alarm rate that is known.
    """
    return (-_log_density(fit, X)).rename("anomaly_scores")


def flag_anomalies(
    fit: GMMFit,
    X: Any = None,
    *,
    contamination: float | None = None,
    threshold: float | None = None,
    min_responsibility: float | None = None,
    min_weight: float | None = None,
) -> xr.Dataset:
    """Flag the rows that do not belong, and say how sure that is.

    Parameters
    ----------
    fit : GMMFit
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows, in the units and columns of the fit. None takes the training rows.
    contamination : float, optional
        The threshold is this quantile of the log predictive densities of the training rows, so that
        about this share of them is flagged. Give this or `threshold`.
    threshold : float, optional
        Log predictive density, in nats, below which a row is flagged.
    min_responsibility : float, optional
        Flag also rows whose most probable component is less probable than this.
    min_weight : float, optional
        Flag also rows that more probably than not came from a component of smaller weight than
        this: tiny clusters far from the rest.

    Returns
    -------
    xarray.Dataset
        Dims (obs,): `flag`, whether any rule flags the row, and by which: `low_density`,
        `small_component`, `unsure`; `score`, minus the log predictive density; `probability`, the
        posterior probability that the row's log density is below the threshold. With
        `min_responsibility` also `responsibility`, of the most probable component; with
        `min_weight` also `small_component_probability`. The attribute `threshold` is in nats.

    Raises
    ------
    LabelSwitchingError
        If `min_responsibility` is given and the components changed places between draws. The other
        rules do not depend on labels.
    TypeError, ValueError
        If not exactly one of `contamination` and `threshold` is given, an option is out of range,
        or `X` does not have the columns of the fit.

    Notes
    -----
    `probability` is the share of draws s with log sum_k weights_k N(x; means_k, covariances_k)
    below the threshold. It is near 0 or 1 where the posterior knows, and between where the flag
    could go either way. In each draw the components of weight below `min_weight` are counted, so
    the probability that a row came from one is also an average over draws.

    Examples
    --------
    >>> import gmm_bayes as gb
    >>> X = gb.datasets.load_old_faithful()
    >>> fit = gb.fit(X, 2, sampler=gb.NUTS(num_warmup=300, num_samples=300), seed=1)
    >>> flags = gb.flag_anomalies(fit, [[2.0, 55.0], [2.0, 90.0]], contamination=0.02)
    >>> flags["flag"].values
    array([False,  True])
    """
    check_fit(fit)
    if (contamination is None) == (threshold is None):
        got = "neither" if contamination is None else "both"
        raise ValueError(
            f"give exactly one of contamination and threshold, got {got}: contamination=0.05 takes "
            "the threshold below which 5 % of the training rows lie, threshold is a log density"
        )
    return _apply(fit, X, Reject(contamination, threshold, min_responsibility, min_weight))


def rejected(fit: GMMFit, X: Any, reject: Reject) -> np.ndarray:
    """Whether each row is rejected by one of the rules, shape (n_obs,)."""
    if not isinstance(reject, Reject):
        raise TypeError(
            f"reject must be a gmm_bayes.Reject, as in Reject(contamination=0.05), got "
            f"{type(reject).__name__}"
        )
    return np.asarray(_apply(fit, X, reject)["flag"].values)


def _apply(fit: GMMFit, X: Any, rules: Reject) -> xr.Dataset:
    rows, index = rows_of(fit, X)
    if rules.min_responsibility is not None:
        refuse_switched(fit, "min_responsibility")
    log_density = _log_density(fit, X).values
    threshold = _threshold(fit, rules, None if X is not None else log_density)
    shares = partial(_shares, threshold=threshold, min_weight=rules.min_weight or 0.0)
    below, small, largest = map_rows(shares, fit, rows)
    columns = {
        "score": -log_density,
        "probability": below,
        "low_density": log_density < threshold,
        "small_component": small > _PROBABLE,
        "unsure": largest < (rules.min_responsibility or 0.0),
    }
    columns["flag"] = columns["low_density"] | columns["small_component"] | columns["unsure"]
    if rules.min_responsibility is not None:
        columns["responsibility"] = largest
    if rules.min_weight is not None:
        columns["small_component_probability"] = small
    answer = xr.Dataset({name: (OBS, values) for name, values in columns.items()})
    return answer.assign_coords(row_coords(fit, index)).assign_attrs(threshold=threshold)


def _threshold(fit: GMMFit, rules: Reject, training: np.ndarray | None) -> float:
    """The log density that is too low; minus infinity without a rule."""
    if rules.contamination is None:
        return -np.inf if rules.threshold is None else float(rules.threshold)
    if training is None:
        training = _log_density(fit, None).values
    return float(np.quantile(training, rules.contamination))


@jax.jit
def _shares(
    X: jax.Array, draws: MixtureParameters, threshold: float, min_weight: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Means over draws, one at a time: of rows below the threshold, of their probability to be of a
    small component, and the largest mean responsibility; shapes (n_obs,).
    """

    def add(totals: tuple[jax.Array, ...], draw: MixtureParameters) -> tuple[Any, None]:
        log_joint = scores(X, draw)
        log_density = log_sum_exp(log_joint)
        each = jnp.exp(log_joint - log_density[:, None])
        small = jnp.where(draw.weights < min_weight, each, 0.0).sum(axis=1)
        below = jnp.where(log_density < threshold, 1.0, 0.0)
        return tuple(t + new for t, new in zip(totals, (below, small, each), strict=True)), None

    zero = jnp.zeros(len(X), X.dtype)
    start = (zero, zero, jnp.zeros((len(X), draws.weights.shape[1]), X.dtype))
    below, small, each = jax.lax.scan(add, start, draws)[0]
    n_draws = draws.weights.shape[0]
    return below / n_draws, small / n_draws, each.max(axis=1) / n_draws


def _log_density(fit: GMMFit, X: Any) -> xr.DataArray:
    answer = log_predictive_density(fit, X)
    assert isinstance(answer, xr.DataArray)
    return answer


def _check_number(threshold: Any) -> None:
    if check_finite(threshold, "threshold").shape != ():
        raise ValueError(f"threshold must be one log density, got shape {np.shape(threshold)}")
