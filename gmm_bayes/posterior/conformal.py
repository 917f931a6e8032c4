"""p-values whose false-alarm rate is known, whatever the model is worth."""

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from gmm_bayes._validation import Table, check_columns, check_data, check_near, warn_data
from gmm_bayes._vocabulary import OBS
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.posterior.strangers import anomaly_scores

__all__ = ["conformal_p_values"]

# Standard deviations above the number of matches that chance explains.
_SURPRISING = 3


def conformal_p_values(fit: GMMFit, X_calibration: Any, X_new: Any) -> xr.DataArray:
    """How strange new rows are beside held-out ones, as p-values.

    Parameters
    ----------
    fit : GMMFit
    X_calibration : array, pandas, polars or xarray object, shape (n_calibration, n_features)
        Normal rows that the fit, and the choice of its settings, did not see.
    X_new : array, pandas, polars or xarray object, shape (n_obs, n_features)
        The rows in question.

    Returns
    -------
    xarray.DataArray
        Dims (obs,), at least 1 / (n_calibration + 1). Small means strange.

    Raises
    ------
    TypeError, ValueError
        If a table does not have the columns of the fit, or every calibration row is a training row.

    Warns
    -----
    DataWarning
        If more calibration rows equal training rows than chance explains.

    Notes
    -----
    p = (1 + #{calibration scores >= score}) / (n_calibration + 1) with `anomaly_scores`: split
    conformal [1]_. For a normal row P(p <= a) <= a for every a, over the draws of calibration rows
    and the new one together. All that is needed is that calibration and new normal rows are
    exchangeable (for example a random split of one sample), and neither was used in the fit; the
    model may be wrong, which costs power and not the level. Training rows would score too well and
    raise false alarms. p-values of many new rows share the calibration rows, so they are dependent;
    the Benjamini-Hochberg procedure still controls the false discovery rate [2]_.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer (2005). Algorithmic Learning in a Random World.
    .. [2] S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia (2023). Testing for outliers with
       conformal p-values. Annals of Statistics 51.
    """
    check_fit(fit)
    calibration = _read(fit, X_calibration, "X_calibration")
    new = _read(fit, X_new, "X_new")
    _refuse_training_rows(calibration.values, fit.X.values)
    known = np.sort(anomaly_scores(fit, calibration.values))
    scores = np.asarray(anomaly_scores(fit, new.values))
    as_strange = len(known) - np.searchsorted(known, scores, side="left")
    p = (1 + as_strange) / (len(known) + 1)
    return xr.DataArray(p, {OBS: new.index}, (OBS,), name="conformal_p_values")


def _read(fit: GMMFit, X: Any, name: str) -> Table:
    table = check_data(X, name=name)
    rows = check_columns(table, fit.feature_names, name=name)
    check_near(rows, fit.X.values, fit.feature_names, name=name)
    return replace(table, values=rows)


def _refuse_training_rows(calibration: np.ndarray, training: np.ndarray) -> None:
    """Complain about calibration rows that the fit has seen.

    Rounded data hold equal rows by chance: as often as a training row has a twin among the others.
    """
    known, counts = np.unique(_hashes(training), return_counts=True)
    matches = int(np.isin(_hashes(calibration), known).sum())
    if not matches:
        return
    n, chance = len(calibration), (1 + counts[counts > 1].sum()) / (1 + len(training))
    if matches <= n * chance + _SURPRISING * np.sqrt(n * chance * (1 - chance)):
        return
    if matches == n:
        raise ValueError(
            f"X_calibration must be rows that the fit did not see, but all its {n} rows are "
            "training rows; split the data before the fit"
        )
    warn_data(
        f"{matches} of {n} rows of X_calibration equal training rows, more than chance explains: "
        "p-values of normal rows would be too small; split the data before the fit"
    )


def _hashes(rows: np.ndarray) -> np.ndarray:
    import pandas as pd

    # Adding zero makes one zero of two.
    return pd.util.hash_pandas_object(pd.DataFrame(rows + 0.0), index=False).to_numpy()
