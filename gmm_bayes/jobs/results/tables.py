"""Tables with one row per row of the data: who belongs where, with whom, and who does not."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from gmm_bayes._row_files import RowFile
from gmm_bayes._vocabulary import OBS

if TYPE_CHECKING:
    import pandas as pd

    from gmm_bayes.inference.result.gmm_fit import GMMFit
    from gmm_bayes.jobs.job_file.results import AnomaliesSection
    from gmm_bayes.posterior.partitions.partition import Partition

__all__ = [
    "anomalies_frames",
    "index_name",
    "partition_frame",
    "pieces",
    "responsibilities_frames",
    "threshold",
    "write_csv",
]

# What the column of row labels is called where they have no name.
ROWS = "index"


def responsibilities_frames(fit: "GMMFit", rows: Any, name: str = ROWS) -> Iterator["pd.DataFrame"]:
    """Who belongs where, one row per row of the data; of a file, piece by piece.

    Parameters
    ----------
    fit : GMMFit
    rows : array, frame or RowFile, optional
        None takes those of the fit.
    name : str
        Of the index.

    Yields
    ------
    pandas.DataFrame, shape (some rows, n_components + 2)
        Columns component_0, component_1, ..., label and log_predictive_density (nats); the index is
        that of the data.

    Raises
    ------
    LabelSwitchingError
        If components changed places between draws.
    """
    import pandas as pd

    from gmm_bayes.posterior.density import log_predictive_density
    from gmm_bayes.posterior.responsibilities import responsibilities

    names = [f"component_{k}" for k in range(fit.n_components)]
    for piece, at in pieces(rows):
        means = responsibilities(fit, piece)
        assert isinstance(means, xr.DataArray)
        frame = pd.DataFrame(means.values, index=_index(means[OBS], at, name), columns=names)
        frame["label"] = means.values.argmax(axis=1)
        frame["log_predictive_density"] = log_predictive_density(fit, piece).values
        yield frame


def partition_frame(fit: "GMMFit", found: "Partition", name: str = ROWS) -> "pd.DataFrame":
    """Cluster of each row, how probable it is there, and its log density (nats); no labels in it.

    Returns
    -------
    pandas.DataFrame, shape (n_obs, 3)
        Columns cluster, probability and log_predictive_density.
    """
    import pandas as pd

    from gmm_bayes.posterior.density import log_predictive_density

    columns = {
        "cluster": found.labels.values,
        "probability": found.probability.values,
        "log_predictive_density": log_predictive_density(fit).values,
    }
    return pd.DataFrame(columns, index=_index(found.labels[OBS], 0, name))


def threshold(fit: "GMMFit", rules: "AnomaliesSection") -> float:
    """The log density (nats) below which a row is strange, from the rows of the fit."""
    if rules.threshold is not None:
        return rules.threshold
    from gmm_bayes.posterior.density import log_predictive_density

    assert rules.contamination is not None
    densities = log_predictive_density(fit)
    assert isinstance(densities, xr.DataArray)
    return float(np.quantile(densities.values, rules.contamination))


def anomalies_frames(
    fit: "GMMFit", rows: Any, rules: "AnomaliesSection", threshold: float, name: str = ROWS
) -> Iterator["pd.DataFrame"]:
    """Who is flagged, one row per row of the data; of a file, piece by piece.

    Yields
    ------
    pandas.DataFrame
        The columns of `gmm_bayes.flag_anomalies`.

    Raises
    ------
    LabelSwitchingError
        If a rule asks for responsibilities and components changed places between draws.
    """
    from gmm_bayes.posterior.strangers import flag_anomalies

    others = {rule: value for rule, value in rules.given.items() if rule.startswith("min_")}
    for piece, at in pieces(rows):
        frame = flag_anomalies(fit, piece, threshold=threshold, **others).to_dataframe()
        frame.index = _index(frame.index, at, name)
        yield frame


def write_csv(path: Path, frames: Iterable["pd.DataFrame"]) -> None:
    """Write frames one below the other."""
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, frame in enumerate(frames):
            frame.to_csv(file, header=number == 0)


def pieces(rows: Any) -> Iterator[tuple[Any, int]]:
    """Rows and the number of the first: the pieces of a file, or all at once."""
    if not isinstance(rows, RowFile):
        yield rows, 0
        return
    at = 0
    for piece in rows.pieces():
        yield piece, at
        at += len(piece)


def index_name(rows: Any) -> str:
    """What the column of row labels is called: as in the data, or "index"."""
    name = getattr(getattr(rows, "index", None), "name", None)
    return ROWS if name is None else str(name)


def _index(labels: Any, at: int, name: str) -> "pd.Index":
    import pandas as pd

    return pd.Index(labels.values + at if at else labels.values, name=name)
