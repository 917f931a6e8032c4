"""Who belongs where, with what probability."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from gmm_bayes._validation import check_choice, check_probability
from gmm_bayes._vocabulary import CHAIN, COMPONENT, DRAW, OBS
from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.posterior.strangers import Reject, rejected
from gmm_bayes.posterior.streaming import (
    announce,
    each_draw,
    map_rows,
    mean_over_draws,
    refuse_switched,
    row_coords,
    rows_of,
)

__all__ = ["NO_COMPONENT", "assign", "responsibilities"]

# The label of a row that is not given one.
NO_COMPONENT = -1


def responsibilities(
    fit: GMMFit,
    X: Any = None,
    *,
    reduce: Literal["mean"] | None = "mean",
    interval: float | None = None,
) -> xr.DataArray | xr.Dataset:
    """Posterior probability that each row came from each component.

    Parameters
    ----------
    fit : GMMFit
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows, in the units and columns of the fit. None takes the training rows.
    reduce : "mean" or None
        The mean over draws, or every draw by itself. The latter has shape (chain, draw, obs,
        component); its size is logged first, and warned about above 1 GiB.
    interval : float, optional
        Probability of an equal-tailed interval over draws, for example 0.9.

    Returns
    -------
    xarray.DataArray
        Dims (obs, component), rows summing to one, or (chain, draw, obs, component).
    xarray.Dataset
        With `interval`: `mean`, `lower` and `upper`, dims (obs, component).

    Raises
    ------
    LabelSwitchingError
        If the components changed places between draws and an average was asked for.
    TypeError, ValueError
        If `X` does not have the columns of the fit, or an option is wrong.

    Notes
    -----
    r_nk = E[ weights_k N(x_n; means_k, covariances_k) / sum_j weights_j N(x_n; ...) ], the mean
    over draws of the ratio. This is not the ratio at the mean parameters: it carries the
    posterior's uncertainty (McLachlan and Peel 2000, Finite Mixture Models, section 4.2).
    """
    rows, index = rows_of(fit, X)
    coords = row_coords(fit, index, COMPONENT)
    dims = (OBS, COMPONENT)
    if reduce is not None:
        check_choice(reduce, "reduce", ("mean",))
    elif interval is not None:
        raise ValueError("interval is over draws: give it with reduce='mean'")
    if interval is not None:
        check_probability(interval, "interval")
    if reduce is None:
        return _every_draw(fit, rows, coords)
    refuse_switched(fit, "responsibilities")
    if interval is None:
        mean = map_rows(_mean, fit, rows)
        return xr.DataArray(mean, coords, dims, name="responsibilities")
    mean, lower, upper = _interval(fit, rows, interval)
    return xr.Dataset(
        {"mean": (dims, mean), "lower": (dims, lower), "upper": (dims, upper)}, coords
    )


def assign(fit: GMMFit, X: Any = None, *, reject: Reject | None = None) -> xr.DataArray:
    """Most probable component of each row, or -1 for "I do not know".

    Parameters
    ----------
    fit : GMMFit
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows, in the units and columns of the fit. None takes the training rows.
    reject : Reject, optional
        Rules by which a row gets -1, for example
        `Reject(contamination=0.05, min_responsibility=0.8)`. None gives every row a component.

    Returns
    -------
    xarray.DataArray
        Dims (obs,), integers in 0 ... n_components - 1, and -1 for rejected rows.

    Raises
    ------
    LabelSwitchingError
        If the components changed places between draws.
    TypeError, ValueError
        If `X` does not have the columns of the fit, or `reject` is not a `Reject`.

    Notes
    -----
    The component of the largest mean responsibility minimises the expected number of misassigned
    rows; -1 is the answer of `flag_anomalies` with the same rules.
    """
    refused = None if reject is None else rejected(fit, X, reject)
    means = responsibilities(fit, X)
    assert isinstance(means, xr.DataArray)
    labels = means.argmax(COMPONENT).rename("labels")
    if refused is None:
        return labels
    return labels.copy(data=np.where(refused, NO_COMPONENT, labels.values))


def _every_draw(fit: GMMFit, rows: np.ndarray, coords: dict[str, Any]) -> xr.DataArray:
    sizes = fit.posterior.sizes
    shape = (sizes[CHAIN], sizes[DRAW], len(rows), fit.n_components)
    announce("responsibilities with reduce=None", shape, instead="take the mean, reduce='mean'")
    values = map_rows(_each, fit, rows, axis=1, numbers_per_row=shape[0] * shape[1] * shape[3])
    return xr.DataArray(
        values.reshape(shape),
        row_coords(fit, coords[OBS], CHAIN, DRAW, COMPONENT),
        (CHAIN, DRAW, OBS, COMPONENT),
        name="responsibilities",
    )


def _interval(
    fit: GMMFit, rows: np.ndarray, probability: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tail = (1 - probability) / 2
    n_draws = fit.posterior.sizes[CHAIN] * fit.posterior.sizes[DRAW]

    def block(X: Any, draws: MixtureParameters) -> tuple[np.ndarray, ...]:
        values = np.asarray(_each(X, draws))
        return values.mean(0), *np.quantile(values, [tail, 1 - tail], axis=0)

    return map_rows(block, fit, rows, numbers_per_row=n_draws * fit.n_components)


_mean = mean_over_draws(mixture.responsibilities)
_each = each_draw(mixture.responsibilities)
