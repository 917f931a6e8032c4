"""Values that occur more than once: how often, and in which steps a column was recorded."""

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["recording_steps", "tied_columns"]

_TIED_SHARE = 0.2
# Distinct values so near each other are one, rounded in two ways: in units of the last place.
_SAME = 16


def tied_columns(values: np.ndarray, feature_names: Sequence[str]) -> Iterator[str]:
    """Say of each column with a value in more than a fifth of its rows which one it is.

    Parameters
    ----------
    values : ndarray, shape (n_obs, n_features)
    feature_names : sequence of str
    """
    n_obs, n_features = values.shape
    # One column at a time: a table may fill much of the memory.
    for name, column in zip(feature_names, values.T, strict=True):
        distinct, counts = np.unique(column, return_counts=True)
        most = int(counts.argmax())
        if counts[most] > max(_TIED_SHARE * n_obs, n_features + 1):
            yield (
                f"column {name!r} holds {distinct[most] + 0.0:g} in {counts[most]} of {n_obs} rows "
                f"({counts[most] / n_obs:.0%}): a component may shrink onto that value, where its "
                "density has no bound; model these rows apart, or leave the column out"
            )


def recording_steps(values: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Least difference between distinct values of each column with ties, 0 where there are none.

    Parameters
    ----------
    values : ndarray, shape (n_obs, n_features)
    least : float
        A difference no larger is none, as where arithmetic has been done with the values.

    Returns
    -------
    ndarray, shape (n_features,)
    """
    return np.array([_step(np.sort(column), least) for column in values.T])


def _step(ordered: np.ndarray, least: float) -> float:
    gaps = np.diff(ordered)
    apart = gaps > max(least, _SAME * np.spacing(abs(ordered).max()))
    return float(gaps[apart].min()) if apart.any() and not apart.all() else 0.0
