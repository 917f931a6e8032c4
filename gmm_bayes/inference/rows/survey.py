"""One pass over rows that stay in their file: what must be known of all, and a sample of them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from gmm_bayes._row_files import RowFile
from gmm_bayes._tables import Table, missing_error
from gmm_bayes.machine.devices import double_precision

__all__ = ["MOST_ROWS_KEPT", "Survey", "own_share", "survey"]

# The standard error of a mean of so many rows is less than a hundredth of a standard deviation.
MOST_ROWS_KEPT = 20_000


class Survey(NamedTuple):
    """What a pass over all rows of a file has found.

    Attributes
    ----------
    rows : RowFile
        What was looked at.
    sample : Table
        Rows drawn at random, in the order of the file; the index is their place in it.
    checked : Table
        The same, and the rows that hold the smallest and the largest value of a column.
    loc, scale : ndarray, shape (n_features,)
        Means and standard deviations of the columns, of all rows.
    digest : int
        Changes when any number does, or when rows change places.
    """

    rows: RowFile
    sample: Table
    checked: Table
    loc: np.ndarray
    scale: np.ndarray
    digest: int


class _Moments(NamedTuple):
    """Number of rows, their means (D,), and sums of squares about these."""

    n: Any
    mean: Any
    squares: Any


def own_share(n_obs: int) -> tuple[int, int]:
    """Begin and end of the rows that this process looks at, one of several or the only one."""
    number, of = jax.process_index(), jax.process_count()
    return n_obs * number // of, n_obs * (number + 1) // of


def survey(rows: RowFile, seed: Any, *, shared: bool) -> Survey:
    """Look at every row once.

    Parameters
    ----------
    rows : RowFile
    seed : int or array of int
        Of the sample.
    shared : bool
        All processes of JAX are here: each looks at its share, and tells the others.

    Raises
    ------
    ValueError
        If a value is missing or infinite, in all processes alike.
    """
    n_obs = len(rows)
    rng = np.random.default_rng(seed)
    n_kept = min(n_obs, MOST_ROWS_KEPT)
    places = np.sort(rng.choice(n_obs, n_kept, replace=False, shuffle=False))
    share = own_share(n_obs) if shared else (0, n_obs)
    seen = _look(rows, places, share)
    told = _tell_all(seen) if shared else {name: np.asarray(v)[None] for name, v in seen.items()}
    return _put_together(rows, places, told)


def _put_together(rows: RowFile, places: np.ndarray, seen: dict[str, np.ndarray]) -> Survey:
    """One survey of what one or more processes have seen, in the first axis."""
    _refuse_missing(seen, rows)
    moments = _together(map(_Moments, *(seen[name] for name in _Moments._fields)))
    # Zero but in the process that has read the row.
    sample = Table(seen["sample"].sum(axis=0), rows.feature_names, places, rows.named)
    with np.errstate(over="ignore"):
        scale = np.sqrt(moments.squares / moments.n)
    digest = int(seen["digest"].sum(dtype=np.uint64))
    return Survey(rows, sample, _with_extremes(sample, seen), moments.mean, scale, digest)


def _look(rows: RowFile, places: np.ndarray, share: tuple[int, int]) -> dict[str, Any]:
    """Go through one share of the rows."""
    n_features = rows.shape[1]
    at, end = share
    moments = []
    sample = np.zeros((len(places), n_features))
    # Smallest values and, negated, largest; the rows that hold them; their places.
    extremes = np.full((2, n_features), np.inf)
    extreme_rows = np.zeros((2, n_features, n_features))
    extreme_places = np.zeros((2, n_features), np.int64)
    # Missing, infinite, and the row and column of the first.
    bad = np.array([0, 0, -1, -1])
    digests = [np.uint64(0)]
    for piece in rows.pieces(at, end):
        if not np.isfinite(piece).all():
            bad = _count_bad(bad, piece, at)
        else:
            moments.append(_moments(piece))
            digests.append(_hashes(piece, at).sum(dtype=np.uint64))
            some = slice(*np.searchsorted(places, (at, at + len(piece))))
            sample[some] = piece[places[some] - at]
            for side, signed in enumerate((piece, -piece)):
                found = signed.argmin(axis=0)
                values = signed[found, np.arange(n_features)]
                better = values < extremes[side]
                extremes[side, better] = values[better]
                extreme_rows[side, better] = piece[found[better]]
                extreme_places[side, better] = found[better] + at
        at += len(piece)
    none = _Moments(0, np.zeros(n_features), np.zeros(n_features))
    return {
        **_together([none, *moments])._asdict(),
        "sample": sample,
        "extremes": extremes,
        "extreme_rows": extreme_rows,
        "extreme_places": extreme_places,
        "bad": bad,
        # Beyond 64 bits it begins anew.
        "digest": np.sum(digests, dtype=np.uint64),
    }


def _moments(piece: np.ndarray) -> _Moments:
    with np.errstate(over="ignore", invalid="ignore"):
        mean = piece.mean(axis=0)
        return _Moments(len(piece), mean, ((piece - mean) ** 2).sum(axis=0))


def _together(parts: Iterable[_Moments]) -> _Moments:
    """Moments of rows from those of their parts [1]_, which keeps the digits of a far column.

    References
    ----------
    .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque (1983). Algorithms for computing the sample
       variance. The American Statistician 37.
    """
    parts = iter(parts)
    all_rows = next(parts)
    for part in parts:
        n = all_rows.n + part.n
        if not part.n:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            step = part.mean - all_rows.mean
            mean = all_rows.mean + step * (part.n / n)
            between = step**2 * (all_rows.n * (part.n / n))
        all_rows = _Moments(n, mean, all_rows.squares + part.squares + between)
    return all_rows


def _hashes(piece: np.ndarray, at: int) -> np.ndarray:
    """A number of 64 bits for each row and its place, so that their sum tells files apart."""
    import pandas as pd

    frame = pd.DataFrame(piece, index=pd.RangeIndex(at, at + len(piece)))
    return pd.util.hash_pandas_object(frame).to_numpy()


def _count_bad(bad: np.ndarray, piece: np.ndarray, at: int) -> np.ndarray:
    missing, infinite = np.isnan(piece), np.isinf(piece)
    first = bad[2:]
    if first[0] < 0:
        row, column = np.argwhere(missing | infinite)[0]
        first = np.array([at + row, column])
    return np.array([bad[0] + missing.sum(), bad[1] + infinite.sum(), *first])


def _tell_all(seen: dict[str, Any]) -> dict[str, np.ndarray]:
    """What all processes have seen, in one more axis at the front, in every process."""
    with double_precision():
        arrays = {name: np.asarray(value) for name, value in seen.items()}
        return multihost_utils.process_allgather(arrays)


def _refuse_missing(seen: dict[str, np.ndarray], rows: RowFile) -> None:
    bad = seen["bad"]
    n_missing, n_infinite = (int(n) for n in bad[:, :2].sum(axis=0))
    if n_missing + n_infinite:
        row, column = min(tuple(map(int, first)) for first in bad[:, 2:] if first[0] >= 0)
        size = rows.shape[0] * rows.shape[1]
        name = rows.feature_names[column]
        raise missing_error(str(rows.path), n_missing, n_infinite, size, row, name)


def _with_extremes(sample: Table, seen: dict[str, np.ndarray]) -> Table:
    """The sample with the rows at the ends of every column."""
    n_features = sample.values.shape[1]
    winner = seen["extremes"].argmin(axis=0)
    side, column = np.indices((2, n_features))
    places = seen["extreme_places"][winner, side, column].ravel()
    values = seen["extreme_rows"][winner, side, column].reshape(-1, n_features)
    places, first = np.unique(places, return_index=True)
    new = ~np.isin(places, sample.index)
    return Table(
        np.concatenate([sample.values, values[first][new]]),
        sample.feature_names,
        np.concatenate([sample.index, places[new]]),
        sample.named,
    )
