"""Values that occur more than once: how often, and in which steps a column was recorded."""

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["recording_steps", "repeated_rows", "tied_columns"]

# A value, or a row, that is more than this share of all draws components onto itself.
_TIED_SHARE, _REPEATED_SHARE = 0.2, 0.1
# Distinct values so near each other are one, rounded in two ways: in units of the last place.
_SAME = 16


def repeated_rows(values: np.ndarray, n_components: int) -> Iterator[str]:
    """Say how often a row occurs onto which a component may shrink.

    Parameters
    ----------
    values : ndarray, shape (n_obs, n_features)
    n_components : int

    Raises
    ------
    ValueError
        If there are fewer distinct rows than components.
    """
    import pandas as pd

    # Equal rows have equal hashes of 64 bits; adding zero makes one zero of two.
    hashes = pd.util.hash_pandas_object(pd.DataFrame(values + 0.0), index=False)
    counts = np.unique(hashes.to_numpy(), return_counts=True)[1]
    if n_components > len(counts):
        raise ValueError(
            f"n_components must be at most the number of distinct rows, got "
            f"n_components={n_components} for {len(counts)} distinct rows; take fewer components"
        )
    most = counts.max()
    if n_components > 1 and most > max(_REPEATED_SHARE * len(hashes), values.shape[1] + 1):
        yield (
            f"one row occurs {most} times in {len(hashes)}: a component may shrink onto it; leave "
            "out the copies, or add the noise that rounding took away"
        )


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
